"""What a training run tells whoever watches it."""

from dataclasses import dataclass

from showtell.training.recipe import Json


@dataclass(frozen=True)
class Encoding:
    """Features are being computed: `done` of the `images` that the cache lacks, `size` bytes in all."""

    done: int
    images: int
    size: int


@dataclass(frozen=True)
class Note:
    """What people should know, and the run goes on: an image can't be read, all captions are alike."""

    text: str


@dataclass(frozen=True)
class Epoch:
    """How far an epoch is; or, with its line of the log, that it has ended."""

    epoch: int
    """From 1, in the stage."""
    epochs: int
    captions: int
    """Of this epoch, so far."""
    all_captions: int
    """Of an epoch."""
    captions_per_second: float
    loss: float
    """Mean over the epoch's words so far, nats a word."""
    line: Json | None = None


Event = Encoding | Note | Epoch
