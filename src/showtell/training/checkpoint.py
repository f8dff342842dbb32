"""A checkpoint: one safetensors file with the state of a run at one step, complete or not there at all.

Tensors are weights, optimiser, weight average and random state; everything else is JSON in the file's header. It is
written beside its place, flushed to the disk and renamed, so a killed run finds the last complete one.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor, nn

from showtell.errors import DataError
from showtell.files import new_file
from showtell.training.state import TrainerState

NAME = "checkpoint.safetensors"
LONGEST_HEADER = 100_000_000  # bytes, in all safetensors files


def exists(folder: Path) -> bool:
    return (folder / NAME).exists()


def save(
    folder: Path,
    state: TrainerState,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: nn.Module | None,
) -> None:
    """Write the run's state to `folder`; it replaces the previous one."""
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
    text = TypeAdapter(TrainerState).dump_json(state).decode()
    _save_tensors(folder / NAME, tensors, {"progress": text})


def read_state(folder: Path) -> TrainerState | None:
    """The progress of the run in `folder`; None if it has no checkpoint yet.

    Raises:
        DataError: the file is damaged.
    """
    if not exists(folder):
        return None
    try:
        # By hand: safetensors opens the file twice, and the run may write its next checkpoint in between.
        with (folder / NAME).open("rb") as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), LONGEST_HEADER)))
        return TypeAdapter(TrainerState).validate_json(header["__metadata__"]["progress"])
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise _damaged(folder) from error


def restore_tensors(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None
) -> None:
    """Restore a checkpoint's tensors: weights, optimiser, average and the state of the random generators.

    Raises:
        DataError: the file is damaged.
    """
    slots: dict[int, dict[str, Tensor]] = {}
    weights: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "random": {}}
    try:
        tensors = load((folder / NAME).read_bytes())
    except (SafetensorError, OSError) as error:
        raise _damaged(folder) from error
    for key, tensor in tensors.items():
        part, name = key.split("/", 1)
        if part == "optimizer":
            i, slot = name.split("/")
            slots.setdefault(int(i), {})[slot] = tensor
        else:
            weights[part][name] = tensor
    model.load_state_dict(weights["model"], strict=False)
    if average is not None:
        average.load_state_dict(weights["average"], strict=False)
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(weights["random"]["cpu"])
    if "cuda" in weights["random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(weights["random"]["cuda"])


def keep_weights(folder: Path, epoch: int, model: nn.Module, epochs: Sequence[int]) -> None:
    """Keep a model's weights as those of `epoch` if it is in `epochs`; remove those of epochs that are not."""
    for path in folder.glob("epoch_*"):
        if path not in [_weights_of(folder, each) for each in epochs]:
            path.unlink()
    if epoch in epochs:
        folder.mkdir(parents=True, exist_ok=True)
        _save_tensors(_weights_of(folder, epoch), model.state_dict())


def mean_weights(folder: Path, epochs: Sequence[int]) -> dict[str, Tensor]:
    """The mean of the kept weights of these epochs; for counters (integers), the last value."""
    mean: dict[str, Tensor] = {}
    for number, epoch in enumerate(epochs, start=1):
        for name, weight in load_file(_weights_of(folder, epoch)).items():
            mean[name] = mean[name].lerp(weight, 1 / number) if number > 1 and weight.is_floating_point() else weight
    return mean


def _damaged(folder: Path) -> DataError:
    return DataError(f"The checkpoint {folder / NAME} can't be read.", "Start the run again in another folder.")


def _save_tensors(path: Path, tensors: Mapping[str, Tensor], said: dict[str, str] | None = None) -> None:
    with new_file(path) as aside:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, aside, said)


def _weights_of(folder: Path, epoch: int) -> Path:
    return folder / f"epoch_{epoch}.safetensors"


def _learned(model: nn.Module, with_encoder: bool) -> dict[str, Tensor]:
    """The state; without the encoder's if no stage trains it: that is loaded from its own weights again."""
    return {name: value for name, value in model.state_dict().items() if with_encoder or "encoder." not in name}
