"""A checkpoint: one safetensors file that holds a run at one step, whole or not at all.

Tensors are weights, optimiser, weight average and random state; what is not a tensor is JSON in the file's header. It
is written beside its place, flushed to the disk and renamed, so a run that is killed finds the last whole one.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from showtell.errors import DataError
from showtell.training.state import TrainerState

NAME = "checkpoint.safetensors"


def exists(folder: Path) -> bool:
    return (folder / NAME).exists()


def save(
    folder: Path,
    state: TrainerState,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: nn.Module | None,
) -> None:
    """Write the run's state to `folder`, in place of the one before."""
    with_encoder = any(stage["encoder_stages"] for stage in state.recipe["stages"])
    tensors = {f"model/{name}": value for name, value in _learned(model, with_encoder).items()}
    if average is not None:
        tensors |= {f"average/{name}": value for name, value in _learned(average, with_encoder).items()}
    for i, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{name}": torch.as_tensor(value) for name, value in slots.items()}
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"{NAME}.new"
    text = TypeAdapter(TrainerState).dump_json(state).decode()
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, new, {"progress": text})
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.replace(folder / NAME)


def read_state(folder: Path) -> TrainerState | None:
    """How far the run in `folder` has come; None when it has no checkpoint yet.

    Raises:
        DataError: the file is damaged.
    """
    if not exists(folder):
        return None
    try:
        with safe_open(folder / NAME, "pt") as file:
            return TypeAdapter(TrainerState).validate_json(file.metadata()["progress"])
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise DataError(
            f"The checkpoint {folder / NAME} can't be read.", "Start the run again in another folder."
        ) from error


def restore_tensors(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None
) -> None:
    """Put a checkpoint's tensors back: weights, optimiser, average and the state of the random generators."""
    slots: dict[int, dict[str, Tensor]] = {}
    weights: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "random": {}}
    with safe_open(folder / NAME, "pt") as file:
        for key in file.keys():  # noqa: SIM118 - it is no dict
            part, name = key.split("/", 1)
            if part == "optimizer":
                i, slot = name.split("/")
                slots.setdefault(int(i), {})[slot] = file.get_tensor(key)
            else:
                weights[part][name] = file.get_tensor(key)
    model.load_state_dict(weights["model"], strict=False)
    if average is not None:
        average.load_state_dict(weights["average"], strict=False)
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(weights["random"]["cpu"])
    if "cuda" in weights["random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(weights["random"]["cuda"])


def keep_weights(folder: Path, epoch: int, model: nn.Module, epochs: Sequence[int]) -> None:
    """Keep a model's weights as those of `epoch` if it is one of `epochs`; of others, nothing is kept."""
    for path in folder.glob("epoch_*"):
        if path not in [_weights_of(folder, each) for each in epochs]:
            path.unlink()
    if epoch in epochs:
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / "epoch_weights.new"
        save_file({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, new)
        new.replace(_weights_of(folder, epoch))


def mean_weights(folder: Path, epochs: Sequence[int]) -> dict[str, Tensor]:
    """The mean of the weights that were kept of these epochs; of what is counted (integers), the last."""
    mean: dict[str, Tensor] = {}
    for number, epoch in enumerate(epochs, start=1):
        for name, weight in load_file(_weights_of(folder, epoch)).items():
            mean[name] = mean[name].lerp(weight, 1 / number) if number > 1 and weight.is_floating_point() else weight
    return mean


def _weights_of(folder: Path, epoch: int) -> Path:
    return folder / f"epoch_{epoch}.safetensors"


def _learned(model: nn.Module, with_encoder: bool) -> dict[str, Tensor]:
    """The state, without the encoder's where no stage trains it: that comes from its own weights again."""
    return {name: value for name, value in model.state_dict().items() if with_encoder or "encoder." not in name}
