"""The events that a training run reports."""

from dataclasses import dataclass

from showtell.training.recipe import Json


@dataclass(frozen=True)
class Encoding:
    """Features are being computed: `done` of the `images` that the cache lacks, `size` bytes in total."""

    done: int
    images: int
    size: int


@dataclass(frozen=True)
class Note:
    """Something that people should know, while the run continues: an image can't be read, all captions are alike."""

    text: str


@dataclass(frozen=True)
class Epoch:
    """The progress of an epoch; or, with its line of the log, its end."""

    epoch: int
    """The number of the epoch in the stage, from 1."""
    epochs: int
    captions: int
    """The batches of this epoch so far."""
    all_captions: int
    """The batches of an epoch."""
    captions_per_second: float
    loss: float
    """Mean over the epoch's words so far, nats a word."""
    line: Json | None = None


Event = Encoding | Note | Epoch
