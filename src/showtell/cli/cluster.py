"""``showtell caption --engine ray``: captions by a cluster, as a folder of Parquet files."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from showtell.bundle import default_model, load_bundle
from showtell.captioner import EngineName, load
from showtell.cli.progress import progress_bar, tell
from showtell.errors import Interrupted, UsageError

if TYPE_CHECKING:  # `caption` takes its options from here, and must not wait for what only a cluster needs
    from showtell.bulk.cluster import ModelFiles, Work

CLUSTER = "On a cluster"

EngineOrCluster = Annotated[
    Literal[EngineName, "ray", "local"],  # "local" is an older name for "auto"
    typer.Option(
        "--engine",
        metavar="ENGINE",
        help="What runs an exported model: onnx, openvino, openvino-float32, torch; auto: openvino where it is "
        "installed and the processor has bfloat16; or ray: a cluster.",
    ),
]
WorkerEngine = Annotated[
    EngineName,
    typer.Option(
        "--worker-engine",
        metavar="ENGINE",
        help="As --engine; onnx gives the same words on every machine.",
        rich_help_panel=CLUSTER,
    ),
]
Out = Annotated[
    str | None,
    typer.Option("--out", metavar="DIR", help="Folder or URL for the Parquet files.", rich_help_panel=CLUSTER),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        metavar="N",
        help="How many copies of the model caption at the same time; by default as many as the cores allow.",
        rich_help_panel=CLUSTER,
    ),
]
Threads = Annotated[
    int, typer.Option("--threads", min=1, metavar="N", help="Cores for each worker.", rich_help_panel=CLUSTER)
]
PartSize = Annotated[
    int,
    typer.Option(
        "--part-size", min=1, metavar="N", help="Images in one Parquet file, approximately.", rich_help_panel=CLUSTER
    ),
]


def caption_on_cluster(
    names: Sequence[str],
    column: str | None,
    models: Sequence[str] | None,
    search: Mapping[str, Any],
    *,
    out: str | None,
    resume: bool,
    workers: int | None,
    threads: int,
    part_size: int,
    batch_size: int,
    engine: EngineName,
) -> None:
    """Caption everything that `names` stand for into the folder `out`."""
    from showtell.bulk.cluster import Work, model_files, workers_of_cluster
    from showtell.bulk.parts import find_parts
    from showtell.bulk.results import Results
    from showtell.images.sources import Finder

    if out is None:
        raise UsageError("--engine ray writes a folder.", "Add --out DIR.")
    results = Results(out)
    begun = results.manifest()
    if begun is not None and not resume:
        raise UsageError(f"{out} already holds captions.", "Add --resume to continue, or choose another --out.")
    workers = workers_of_cluster(workers, threads)
    captioner = load(models, threads=1, engine=engine)
    options = captioner.options(**search)
    used: Sequence[str | Path] = models or [default_model()]
    files = model_files([load_bundle(model).path for model in used])
    made_with = {
        "model": f"{captioner.config.name} {_fingerprint(files)}",
        "engine": engine,
        **asdict(options),
        "inputs": _shown(names),
        "column": column,
    }
    finder = Finder()
    results.make_folders()
    if begun is None:
        folder = os.getcwd()  # noqa: PTH109
        results.begin(find_parts(names, column, part_size, finder), {**made_with, "folder": folder})
    else:
        results.check(made_with)
        folder = begun["folder"]
    tell(*finder.notes())
    lines = results.lines()
    over = results.done()
    left = {number: place for number, place in enumerate(lines) if number not in over}
    where = out if "://" in out else str(Path(out).resolve())
    work = Work(where, folder, options, made_with, batch_size, threads, engine)
    done, failed = _captioned(files, work, left, workers, all_parts=len(lines))
    results.tidy()
    tell(f"{done:,} captioned, {failed:,} failed.")
    if failed:
        tell(f"the column 'error' in {out} says why.")
    if failed or finder.problems:
        raise typer.Exit(1)


def _captioned(
    files: "ModelFiles", work: "Work", left: Mapping[int, tuple[int, int]], workers: int, *, all_parts: int
) -> tuple[int, int]:
    """Caption the parts that are left; return how many images were captioned, and how many could not be."""
    from showtell.bulk.cluster import captioned_parts

    done = failed = 0
    before = over = all_parts - len(left)
    if not left:
        return 0, 0
    try:
        with progress_bar("parts", all_parts, done=before) as advance:
            for captioned, bad in captioned_parts(files, work, left, workers):
                done += captioned
                failed += bad
                over += 1
                advance()
    except KeyboardInterrupt:
        raise Interrupted(
            f"Stopped by Ctrl-C after {over:,} of {all_parts:,} parts.", "The same command with --resume continues."
        ) from None
    return done, failed


def _shown(names: Sequence[str]) -> str:
    """The first inputs, and a hash of them all."""
    hashed = blake2b("\0".join(names).encode(errors="surrogateescape"), digest_size=4).hexdigest()
    return f"{' '.join(names[:3])}{' ...' if len(names) > 3 else ''} ({hashed})"


def _fingerprint(models: "ModelFiles") -> str:
    """Eight digits that differ between models with different words, weights or preprocessing."""
    hashed = blake2b(digest_size=4)
    for model in models:
        for name, content in sorted(model.items()):
            hashed.update(name.encode() + b"\0" + content)
    return hashed.hexdigest()
