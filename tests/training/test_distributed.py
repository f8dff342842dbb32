"""Many processes train as one does: the same losses, the same captions, one run folder; and they end together."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from showtell.data import load
from showtell.training import checkpoint
from showtell.training.checkpoint import read_state
from showtell.training.events import Epoch, Event
from showtell.training.recipe import Recipe, load_recipe
from showtell.training.trainer import train

RECIPE = """
name: tiny
precision: float32  # in bfloat16, sums in another order change more than a test could tell from a fault
encoder: {name: efficientnet_lite0, weights: random, size: 64, stages: 2}
tokenizer: {min_count: 1}
decoder: {name: show_attend_and_tell, embedding_width: 24, hidden_width: 24, attention_width: 16, dropout: 0}
stages:
  - {kind: cross_entropy, epochs: 2, batch_images: 12, average: 0.5, best_epochs: 2, doubly_stochastic: 0.5}
  - {kind: self_critical, epochs: 1, batch_images: 12, samples: 2, bleu4: 0.5, max_words: 12}
  - {kind: cross_entropy, epochs: 1, batch_images: 12, encoder_stages: 1, augmentation: {flip: 0.5, crop: 0.6}}
search: {beam: 2, max_words: 12}
checkpoint_seconds: 0
"""
SPEC = "shapes:61,pixels=64"
"""49 train images: the last batch has one, which two processes can't share."""

Log = list[dict[str, object]]


class Stopped(Exception):
    """What ends a run from inside, as Ctrl-C does between two steps."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the recipe, and a feature cache for all that train on it with one process."""
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Recipe:
    return load_recipe(folder / "recipe.yaml")


@pytest.fixture(scope="module")
def alone(folder: Path, recipe: Recipe) -> Log:
    """The log of one process that trains on whole batches."""
    train(recipe, load(SPEC), folder / "alone", cache=folder / "features")
    return log_of(folder / "alone")


def log_of(run: Path) -> Log:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def check_same(log: Log, expected: Log) -> None:
    """All that the log says is the same, but for what floating-point sums in another order change, and times."""
    assert len(log) == len(expected)
    for line, expected_line in zip(log, expected, strict=True):
        assert line.keys() == expected_line.keys()
        for key in line.keys() - {"captions_per_second", "minutes", "padding"}:
            assert line[key] == pytest.approx(expected_line[key], rel=1e-4, abs=1e-5), (line["epoch"], key)


def stop_after(steps: int) -> Callable[[Event], None]:
    """Ends a run after so many steps."""
    seen = 0

    def tell(event: Event) -> None:
        nonlocal seen
        if isinstance(event, Epoch) and event.line is None and (seen := seen + 1) > steps:
            raise Stopped

    return tell


@contextmanager
def launched(launcher: tuple[str, ...], folder: Path, run: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Two processes, through the command line; a test that fails leaves none behind."""
    command = [sys.executable, "-m", *launcher, "-m", "showtell", "train", str(folder / "recipe.yaml")]
    command += ["--data", SPEC, "--out", str(run), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node=2")
ACCELERATE = (  # --multi_gpu also starts processes where there is no GPU, and --cpu would start one
    "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1", "--main_process_port=0",
    "--mixed_precision=no", "--dynamo_backend=no",
)  # fmt: skip


def test_parts_of_a_batch_are_the_batch(folder: Path, recipe: Recipe, alone: Log) -> None:
    """Every kind of stage with accumulate: 2, the same to float tolerance."""
    stages = tuple(stage.model_copy(update={"accumulate": 2}) for stage in recipe.stages)
    parts = recipe.model_copy(update={"stages": stages})
    train(parts, load(SPEC), folder / "parts", cache=folder / "features")
    check_same(log_of(folder / "parts"), alone)


def test_a_run_from_before_a_key_existed_goes_on(
    folder: Path, recipe: Recipe, alone: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = read_state(folder / "alone" / "checkpoint")
    assert progress is not None
    for stage in progress.recipe["stages"]:
        del stage["accumulate"]
    monkeypatch.setattr(checkpoint, "read_state", lambda _: progress)
    train(recipe, load(SPEC), folder / "alone", cache=folder / "features", resume=True)
    assert log_of(folder / "alone") == alone


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_process_begins_and_two_go_on(folder: Path, recipe: Recipe, alone: Log) -> None:
    """From the second step on, through every kind of stage; validation captions are those of one process."""
    run = folder / "one_two"
    with pytest.raises(Stopped):
        train(recipe, load(SPEC), run, cache=folder / "features", tell=stop_after(1))
    with launched(TORCHRUN, folder, run, "--features", str(folder / "features"), "--resume") as process:
        output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    check_same(log_of(run), alone)
    assert output.count("Model: ") == output.count("Report: ") == output.count("captions/s") == 1
    samples, expected = (
        [json.loads(line) for line in (each / "samples.jsonl").read_text().splitlines()]
        for each in (run, folder / "alone")
    )
    assert [(line["image_id"], line["caption"]) for line in samples] == [
        (line["image_id"], line["caption"]) for line in expected
    ]
    assert len(list((run / "tensorboard").iterdir())) <= 4, "more than one process wrote curves"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_are_stopped_go_on_one_is_killed_and_one_process_goes_on(folder: Path, recipe: Recipe, alone: Log) -> None:
    """With a feature cache that two processes have built; each time a single sentence says what to do."""
    run, features = folder / "two_one", folder / "features_of_two"
    with launched(ACCELERATE, folder, run, "--features", str(features)) as process:
        wait_for(run, 1, process)
        process.terminate()
        _, errors = process.communicate(timeout=120)
    assert said(errors)[-1:] == ["showtell: Stopped in epoch 1; the run is saved. Add --resume to continue."]
    with launched(TORCHRUN, folder, run, "--features", str(features), "--resume") as process:
        wait_for(run, 2, process)
        os.kill(pid_of_rank(1, process.pid), signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert said(errors)[-1:] == [
        "showtell: Process 0 of 2 stopped because another one has failed or was killed. "
        "The same command with --resume continues from the last checkpoint."
    ]
    train(recipe, load(SPEC), run, cache=features, resume=True)
    check_same(log_of(run), alone)


def wait_for(run: Path, stage: int, process: subprocess.Popen[str]) -> None:
    """Until a step of the stage is saved."""
    deadline = time.monotonic() + 240
    while (progress := read_state(run / "checkpoint")) is None or progress.stage < stage:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def said(errors: str) -> list[str]:
    """What showtell, and not the launcher, wrote to stderr."""
    return [line for line in errors.splitlines() if line.startswith("showtell: ")]


def pid_of_rank(rank: int, launcher: int) -> int:
    """The process id of one of the launcher's processes."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and f"RANK={rank}" in (process / "environ").read_text().split("\0"):
                return int(process.name)
        except OSError:
            continue
    raise AssertionError(f"the launcher has no process of rank {rank}")
