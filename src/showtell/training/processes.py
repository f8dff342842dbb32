"""The processes of one training run, started by `torchrun` or `accelerate launch`; otherwise there is one.

Every process runs the same program over the same order of batches and takes every `count()`-th image of each. Before an
optimiser step they add up their gradients. This is data-parallel training without
`torch.nn.parallel.DistributedDataParallel`, which expects one `forward` and one `backward` per process: a self-critical
step calls the model in several ways, a step may be computed in parts, and a last batch may have fewer images than there
are processes. All of this only needs a sum of gradients, which is one flat all-reduce. Sending does not overlap with
the backward pass, which costs milliseconds for models of this size.
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
"""How long a process waits for the slowest one, which may be encoding a whole data set."""


class ProcessLost(ShowtellError):
    """Another process of the run is gone."""


def join() -> None:
    """Connect to the other processes, if a launcher has started any.

    Raises:
        UsageError: there are more processes than GPUs.
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
    """The Accelerator for the device and a recipe's precision; `auto` is bf16 only if all processes have it.

    Raises:
        UsageError: the launcher's options contradict the recipe or are not supported.
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
    AcceleratorState._reset_state()  # an earlier run in this process may have had another precision
    return Accelerator(mixed_precision=mixed, cpu=count() > 1 and _on_cpu())


def leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
        _group.cache_clear()


def count() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, 0 .. count() - 1."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main() -> bool:
    """Whether this process writes the run's folder and reports events."""
    return rank() == 0


def own_slice() -> slice:
    """Which of a sequence of images are this process's; if any process has one, the first has."""
    return slice(rank(), None, count())


def everyones(value: T) -> list[T]:
    """The values of all processes, in the order of their ranks.

    Raises:
        ProcessLost: another process is gone.
    """
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    with _lost_if_it_fails():
        distributed.all_gather_object(values, value, group=_group())
    return values


def wait() -> None:
    """Wait until all processes are here: they then see what the main process has written before."""
    everyones(None)


def put_together(slices: Sequence[Sequence[T]]) -> list[T]:
    """The sequence that `own_slice` divided: one value from each process in turn."""
    return [own[place] for place in range(max(map(len, slices))) for own in slices if place < len(own)]


def refuse_another_disk(path: Path, option: str) -> None:
    """Raise UsageError if a file of the main process is not visible: the folder of `option` is not shared."""
    if not path.exists():
        raise UsageError(
            f"Process {rank()} of {count()} can't see {path}, which the main process has written.",
            f"Give {option} a folder on a disk that all machines share.",
        )


@contextmanager
def agreed() -> Iterator[None]:
    """Wrap what all processes do, each for itself; if one fails, all end, and the error is reported once."""
    problem: ShowtellError | None = None
    try:
        yield
    except ShowtellError as error:
        problem = error
    if found := next((each for each in everyones(problem) if each is not None), None):
        fail(found)


def fail(error: ShowtellError) -> NoReturn:
    """End all processes with an error that all of them know; the main one reports it."""
    if is_main():
        raise error
    raise SystemExit(error.exit_code)


def same_weights(model: nn.Module) -> None:
    """Give all processes the main one's weights: different processors round differently."""
    if count() > 1:
        with _lost_if_it_fails():
            for tensor in model.state_dict().values():
                distributed.broadcast(tensor, 0)


@contextmanager
def gradients_added(model: nn.Module, weight: float) -> Iterator[None]:
    """Inside, each process computes the gradients of its images of a step; afterwards all have their sum.

    The model's buffers (a running mean, a baseline) become the weighted mean of those of all processes.

    Args:
        model: the same in all processes.
        weight: the weight of this process's buffers: its share of the step's words, 0..1.
    """
    if count() == 1:
        yield
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    before = [buffer.clone() for buffer in buffers]
    yield
    # A parameter that no process used has no gradient, as with one process, and AdamW does not change it.
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
    """From here on, let this process draw different random numbers from the others.

    The main process continues with its own, which are in the checkpoint. Those of the others follow from their rank and
    the place in the run, whether it was resumed there or not.

    Args:
        place: the run's seed, and how far the run is.
    """
    if not is_main():
        seeds = np.random.SeedSequence(place, spawn_key=(rank(),)).generate_state(1, np.uint64)
        torch.manual_seed(int(seeds[0]))


def _on_cpu() -> bool:
    """Whether the run uses no GPU: there is none, or the launcher says so."""
    return not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("true", "1")


@cache
def _group() -> distributed.ProcessGroup | None:
    """The group for values other than tensors: gloo, which notices at once when a process is gone."""
    group: distributed.ProcessGroup | None = distributed.new_group(backend="gloo", timeout=PATIENCE)
    return group


@contextmanager
def _lost_if_it_fails() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if rank() > 1:
            raise SystemExit(1) from error  # two that report it are enough: one of them may be the one that is gone
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher sends it to all others: report the error first
        raise ProcessLost(
            f"Process {rank()} of {count()} stopped because another one has failed or was killed.",
            "The same command with --resume continues from the last checkpoint.",
        ) from error
