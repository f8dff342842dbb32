"""The processes of one training run, as `torchrun` or `accelerate launch` started them; alone, there is one.

Every process runs the same program over the same order of batches and takes every `count()`-th image of each. Before an
optimiser step they add up their gradients. That is data-parallel training without the wrapper of that name,
`torch.nn.parallel.DistributedDataParallel`, which expects one `forward` and one `backward` of each process: but a
self-critical step calls the model in several ways, a step may come in parts, and a last batch may hold fewer images
than there are processes. All that comes to a sum of gradients, and one flat all-reduce says so. It gives up the overlap
of sending with the backward pass: milliseconds for models of this size.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np
import torch
from torch import distributed, nn

from showtell.errors import ShowtellError, UsageError
from showtell.training.precision import has_bfloat16

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")
PATIENCE = timedelta(hours=2)
"""How long a process waits for the slowest one, which may be encoding the images of a whole data set."""


class ProcessLost(ShowtellError):
    """Another process of the run is no longer there."""


def join() -> None:
    """Meet the other processes, if a launcher says that there are any.

    Raises:
        UsageError: there are more of them than GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        return
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if here > gpus and not _on_cpu():
        raise UsageError(
            f"There are {here} processes for {gpus} GPUs.",
            "Start one process per GPU, or set ACCELERATE_USE_CPU=true.",
        )
    from accelerate import PartialState

    PartialState(cpu=_on_cpu())


def accelerator(precision: str) -> "Accelerator":
    """What knows the device and computes in a recipe's precision; `auto` is bf16 only if all processes have it.

    Raises:
        UsageError: the launcher was told something that contradicts, or that does not go together with it.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    mixed = {"float32": "no"}.get(precision, precision)
    if precision == "auto":
        mixed = "bf16" if all(everyones(has_bfloat16(_on_cpu()))) else "no"
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched not in ("no", mixed):
        raise UsageError(
            f"The launcher says --mixed_precision {launched}, but the recipe says precision: {precision}.",
            f"Set it in the recipe only: --set precision={launched}",
        )
    for kind in ("DEEPSPEED", "FSDP", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{kind}", "false").lower() == "true":
            raise UsageError(
                f"The launcher says {kind}, which splits a model over processes.",
                "showtell's models are small: launch without it, and each process holds the whole model.",
            )
    if mixed == "fp16" and _on_cpu():
        raise UsageError("precision: fp16 is for GPUs.", "Leave it out: auto chooses the fastest one here.")
    AcceleratorState._reset_state()  # a run before this one in the process may have had another precision
    return Accelerator(mixed_precision=mixed, cpu=count() > 1 and _on_cpu())


def leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
        _group.cache_clear()


def count() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this one, 0 .. count() - 1."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main() -> bool:
    """Whether this one writes the run's folder and tells whoever watches."""
    return rank() == 0


def own_slice() -> slice:
    """Which of a sequence of images are this process's; the first process has one wherever any has."""
    return slice(rank(), None, count())


def everyones(value: T) -> list[T]:
    """The values that all processes give, in the order of their ranks.

    Raises:
        ProcessLost: one of them is no longer there.
    """
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    with _lost_if_it_fails():
        distributed.all_gather_object(values, value, group=_group())
    return values


def wait() -> None:
    """Until all processes are here: what the main one has written before is there then."""
    everyones(None)


def put_together(slices: Sequence[Sequence[T]]) -> list[T]:
    """The sequence that `own_slice` divided: one value of each process in turn."""
    return [own[place] for place in range(max(map(len, slices))) for own in slices if place < len(own)]


def refuse_another_disk(path: Path, option: str) -> None:
    """Raise UsageError where a file of the main process can't be seen: `option` names a folder that is not shared."""
    if not path.exists():
        raise UsageError(
            f"Process {rank()} of {count()} can't see {path}, which the main process has written.",
            f"Give {option} a folder on a disk that all machines share.",
        )


@contextmanager
def agreed() -> Iterator[None]:
    """What all processes do, each for itself; where one can't, all end, and the error is told once."""
    problem: ShowtellError | None = None
    try:
        yield
    except ShowtellError as error:
        problem = error
    if found := next((each for each in everyones(problem) if each is not None), None):
        fail(found)


def fail(error: ShowtellError) -> NoReturn:
    """End all processes with an error that all of them know; the main one tells it."""
    if is_main():
        raise error
    raise SystemExit(error.exit_code)


def same_weights(model: nn.Module) -> None:
    """Give all processes the main one's weights: processors of different makers round differently."""
    if count() > 1:
        with _lost_if_it_fails():
            for tensor in model.state_dict().values():
                distributed.broadcast(tensor, 0)


@contextmanager
def gradients_added(model: nn.Module, weight: float) -> Iterator[None]:
    """Within it each process computes the gradients of its images of a step; afterwards all have their sum.

    The model's buffers (a running mean, a baseline) change too: by the mean of what the processes make of them.

    Args:
        model: the same in all processes.
        weight: of what this process makes of the buffers: its part of the step's words, 0..1.
    """
    if count() == 1:
        yield
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    before = [buffer.clone() for buffer in buffers]
    yield
    # A parameter that no process used has no gradient, as with one process: AdamW leaves it alone.
    used = torch.tensor([float(parameter.grad is not None) for parameter in parameters], device=parameters[0].device)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    changes = [weight * (buffer - old) for buffer, old in zip(buffers, before, strict=True)]
    tensors = [used, *gradients, *changes]
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    with _lost_if_it_fails():
        distributed.all_reduce(flat)
    used, *sums = (
        part.view_as(tensor) for part, tensor in zip(flat.split([t.numel() for t in tensors]), tensors, strict=True)
    )
    for parameter, gradient, is_used in zip(parameters, sums, used.tolist(), strict=False):
        parameter.grad = gradient if is_used else None
    for buffer, old, change in zip(buffers, before, sums[len(parameters) :], strict=True):
        buffer.copy_(old + change)


def own_random_numbers(*place: int) -> None:
    """Let this process draw other random numbers than the others from here on.

    The main one goes on with its own, which are in the checkpoint; those of another follow from its rank and the place
    in the run, whether it was resumed there or not.

    Args:
        place: the run's seed, and where the run is.
    """
    if not is_main():
        seeds = np.random.SeedSequence(place, spawn_key=(rank(),)).generate_state(1, np.uint64)
        torch.manual_seed(int(seeds[0]))


def _on_cpu() -> bool:
    """Whether the run is to use no GPU: there is none, or the launcher says so."""
    return not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("true", "1")


@cache
def _group() -> distributed.ProcessGroup | None:
    """Where values that are no tensors are exchanged: over gloo, which notices at once when a process is gone."""
    group: distributed.ProcessGroup | None = distributed.new_group(backend="gloo", timeout=PATIENCE)
    return group


@contextmanager
def _lost_if_it_fails() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if rank() > 1:
            raise SystemExit(1) from error  # two that tell it are enough: one of them may be the one that is gone
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher's, to all others: first the sentence
        raise ProcessLost(
            f"Process {rank()} of {count()} stopped because another one has failed or was killed.",
            "The same command with --resume continues from the last checkpoint.",
        ) from error
