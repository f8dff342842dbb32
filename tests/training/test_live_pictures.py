"""Live pictures: read ahead, in order, a bad one told at its batch, and no thread is left behind."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from showtell.data.dataset import Example
from showtell.errors import ImageError
from showtell.images.decode import Preprocessing, prepare
from showtell.training.inputs.augmentation import Augmentation, random_of
from showtell.training.inputs.batches import Batch, batch_of
from showtell.training.inputs.images import AHEAD, live_pictures

SEED = (0, 0, 0)
SMALL = Preprocessing(size=16)


class Reads:
    """Stands in for examples: counts what is read, and keeps some waiting."""

    def __init__(self, count: int, bad: int | None = None) -> None:
        self.count, self.bad = count, bad
        self.begun: list[int] = []

    def __getitem__(self, row: int) -> "_Photo":
        return _Photo(self, row)

    def __len__(self) -> int:
        return self.count


class _Photo:
    def __init__(self, reads: Reads, row: int) -> None:
        self.reads, self.row = reads, row

    def read(self, *, at_least: int | None = None) -> np.ndarray:
        self.reads.begun.append(self.row)
        time.sleep(0.002 * (self.row % 3))  # later ones are often done first
        if self.row == self.reads.bad:
            raise ImageError(f"photo {self.row} is damaged.")
        return np.full((20, 24, 3), self.row, np.uint8)


def batches(rows: range, size: int) -> Iterator[Batch]:
    for first in range(rows.start, rows.stop, size):
        chosen = np.arange(first, min(first + size, rows.stop))
        yield batch_of(chosen, [[[1, 2]]] * len(chosen))


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("showtell-read")]


def test_pictures_come_in_order_and_as_prepared() -> None:
    reads = Reads(23)
    with live_pictures(reads, SMALL, Augmentation()) as inputs:  # type: ignore[arg-type]
        found = list(inputs.train(batches(range(23), 4), SEED))
    assert [row for batch, _ in found for row in batch.rows] == list(range(23))
    for batch, pictures in found:
        expected = prepare([np.full((20, 24, 3), row, np.uint8) for row in batch.rows], SMALL)
        assert torch.equal(pictures, torch.from_numpy(expected))
    assert sorted(reads.begun) == list(range(23)), "each is read once"


def test_reads_ahead_and_not_far() -> None:
    """The next batch is read while one is trained on; more would fill the memory when training is slow."""
    reads = Reads(40)
    with live_pictures(reads, SMALL, Augmentation()) as inputs:  # type: ignore[arg-type]
        pairs = inputs.train(batches(range(40), 4), SEED)
        for done in range(1, 4):
            next(pairs)
            deadline = time.monotonic() + 10
            while len(reads.begun) < 4 * (done + AHEAD) and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(0.05)
            assert len(reads.begun) == 4 * (done + AHEAD)


def test_a_bad_photo_is_told_at_its_batch() -> None:
    with live_pictures(Reads(40, bad=9), SMALL, Augmentation()) as inputs:  # type: ignore[arg-type]
        pairs = inputs.train(batches(range(40), 4), SEED)
        assert [next(pairs)[0].rows[0] for _ in range(2)] == [0, 4]
        with pytest.raises(ImageError, match="photo 9 is damaged"):
            next(pairs)


def test_threads_end_with_the_stage() -> None:
    """Also when it is interrupted in the middle of an epoch, with photos still to read."""
    before = len(threads())
    pairs = None
    with suppress(KeyboardInterrupt), live_pictures(Reads(400), SMALL, Augmentation()) as inputs:  # type: ignore[arg-type]
        pairs = inputs.train(batches(range(400), 50), SEED)
        next(pairs)
        assert len(threads()) > before
        raise KeyboardInterrupt
    assert len(threads()) == before
    assert pairs is not None  # held until here, as a traceback would hold it


def test_augmented_batches_do_not_depend_on_where_an_epoch_goes_on(tmp_path: Path) -> None:
    """A resumed epoch starts in the middle."""
    examples = []
    for row in range(12):
        path = tmp_path / f"{row}.png"
        Image.fromarray(np.random.default_rng(row).integers(0, 256, (30, 40, 3), np.uint8)).save(path)
        examples.append(Example(str(row), "train", ("a",), path))
    augmentation = Augmentation(flip=0.5, crop=0.5, colour=0.3, cutout=0.3)
    with live_pictures(examples, SMALL, augmentation) as inputs:
        whole = [pictures for _, pictures in inputs.train(batches(range(12), 3), SEED)]
        rest = [pictures for _, pictures in inputs.train(batches(range(6, 12), 3), SEED)]
        other = [pictures for _, pictures in inputs.train(batches(range(12), 3), (0, 0, 1))]
    assert all(map(torch.equal, whole[2:], rest))
    assert not any(map(torch.equal, whole, other))
    one = augmentation.picture(examples[4].read(), SMALL, random_of(SEED, 4))
    assert torch.equal(whole[1][1], torch.from_numpy(prepare([one], SMALL)[0]))
