"""Where a stage's images come from: grids in a feature cache, or live pictures that the encoder learns from."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from showtell.captioner import READING_THREADS, Caption, Captioner
from showtell.data.dataset import Example
from showtell.data.feature_cache import FeatureCache
from showtell.engines.torch import TorchEngine
from showtell.errors import ImageError, ShowtellError
from showtell.images import Preprocessing, prepare


def unreadable_of(examples: Sequence[Example]) -> dict[str, str]:
    """Image ids of the examples that can't be read, with why; reads them all, as no cache has done so before."""

    def problem(example: Example) -> str | None:
        try:
            example.read()
        except ImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(READING_THREADS, thread_name_prefix="showtell-read") as threads:
        problems = threads.map(problem, examples)
        return {example.image_id: why for example, why in zip(examples, problems, strict=True) if why is not None}


class Inputs(Protocol):
    """The images of a stage."""

    def train(self, examples: Sequence[Example]) -> Tensor:
        """What the model's `forward` takes for these images: `[B, N, D]` or `[B, 3, S, S]`, float32."""

    def captions(
        self, captioner: Captioner, examples: Sequence[Example], batch_size: int
    ) -> Iterator[tuple[Example, Caption]]:
        """The best caption of each image."""


class CachedGrids:
    """Grids that a frozen encoder has computed before, read from the cache batch by batch."""

    def __init__(self, cache: FeatureCache) -> None:
        self.cache = cache

    def train(self, examples: Sequence[Example]) -> Tensor:
        """Grids `[B, N, D]`, float32."""
        return torch.from_numpy(self.cache.rows([example.image_id for example in examples])).float()

    def captions(
        self, captioner: Captioner, examples: Sequence[Example], batch_size: int
    ) -> Iterator[tuple[Example, Caption]]:
        """The best caption of each image, the encoder left out."""
        assert isinstance(captioner.engine, TorchEngine)
        remaining = iter(examples)
        while batch := list(islice(remaining, batch_size)):
            memory = captioner.engine.memory_of(self.cache.rows([example.image_id for example in batch]))
            for example, found in zip(batch, captioner.caption_memory(memory, captioner.options()), strict=True):
                yield example, found[0]


class LivePictures:
    """Pictures read from their files each time, for an encoder that learns."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self.threads = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="showtell-read")

    def train(self, examples: Sequence[Example]) -> Tensor:
        """Pictures `[B, 3, S, S]`, float32, as the encoder's preprocessing leaves them."""
        pictures = self.threads.map(lambda example: example.read(at_least=self.preprocessing.shorter_side), examples)
        return torch.from_numpy(prepare(list(pictures), self.preprocessing))

    def captions(
        self, captioner: Captioner, examples: Sequence[Example], batch_size: int
    ) -> Iterator[tuple[Example, Caption]]:
        """The best caption of each image."""
        reads = [example.read for example in examples]
        for example, outcome in zip(examples, captioner.stream(reads, batch_size=batch_size), strict=True):
            if isinstance(outcome, ShowtellError):
                raise outcome
            yield example, outcome[0]
