"""A feature cache that several processes build, and what is left when one of them is killed."""

import os
import signal
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import numpy as np
import pytest
import torch

from showtell.cli import main
from showtell.cli.commands.features import part_of
from showtell.data import load
from showtell.data.features.cache import FeatureCache, images_done
from showtell.errors import DataError, UsageError
from showtell.models.encoders import build_encoder
from showtell.training.inputs import feature_builders
from showtell.training.inputs.features import cached_features, examples_of_part

SPEC = "shapes:400,pixels=64"


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    """An encoder with weights in a file, so that every process has the same."""
    torch.manual_seed(0)
    made = build_encoder({"name": "efficientnet_lite0", "weights": "random", "size": 64})
    for module in made.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)  # else all images have the same features
    torch.save(made.state_dict(), tmp_path / "weights.pth")
    return {"name": "efficientnet_lite0", "weights": str(tmp_path / "weights.pth"), "size": 64}


def test_parts_hold_all_images_once() -> None:
    examples = load("shapes:10").examples
    for parts in (1, 3, 4, 10, 12):
        of_parts = [examples_of_part(examples, part, parts) for part in range(1, parts + 1)]
        assert tuple(example for each in of_parts for example in each) == examples


@pytest.mark.slow
def test_a_process_that_is_killed_costs_only_its_own_last_images(
    tmp_path: Path, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 of one of two: the other goes on, it is named, and the same command completes the cache."""
    folder = tmp_path / "cache"
    killed: list[int] = []

    def kill_the_second() -> None:
        deadline = monotonic() + 120
        marks = folder / "part-2-of-2" / "index.json"
        while not marks.exists() and monotonic() < deadline:
            sleep(0.005)
        children = feature_builders.multiprocessing.active_children()
        pid = next(child.pid for child in children if child.name == "builder 2")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    thread = Thread(target=kill_the_second)
    thread.start()
    with pytest.raises(DataError, match=r"these failed: 2 \(exit code -9\)\. Run the same command: it continues"):
        feature_builders.fill_in_processes(SPEC, settings, folder, 2, 4)
    thread.join()
    assert len(killed) == 1
    assert 200 <= images_done(folder) < 400
    command = ["features", "--data", SPEC, "--out", str(folder), "--processes", "2", "--batch-size", "4"]
    assert (
        main([*command, "--encoder", "efficientnet_lite0", "--size", "64", "--weights", str(settings["weights"])]) == 0
    )
    assert "400 images, 200 of them done before" in capsys.readouterr().err
    examples = load(SPEC).examples
    alone = cached_features("x", examples, build_encoder(settings), tmp_path / "alone")
    cache, ids = FeatureCache.open(folder), [example.image_id for example in examples]
    assert np.allclose(cache.rows(ids), alone.rows(ids), atol=2e-3, rtol=2e-3)


def test_parts_on_several_machines(
    tmp_path: Path, settings: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["features", "--data", "shapes:10,pixels=64", "--out", str(tmp_path / "cache")]
    command += ["--encoder", "efficientnet_lite0", "--size", "64", "--weights", str(settings["weights"])]
    for part, images in (("2/2", 5), ("1/2", 5)):
        assert main([*command, "--part", part]) == 0
        assert f"{images} images; 2 x 2 cells" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["part-1-of-2", "part-2-of-2"]
    assert main(command) == 0
    assert "10 images, 10 of them done before" in capsys.readouterr().err


def test_what_does_not_go_together_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("0/2", "3/2", "2", "a/b", "1/"):
        with pytest.raises(UsageError, match=f"--part {wrong} is not understood. Write --part 1/4"):
            part_of(wrong)
    command = ["features", "--data", "shapes:10", "--out", str(tmp_path / "cache"), "--processes", "2"]
    assert main([*command, "--weights", "random"]) == 2
    assert main([*command, "--part", "1/2"]) == 2
    errors = capsys.readouterr().err
    assert "--processes does not go with --weights random." in errors
    assert "--processes does not go with --part." in errors
