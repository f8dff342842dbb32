"""One optimiser step: forward and backward pass in parts, sum of all processes' gradients, weight update."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from showtell.errors import DataError
from showtell.training import processes
from showtell.training.inputs.batches import Batch
from showtell.training.stages.stage import Loss, Objective, Stage


class Seen(NamedTuple):
    """What was computed in a step, or in a part of one."""

    captions: int
    words: int
    positions: int
    terms: Mapping[str, float]
    """The norm of the gradient, before the step."""
    measures: Mapping[str, float]

    @classmethod
    def of(cls, loss: Loss) -> "Seen":
        terms = {name: term.item() for name, term in loss.terms.items()}
        return cls(loss.batch.captions, loss.batch.words, loss.batch.real.numel(), terms, dict(loss.measures))

    @classmethod
    def together(cls, parts: Sequence["Seen"]) -> "Seen":
        """What was computed in all parts of a step (at least one); each part has the measures of the whole step."""
        terms = {name: sum(part.terms[name] for part in parts) for name in parts[0].terms}
        captions, words, positions = (sum(numbers) for numbers in zip(*(part[:3] for part in parts), strict=True))
        return cls(captions, words, positions, terms, parts[0].measures)


def step(
    accelerator: Accelerator,
    stage: Stage,
    objective: Objective,
    model: Any,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    batch: Batch,
    done: float,
) -> Seen:
    """One optimiser step, `done` (0..1) into the stage, of this process's share of a batch."""
    for group in optimizer.param_groups:
        group["lr"] = group["highest"] * stage.learning_rate_factor(done)
    optimizer.zero_grad()
    losses, parts = objective(model, inputs, batch, done), list[Seen]()
    with processes.gradients_added(model, batch.share):
        while True:
            with accelerator.autocast():  # the forward pass of a part, but not its backward pass
                loss = next(losses, None)
            if loss is None:
                break
            parts.append(Seen.of(loss))
            accelerator.backward(torch.stack(list(loss.terms.values())).sum())
        seen = Seen.together([part for of_process in processes.everyones(parts) for part in of_process])
        if not math.isfinite(sum(seen.terms.values())):
            problem = f"The loss is no longer a number: {dict(seen.terms)}."
            processes.fail(DataError(problem, "Use a lower learning_rate or clip."))
    accelerator.clip_grad_norm_(model.parameters(), stage.clip)
    optimizer.step()
    return seen
