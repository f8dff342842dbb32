"""The parts of a bulk run, spread over a cluster: a pool of Ray actors, each with a model of its own.

Ray Data streams the numbers of the parts to the actors and the counts back; images and captions never pass through
its store. It restarts an actor that dies and gives it its part again, from the beginning.
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from showtell.bulk.captioning import PartCaptioner
from showtell.bulk.results import Results
from showtell.bundle import READ
from showtell.captioner import EngineName, load
from showtell.errors import ShowtellError, UsageError, needs
from showtell.search.options import SearchOptions

RESTARTS = 100  # of one actor: enough for machines that are taken away, while a loop of crashes ends some time
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nobody asked for telemetry
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a warning
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # the exceptions say the rest, too
}
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
LOCAL_STORE = 512 * 2**20  # bytes; for a cluster that is started here, on one machine

ModelFiles = list[dict[str, bytes]]
"""The files of a model, or of each model of an ensemble, by name."""


@dataclass(frozen=True, slots=True)
class Work:
    """What an actor needs to know; it is sent to other machines."""

    where: str
    """The folder of the results."""
    folder: str
    """The folder to which paths are relative."""
    options: SearchOptions
    made_with: Mapping[str, Any]
    batch_size: int
    threads: int
    engine: EngineName


def workers_of_cluster(asked: int | None, threads: int) -> int:
    """Connect to the cluster: the one that this machine or RAY_ADDRESS is part of, else one that is started here.

    Args:
        asked: how many workers; None is as many as the cluster has cores for.
        threads: cores of a worker.

    Returns:
        How many workers there will be.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: the cluster does not have that many cores.
        ShowtellError: no cluster can be reached or started.
    """
    cores = int(_connected().cluster_resources().get("CPU", 0))
    workers = asked or max(1, cores // threads)
    if workers * threads > cores:
        raise UsageError(
            f"{workers} x {threads} threads need {workers * threads} cores, but the cluster has {cores}.",
            "Lower --workers or --threads.",
        )
    return workers


def captioned_parts(
    models: ModelFiles, work: Work, parts: Mapping[int, tuple[int, int]], workers: int
) -> Iterator[tuple[int, int]]:
    """Caption parts, in any order.

    Args:
        models: the model, or the models of an ensemble.
        work: how to caption.
        parts: by number, where their lines are in the list of parts.
        workers: how many caption at a time.

    Yields:
        For each part that is done, how many of its images were captioned, and how many could not be.

    Raises:
        ShowtellError: a worker could not write, could not load the model, or died too often.
    """
    ray = _connected()
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    with ray.data.DataContext.current(context):
        numbers = [{"number": number, "first": first, "end": end} for number, (first, end) in parts.items()]
        captioned = ray.data.from_items(numbers, override_num_blocks=len(numbers)).map_batches(
            Worker,
            fn_constructor_args=(ray.put(models), work),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(parts)), max_tasks_in_flight_per_actor=1),
            num_cpus=work.threads,
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
        )
        try:
            for row in captioned.iter_rows():
                if row["stopped"]:
                    raise _stopped(row["stopped"])
                yield int(row["done"]), int(row["failed"])
        except ray.exceptions.RayError as error:
            raise _stopped(_last_line(error)) from error


class Worker:
    """An actor: holds a model, and captions the parts that it is given.

    Args:
        models: a reference to `ModelFiles`.
        work: how to caption.
    """

    def __init__(self, models: Any, work: Work) -> None:
        import ray

        with suppress(OSError):  # this machine has no such folder, and then no such paths
            os.chdir(work.folder)
        files: ModelFiles = ray.get(models)
        with tempfile.TemporaryDirectory(prefix="showtell-") as folder:
            captioner = load(_unpacked(files, Path(folder)), threads=work.threads, engine=work.engine)
        self.caption = PartCaptioner(captioner, work.options, Results(work.where), work.made_with, work.batch_size)

    def __call__(self, batch: Mapping[str, Sequence[int]]) -> dict[str, list[int | str]]:
        """Caption the one part of the batch; an error of the part as a whole is reported, and not tried again."""
        number, first, end = (int(batch[name][0]) for name in ("number", "first", "end"))
        try:
            done, failed = self.caption(number, self.caption.results.part(first, end))
        except Exception as error:  # a full disk, a store that refuses
            return {"done": [0], "failed": [0], "stopped": [f"{type(error).__name__}: {_last_line(error)}"]}
        return {"done": [done], "failed": [failed], "stopped": [""]}


def model_files(folders: Sequence[Path]) -> ModelFiles:
    """The files of models on this machine's disk, without others, such as pickles of the same weights."""
    return [
        {
            file.name: file.read_bytes()
            for file in sorted(folder.iterdir())
            if file.is_file() and any(fnmatch(file.name, pattern) for pattern in READ)
        }
        for folder in folders
    ]


def _unpacked(models: ModelFiles, folder: Path) -> list[Path]:
    folders = [folder / str(number) for number in range(len(models))]
    for model, files in zip(folders, models, strict=True):
        model.mkdir()
        for name, content in files.items():
            (model / name).write_bytes(content)
    return folders


def _connected() -> Any:
    """Ray, connected to a cluster."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with needs("bulk", "--engine ray"):
        import ray
        import ray.data
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)  # its log files have the rest
    if not ray.is_initialized():
        try:
            try:
                ray.init("auto", **QUIET)
            except ConnectionError:
                if "RAY_ADDRESS" in os.environ:
                    raise
                ray.init("local", include_dashboard=False, object_store_memory=LOCAL_STORE, **QUIET)
        except Exception as error:  # of many classes, Exception itself among them
            raise ShowtellError(
                f"No cluster can be reached or started: {_last_line(error)}.", "Try 'ray status', and see RAY_ADDRESS."
            ) from error
    return ray


def _stopped(reason: str) -> ShowtellError:
    return ShowtellError(f"A worker failed: {reason}.", "Fix that. The same command with --resume continues.")


def _last_line(error: BaseException) -> str:
    """The last line of an error's text: Ray's begin with a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
