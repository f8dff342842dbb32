"""What a worker does with a part: caption its images, and skip those that can't be captioned, with the reason.

An image that can't be read costs nothing. If the model fails on an image, its batch is tried again, image by image.
An image may also kill the worker (a decoder crashes, memory runs out). After two deaths, the part is captioned image
by image, each noted beforehand; after two deaths at the same image, that image is skipped.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any

import numpy as np

from showtell.bulk.parts import Part, images_of
from showtell.bulk.results import Attempt, Results
from showtell.captioner import Caption, Captioner
from showtell.errors import ImageError, ShowtellError, one_line
from showtell.images.decode import Pixels
from showtell.images.names import writable
from showtell.images.storage import StoredImage
from showtell.results.outputs import Row, row_of
from showtell.search.options import SearchOptions

READING_THREADS = 4  # more than a worker's cores: mostly they wait for a network
TRIES_TOGETHER = 2  # of a part, before its images are captioned one by one
DEATHS_OF_AN_IMAGE = 2  # before it is skipped

Outcome = list[Caption] | ShowtellError


@dataclass(frozen=True)
class PartCaptioner:
    """Captions one part after the other."""

    captioner: Captioner
    options: SearchOptions
    results: Results
    made_with: Mapping[str, Any]
    """What the captions depend on; each file stores it."""
    batch_size: int

    def __call__(self, number: int, part: Part) -> tuple[int, int]:
        """Caption a part, and write its file. Returns how many images were captioned, and how many could not be."""
        attempt = self.results.attempt(number)
        images = images_of(part)
        if attempt.tries <= TRIES_TOGETHER:
            outcomes = self._together(images)
        else:
            outcomes = self._one_by_one(images, number, attempt)
        rows: list[Row] = []
        done = failed = 0
        for name, outcome in outcomes:
            if isinstance(outcome, ShowtellError):
                failed += 1
            else:
                done += 1
            rows += rows_of(name, outcome)
        self.results.finish(number, rows, self.made_with)
        return done, failed

    def _together(self, images: Iterable[StoredImage]) -> Iterator[tuple[str, Outcome]]:
        """Batches of images; the next one is read while one is captioned."""
        images = iter(images)
        with ThreadPoolExecutor(READING_THREADS, thread_name_prefix="showtell-read") as pool:
            ahead: deque[list[tuple[str, Future[Pixels | ShowtellError]]]] = deque()
            while batch := list(islice(images, self.batch_size)):
                ahead.append([(image.name, pool.submit(self._picture, image)) for image in batch])
                if len(ahead) == 2:
                    yield from self._captioned(ahead.popleft())
            while ahead:
                yield from self._captioned(ahead.popleft())

    def _captioned(self, batch: list[tuple[str, "Future[Pixels | ShowtellError]"]]) -> Iterator[tuple[str, Outcome]]:
        pictures = [(name, future.result()) for name, future in batch]
        readable = [(name, picture) for name, picture in pictures if isinstance(picture, np.ndarray)]
        captions = iter(self._captions(readable))
        for name, picture in pictures:
            yield name, picture if isinstance(picture, ShowtellError) else next(captions)

    def _one_by_one(
        self, images: Iterable[StoredImage], number: int, attempt: Attempt
    ) -> Iterator[tuple[str, Outcome]]:
        for place, image in enumerate(images):
            deaths = attempt.deaths.get(place, 0)
            if deaths >= DEATHS_OF_AN_IMAGE:
                yield image.name, ImageError(f"{image.name} crashed the worker that captioned it, {deaths} times.")
                continue
            self.results.note(number, attempt, place)
            picture = self._picture(image)
            if isinstance(picture, ShowtellError):
                yield image.name, picture
            else:
                yield image.name, self._captions([(image.name, picture)])[0]

    def _picture(self, image: StoredImage) -> Pixels | ShowtellError:
        """The image as the encoder sees it, or why it can't be read."""
        try:
            return self.captioner.picture(image.source())
        except ShowtellError as error:
            return error
        except Exception as error:  # a bug, in a decoder or here, is no reason to lose the other images
            return ImageError(f"{image.name} can't be read: {_of(error)}.")

    def _captions(self, images: list[tuple[str, Pixels]]) -> list[Outcome]:
        """The captions of a batch; if that fails, of each image alone, or why there are none."""
        if not images:
            return []
        try:
            names, pictures = zip(*images, strict=True)
            return list(self.captioner.caption_pictures(pictures, self.options, numbers=[*map(number_of, names)]))
        except Exception as error:  # as above
            if len(images) == 1:
                return [ImageError(f"{images[0][0]} can't be captioned: {_of(error)}.")]
            return [outcome for image in images for outcome in self._captions([image])]


def rows_of(name: str, outcome: Outcome) -> list[Row]:
    """The rows of an image: one for each caption, best first, or one with the error."""
    if isinstance(outcome, ShowtellError):
        return [{"image": writable(name), "error": str(outcome)}]
    return [row_of(writable(name), each) for each in outcome]


def number_of(name: str) -> int:
    """The number that seeds an image's samples: a hash of its name, the same however the input is cut."""
    return int.from_bytes(blake2b(os.fsencode(name), digest_size=6).digest())


def _of(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(str(error))}".rstrip(":. ")
