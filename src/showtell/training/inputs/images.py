"""A stage's images: grids in a feature cache, or live pictures from which the encoder learns."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from showtell.captioner import READING_THREADS, Caption, Captioner
from showtell.data.dataset import Example
from showtell.data.features.cache import FeatureCache
from showtell.errors import ImageError, ShowtellError, UsageError
from showtell.images.decode import Preprocessing, normalise
from showtell.training import processes
from showtell.training.inputs.augmentation import Augmentation, mirror_image, random_of
from showtell.training.inputs.batches import Batch

AHEAD = 1
"""How many batches of photos are read ahead while the model learns."""


def unreadable_of(examples: Sequence[Example]) -> dict[str, str]:
    """Image ids of the examples that can't be read, and why; it reads all images, as no cache has done so before.

    Each process reads its share, and all get the whole result.
    """

    def problem(example: Example) -> str | None:
        try:
            example.read()
        except ImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(READING_THREADS, thread_name_prefix="showtell-read") as threads:
        own = list(threads.map(problem, examples[processes.own_slice()]))
    problems = processes.put_together(processes.everyones(own))
    return {example.image_id: why for example, why in zip(examples, problems, strict=True) if why is not None}


def refuse_stream(examples: Sequence[Example]) -> None:
    """Raise UsageError for streamed images: live pictures are read again in every epoch, in another order."""
    if any(example.stored is not None and example.stored.in_order_only for example in examples):
        raise UsageError(
            "An encoder can't learn from a stream: its images come in one order only.",
            "Leave out 'streaming', so that they are kept on this disk, or leave out the stages with encoder_stages.",
        )


class Inputs(Protocol):
    """The images of a stage."""

    def train(self, batches: Iterable[Batch], seed: Sequence[int]) -> Iterator[tuple[Batch, Tensor]]:
        """Each batch with the model's input for its images: `[B, N, D]` or `[B, 3, S, S]`, float32.

        Args:
            batches: batches whose rows are places in the training examples.
            seed: the epoch's seed: the recipe's seed, the number of the stage, the number of the epoch.
        """

    def captions(
        self, captioner: Captioner, examples: Sequence[Example], batch_size: int
    ) -> Iterator[tuple[Example, Caption]]:
        """The best caption of each image."""


class CachedGrids:
    """Grids from a frozen encoder, read from the cache batch by batch."""

    def __init__(self, examples: Sequence[Example], cache: FeatureCache, augmentation: Augmentation) -> None:
        self.examples = examples
        self.cache = cache
        self.augmentation = augmentation

    def train(self, batches: Iterable[Batch], seed: Sequence[int]) -> Iterator[tuple[Batch, Tensor]]:
        """Each batch with its grids `[B, N, D]`, float32: those of the photos, or of their mirror images if flipped."""
        for batch in batches:
            images = [
                mirror_image(self.examples[row])
                if self.augmentation.mirrors(random_of(seed, row))
                else self.examples[row]
                for row in batch.rows.tolist()
            ]
            yield batch, torch.from_numpy(self.cache.rows([image.image_id for image in images])).float()

    def captions(
        self, captioner: Captioner, examples: Sequence[Example], batch_size: int
    ) -> Iterator[tuple[Example, Caption]]:
        """The best caption of each image, without using the encoder."""
        remaining = iter(examples)
        while batch := list(islice(remaining, batch_size)):
            memory = captioner.engine.memory_from_grid(self.cache.rows([example.image_id for example in batch]))
            for example, found in zip(batch, captioner.caption_memory(memory, captioner.options()), strict=True):
                yield example, found[0]


class LivePictures:
    """Pictures read from their files each time, for an encoder that learns.

    `threads` read them and apply `augmentation`, `AHEAD` batches before they are needed.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        threads: ThreadPoolExecutor,
    ) -> None:
        self.examples = examples
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.threads = threads

    def train(self, batches: Iterable[Batch], seed: Sequence[int]) -> Iterator[tuple[Batch, Tensor]]:
        """Each batch with its pictures `[B, 3, S, S]`, float32. Raises ImageError at the batch of a bad photo."""
        ahead: deque[tuple[Batch, Tensor, list[Future[None]]]] = deque()
        for batch in batches:
            ahead.append((batch, *self._begin(batch, seed)))
            if len(ahead) > AHEAD:
                yield _read(*ahead.popleft())
        while ahead:
            yield _read(*ahead.popleft())

    def captions(
        self, captioner: Captioner, examples: Sequence[Example], batch_size: int
    ) -> Iterator[tuple[Example, Caption]]:
        reads = [example.read for example in examples]
        for example, outcome in zip(examples, captioner.stream(reads, batch_size=batch_size), strict=True):
            if isinstance(outcome, ShowtellError):
                raise outcome
            yield example, outcome[0]

    def _begin(self, batch: Batch, seed: Sequence[int]) -> tuple[Tensor, list[Future[None]]]:
        """Allocate a batch's pictures, and start reading each into its place."""
        size = self.preprocessing.size
        pictures = np.empty((len(batch.rows), 3, size, size), np.float32)
        rows = batch.rows.tolist()
        reading = [
            self.threads.submit(self._read_into, place, row, seed) for place, row in zip(pictures, rows, strict=True)
        ]
        return torch.from_numpy(pictures), reading

    def _read_into(self, place: npt.NDArray[np.float32], row: int, seed: Sequence[int]) -> None:
        image = self.examples[row].read(at_least=self.augmentation.at_least(self.preprocessing))
        picture = self.augmentation.picture(image, self.preprocessing, random_of(seed, row))
        place[...] = normalise(picture[None], self.preprocessing)[0]


@contextmanager
def live_pictures(
    examples: Sequence[Example], preprocessing: Preprocessing, augmentation: Augmentation
) -> Iterator[LivePictures]:
    """`LivePictures` with their own threads, which end with the context, also after an error or Ctrl-C."""
    threads = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="showtell-read")
    try:
        yield LivePictures(examples, preprocessing, augmentation, threads)
    finally:
        threads.shutdown(cancel_futures=True)


def _read(batch: Batch, pictures: Tensor, reading: list[Future[None]]) -> tuple[Batch, Tensor]:
    """The batch and its pictures, once all of them have been read; raises the error of the first bad one."""
    for picture in reading:
        picture.result()
    return batch, pictures
