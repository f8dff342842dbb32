"""What `evaluate` and `calibrate` share: a data set's photos in, the best caption of each out."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from showtell.captioner import Caption, Captioner
from showtell.cli.progress import progress_bar, tell
from showtell.data import Example
from showtell.errors import Interrupted, ShowtellError


def from_files(
    captioner: Captioner, examples: Sequence[Example], batch_size: int, search_options: dict[str, Any]
) -> Iterator[list[Caption] | ShowtellError]:
    """The captions of each example, or why its image can't be read."""
    side = captioner.config.preprocessing.shorter_side
    reads = [partial(example.read, at_least=side) for example in examples]
    return captioner.stream(reads, batch_size=batch_size, **search_options)


def caption_examples(
    examples: Sequence[Example], outcomes: Iterator[list[Caption] | ShowtellError]
) -> tuple[dict[str, Caption], int]:
    """The best caption by image id, and how many images could not be read; those are reported."""
    captions: dict[str, Caption] = {}
    bad = 0
    with progress_bar("captioning", len(examples)) as advance:
        try:
            for example, outcome in zip(examples, outcomes, strict=True):
                if isinstance(outcome, ShowtellError):
                    tell(outcome)
                    bad += 1
                else:
                    captions[example.image_id] = outcome[0]
                advance()
        except KeyboardInterrupt:
            raise Interrupted(
                f"Stopped by Ctrl-C after {len(captions):,} of {len(examples):,} images.",
                "Nothing was written.",
            ) from None
    return captions, bad
