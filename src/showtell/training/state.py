"""The progress of a training run and its statistics: everything in a checkpoint that is not a tensor."""

from dataclasses import dataclass, field

from showtell.metrics.table import rank_of
from showtell.training.recipe import Json
from showtell.training.step import Seen


@dataclass
class TrainerState:
    recipe: Json
    made_of: dict[str, str] = field(default_factory=dict)
    """The version of showtell, and digests of the words and the data; empty in older checkpoints."""
    stage: int = 0
    epoch: int = 0
    """Complete epochs of the stage."""
    batch: int = 0
    """Complete batches of the epoch."""
    step: int = 0
    """Complete optimiser steps of the stage."""
    log: list[Json] = field(default_factory=list)
    """The lines of log.jsonl."""
    epochs_since_best: int = 0
    averaged: bool = False
    """The stage has ended with the mean of its best epochs."""

    captions: int = 0
    """Of this epoch so far, like the six below."""
    words: int = 0
    positions: int = 0
    """Computed positions; those without a word are padding."""
    loss: float = 0.0
    """Summed over words, in nats."""
    measures: dict[str, float] = field(default_factory=dict)
    """The stage's own measures, summed over captions."""
    seconds: float = 0.0

    def count(self, seen: Seen, seconds: float) -> None:
        self.batch += 1
        self.step += 1
        self.captions += seen.captions
        self.words += seen.words
        self.positions += seen.positions
        self.loss += seen.terms["words"] * seen.words
        for name, value in seen.measures.items():
            self.measures[name] = self.measures.get(name, 0.0) + value * seen.captions
        self.seconds += seconds

    def end_epoch(self) -> None:
        self.epoch += 1
        self.batch = self.captions = self.words = self.positions = 0
        self.loss = self.seconds = 0.0
        self.measures = {}

    def add_line(self, line: Json) -> bool:
        """Log a validation; returns whether its scores are the best so far."""
        best = all(rank_of(line["scores"]) > rank_of(other["scores"]) for other in self.log)
        self.log.append(line)
        self.epochs_since_best = 0 if best else self.epochs_since_best + 1
        return best

    def end_stage(self) -> None:
        self.stage += 1
        self.epoch = self.step = self.epochs_since_best = 0
        self.averaged = False

    @property
    def minutes_before(self) -> float:
        """How long all earlier epochs took, with validation."""
        return float(self.log[-1]["minutes"]) if self.log else 0.0

    @property
    def mean_loss(self) -> float:
        """Nats per word in this epoch."""
        return self.loss / max(1, self.words)

    @property
    def mean_measures(self) -> dict[str, float]:
        """The mean measures over the epoch's captions so far."""
        return {name: value / max(1, self.captions) for name, value in self.measures.items()}

    @property
    def captions_per_second(self) -> float:
        return self.captions / max(1e-9, self.seconds)

    @property
    def padding(self) -> float:
        """Share of the positions that hold no word, 0..1."""
        return 1 - self.words / max(1, self.positions)
