"""The checkpoint on disk: whole for whoever reads it, whenever that is."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from showtell.errors import DataError
from showtell.training import checkpoint
from showtell.training.checkpoint import keep_weights, mean_weights, read_state
from showtell.training.state import TrainerState

REPOSITORY = Path(__file__).parents[2]


def save(folder: Path, step: int) -> None:
    """A checkpoint whose length differs from the one before."""
    model = nn.Linear(2, 100 if step % 2 else 90)
    progress = TrainerState({"stages": [{"encoder_stages": 0}]}, step=step, log=[{"minutes": 1.0}] * (step % 7))
    checkpoint.save(folder, progress, model, torch.optim.SGD(model.parameters(), 0.1), None)


def test_reading_while_the_run_saves(tmp_path: Path) -> None:
    """safetensors looks at the header, then maps the file of that name, which is another one by then: it raised
    "file size <201112> is smaller than the required mapping size <201120>"."""
    save(tmp_path, 0)
    code = (
        f"from tests.training.test_checkpoint import *\nfor step in range(1, 400): save(Path({str(tmp_path)!r}), step)"
    )
    seen = [0]
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY) as writer:
        while writer.poll() is None:
            progress = read_state(tmp_path)
            assert progress is not None
            seen.append(progress.step)
    assert writer.returncode == 0
    assert seen == sorted(seen)
    assert len(set(seen)) > 10
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.NAME]


@pytest.mark.parametrize("keep", [4, 60, -100])
def test_a_checkpoint_that_is_cut_off(tmp_path: Path, keep: int) -> None:
    save(tmp_path, 1)
    path = tmp_path / checkpoint.NAME
    path.write_bytes(path.read_bytes()[:keep])

    def resume() -> None:
        read_state(tmp_path)
        model = nn.Linear(2, 100)
        checkpoint.restore_tensors(tmp_path, model, torch.optim.SGD(model.parameters(), 0.1), None)

    with pytest.raises(DataError, match=r"checkpoint\.safetensors can't be read"):
        resume()


def test_weights_of_the_best_epochs_are_kept(tmp_path: Path) -> None:
    model = nn.Linear(1, 1, bias=False)
    for epoch in (1, 2, 3):
        nn.init.constant_(model.weight, epoch)
        keep_weights(tmp_path, epoch, model, [epoch - 1, epoch])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch_2.safetensors", "epoch_3.safetensors"]
    assert mean_weights(tmp_path, [2, 3])["weight"].item() == 2.5
