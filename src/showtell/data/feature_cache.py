"""A feature cache: what a frozen encoder makes of each image, computed once and read batch by batch.

A folder of four files:

    features.f16      rows x N x D half-precision numbers, one after the other: row i is image i of the index
    done.u8           a byte a row: 0 to do, 1 done, 2 the image can't be read
    index.json        the fingerprint of the encoder, N, D, and of each row its image's id and stamp
    unreadable.json   image id -> why it can't be read

or of one such folder for each of several builders, `part-1-of-4` and so on, which read as one cache. A builder writes
to its own part only, and leaves out what any other part holds already: their number may change, and the folder itself
may be a part, too.

A row is marked as done after its numbers have reached the disk, so a builder that is killed at any moment,
or loses power, goes on where it was. More images can be added at any time. N is the grid's cells, D the
feature width.

Rows are read with plain reads, not through a memory map: pages of a map that were touched count as the process's own
memory until something else needs it, so a training on 15 GB of features would seem to grow by 15 GB.
"""

import json
import os
import shutil
import threading
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from showtell.errors import DataError

Features = npt.NDArray[np.float16]

FORMAT_VERSION = 1
TO_DO, DONE, UNREADABLE = 0, 1, 2
SYNC_BYTES = 32 * 2**20
"""So much is written between two marks: what a kill can cost, against how often the disk is waited for."""


class FeatureCache:
    """Features by image id, read from the disk as they are asked for.

    Attributes:
        folder: where it is.
        fingerprint: which encoder, weights and preprocessing made it.
        shape: (images, N, D).
        unreadable: image id -> why it is left out.
    """

    def __init__(self, folder: Path, parts: Sequence["_Part"]) -> None:
        self.folder = folder
        self.fingerprint: str = parts[0].index["fingerprint"]
        rows = [len(part.index["images"]) for part in parts]
        self.shape: tuple[int, int, int] = (sum(rows), parts[0].index["cells"], parts[0].index["width"])
        self.unreadable: dict[str, str] = {}
        self._row: dict[str, int] = {}
        self._first_rows = [sum(rows[:number]) for number in range(len(parts))]
        self._files = [_RowFile(part.folder / "features.f16") for part in parts]
        for first_row, part in zip(self._first_rows, parts, strict=True):
            done = (part.state == DONE).tolist()
            for row, image_id in enumerate(part.index["images"]):
                if done[row]:
                    self._row.setdefault(image_id, first_row + row)
            self.unreadable |= _read_json(part.folder / "unreadable.json")
        self.unreadable = {image_id: why for image_id, why in self.unreadable.items() if image_id not in self._row}

    @classmethod
    def open(cls, folder: str | Path, fingerprint: str | None = None) -> "FeatureCache":
        """The cache in a folder, as far as it is built; with a fingerprint, only if it is of that encoder.

        Raises:
            DataError: there is no cache, it is damaged, or another encoder made it or a part of it.
        """
        folder = Path(folder)
        parts = [_read_part(part) for part in part_folders(folder)]
        if not parts:
            raise _no_cache(folder)
        for part in parts:
            refuse_another(part.folder, part.index, fingerprint or parts[0].index["fingerprint"])
            if (part.folder / "features.f16").stat().st_size < part.state.size * part.row_bytes:
                raise cut_off(part.folder)
        return cls(folder, parts)

    def __len__(self) -> int:
        return len(self._row)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._row

    def __getitem__(self, image_id: str) -> Features:
        """One image's features [N, D]."""
        features: Features = self.rows([image_id])[0]
        return features

    def rows(self, image_ids: Sequence[str]) -> Features:
        """The features of some images, [B, N, D], in their order.

        Raises:
            DataError: an image is not in the cache.
        """
        try:
            rows = [self._row[image_id] for image_id in image_ids]
        except KeyError as error:
            raise self._lacks(error.args[0]) from None
        features = np.empty((len(rows), *self.shape[1:]), np.float16)
        for row, values in zip(rows, features, strict=True):
            part = bisect(self._first_rows, row) - 1
            if not self._files[part].read_into(values, row - self._first_rows[part]):
                raise cut_off(self.folder)
        return features

    def _lacks(self, image_id: str) -> DataError:
        if image_id in self.unreadable:
            return DataError(f"{image_id} is not in the feature cache {self.folder}: {self.unreadable[image_id]}")
        return DataError(
            f"{image_id} is not in the feature cache {self.folder}.",
            "Finish the cache with 'showtell features' for the same data.",
        )


class CacheWriter:
    """Adds rows to a cache, new or begun before; use it in a `with` block.

    Attributes:
        to_do: image ids among those asked for that have no row yet, in the order of the rows.
        row: image id -> row, of all images of the cache.
        new_bytes: what is still to be written.
    """

    def __init__(
        self, folder: str | Path, fingerprint: str, cells: int, width: int, stamps: Mapping[str, str], part: str = ""
    ) -> None:
        """Make or extend the cache in `folder`.

        Args:
            folder: made if it isn't there.
            fingerprint: of encoder, weights and preprocessing.
            cells: N.
            width: D.
            stamps: image id -> something that changes when the image does.
            part: the name of the part that is this writer's alone, as `part_name` gives it; the folder itself if empty.

        Raises:
            DataError: another encoder made the cache, an image has changed, or the disk is too small.
        """
        self.folder = Path(folder) / part
        self.folder.mkdir(parents=True, exist_ok=True)
        self._row_bytes = cells * width * 2
        elsewhere: set[str] = set()
        for other in part_folders(Path(folder)):
            if other != self.folder:
                elsewhere |= self._done_in(_read_part(other), fingerprint, stamps)
        begun = (self.folder / "index.json").exists()
        index = read_index(self.folder) if begun else {"images": [], "stamps": []}
        if begun:
            refuse_another(self.folder, index, fingerprint)
            self._refuse_changed(index, stamps)
        wanted = [image_id for image_id in stamps if image_id not in elsewhere]
        self.row = {image_id: row for row, image_id in enumerate(index["images"])}
        new = [image_id for image_id in wanted if image_id not in self.row]
        for image_id in new:
            self.row[image_id] = len(self.row)
        state = np.zeros(len(self.row), np.uint8)
        if begun:
            state[: len(index["images"])] = _state(self.folder, len(index["images"]))
        self.to_do = sorted((i for i in wanted if state[self.row[i]] == TO_DO), key=self.row.__getitem__)
        self.new_bytes = len(self.to_do) * self._row_bytes
        self._refuse_full_disk()
        self._unreadable: dict[str, str] = _read_json(self.folder / "unreadable.json") if begun else {}
        if not begun:  # remains of a cache that lost its index say nothing
            for name in ("features.f16", "done.u8"):
                (self.folder / name).unlink(missing_ok=True)
        self._features = _open_at_least(self.folder / "features.f16", len(self.row) * self._row_bytes)
        self._marks = _open_at_least(self.folder / "done.u8", len(self.row))
        if new or not begun:
            index = {
                "format_version": FORMAT_VERSION,
                "fingerprint": fingerprint,
                "cells": cells,
                "width": width,
                "images": list(self.row),
                "stamps": [*index["stamps"], *(stamps[image_id] for image_id in new)],
            }
            _write_json(self.folder / "index.json", index)  # last: what it promises is there
        self._unmarked: dict[str, int] = {}
        self._pending = 0

    def write(self, image_ids: Sequence[str], features: npt.NDArray[np.floating[Any]]) -> None:
        """Write the features [B, N, D] of B images.

        Raises:
            DataError: a feature is no number or too large for half precision, or the disk is full.
        """
        with np.errstate(over="ignore"):
            half = np.ascontiguousarray(features, np.float16)
        for image_id, values in zip(image_ids, half, strict=True):
            if not np.isfinite(values).all():
                raise DataError(f"The encoder's features of {image_id} do not fit into half precision.")
            self._put(self._features, self.row[image_id] * self._row_bytes, values.tobytes())
            self._unmarked[image_id] = DONE
        self._pending += half.nbytes
        if self._pending >= SYNC_BYTES:
            self.sync()

    def leave_out(self, image_id: str, reason: str) -> None:
        """Record that an image can't be read."""
        self._unreadable[image_id] = reason
        self._unmarked[image_id] = UNREADABLE

    def sync(self) -> None:
        """Bring everything to the disk, and only then mark it as done."""
        if UNREADABLE in self._unmarked.values():
            _write_json(self.folder / "unreadable.json", self._unreadable)
        os.fsync(self._features)
        for image_id, mark in self._unmarked.items():
            self._put(self._marks, self.row[image_id], bytes([mark]))
        os.fsync(self._marks)
        self._unmarked.clear()
        self._pending = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep what was written, whatever ended the block."""
        try:
            self.sync()
        finally:
            os.close(self._features)
            os.close(self._marks)

    def _put(self, file: int, place: int, values: bytes) -> None:
        try:
            written = 0
            while written < len(values):
                os.lseek(file, place + written, os.SEEK_SET)
                written += os.write(file, values[written:])
        except OSError as error:
            raise DataError(
                f"The feature cache {self.folder} can't be written: {error.strerror}.",
                "Free some space and build again: it goes on where it was.",
            ) from error

    def _done_in(self, part: "_Part", fingerprint: str, stamps: Mapping[str, str]) -> set[str]:
        """The images that another part has, also those that it found unreadable."""
        refuse_another(part.folder, part.index, fingerprint)
        self._refuse_changed(part.index, stamps)
        done = (part.state != TO_DO).tolist()
        return {image_id for image_id, is_done in zip(part.index["images"], done, strict=True) if is_done}

    def _refuse_changed(self, index: Mapping[str, Any], stamps: Mapping[str, str]) -> None:
        """An image under a known id that is another image now would get the old one's features."""
        for image_id, stamp in zip(index["images"], index["stamps"], strict=True):
            if stamps.get(image_id, stamp) != stamp:
                raise DataError(
                    f"{image_id} is not the image that the feature cache {self.folder} was built from.",
                    "Delete that folder or choose another.",
                )

    def _refuse_full_disk(self) -> None:
        free = shutil.disk_usage(self.folder).free
        if self.new_bytes > free:
            raise DataError(
                f"The feature cache {self.folder} needs {megabytes(self.new_bytes)} more, and its disk has "
                f"{megabytes(free)} free.",
                "Free some space or choose another folder.",
            )


@dataclass(frozen=True)
class _Part:
    """A folder of the four files."""

    folder: Path
    index: dict[str, Any]
    state: npt.NDArray[np.uint8]
    """Of each row: to do, done, unreadable."""

    @property
    def row_bytes(self) -> int:
        """Size of one image's features in bytes."""
        size: int = self.index["cells"] * self.index["width"] * 2
        return size


class _RowFile:
    """A features.f16, open for reading; threads may share it."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("rb", buffering=0)
        self._lock = threading.Lock()  # seek and read, as Windows has no pread

    def read_into(self, values: Features, row: int) -> bool:
        """Fill `values` [N, D] with a row; False if the file ends before."""
        room = values.view(np.uint8).data.cast("B")
        with self._lock:
            self._file.seek(row * len(room))
            while room:
                read = self._file.readinto(room)
                if not read:
                    return False
                room = room[read:]
        return True


def part_name(part: int, parts: int) -> str:
    """The folder of builder `part`, 1 to `parts`, inside the cache's: part-1-of-4."""
    return f"part-{part}-of-{parts}"


def part_folders(folder: Path) -> Iterator[Path]:
    """Where a cache's files are: the folder itself, its parts, or both."""
    for each in (folder, *sorted(folder.glob("part-*-of-*"))):
        if (each / "index.json").exists():
            yield each


def images_done(folder: Path) -> int:
    """How many images a cache has, or knows to be unreadable, while it is being built; duplicates count twice."""
    marks = (np.fromfile(part / "done.u8", np.uint8) for part in part_folders(folder))
    return sum(int(np.count_nonzero(of_part != TO_DO)) for of_part in marks)


def megabytes(size: int) -> str:
    """A number of bytes as people read it: 878 MB."""
    return f"{size / 1e6:,.0f} MB"


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a cache. Raises DataError when there is none of this format."""
    file = folder / "index.json"
    if not file.exists():
        raise _no_cache(folder)
    index = _read_json(file)
    if index.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"The feature cache {folder} has format version {index.get('format_version')}, "
            f"and this showtell reads {FORMAT_VERSION}.",
            "Delete it and build it again.",
        )
    return index


def refuse_another(folder: Path, index: Mapping[str, Any], fingerprint: str) -> None:
    """Raise DataError for a cache of another encoder: its features would give confident nonsense."""
    if index["fingerprint"] != fingerprint:
        raise DataError(
            f"The feature cache {folder} was built by {index['fingerprint']}, and the encoder is {fingerprint}.",
            "Delete that folder or choose another.",
        )


def _no_cache(folder: Path) -> DataError:
    return DataError(f"There is no feature cache in {folder}.", "Build one with 'showtell features'.")


def _read_part(folder: Path) -> _Part:
    """A part as it is on the disk now, perhaps while its builder works on it. Raises DataError."""
    index = read_index(folder)
    return _Part(folder, index, _state(folder, len(index["images"])))


def _state(folder: Path, rows: int) -> npt.NDArray[np.uint8]:
    """The state of each row."""
    marks = (folder / "done.u8").read_bytes()[:rows]
    if len(marks) < rows:
        raise cut_off(folder)
    return np.frombuffer(marks, np.uint8)


def cut_off(folder: Path) -> DataError:
    """What to say of a cache whose files are shorter than its index says."""
    return DataError(f"The feature cache {folder} is cut off.", "Delete it and build it again.")


def _open_at_least(file: Path, size: int) -> int:
    """A file open for writing, its end filled up with zeros that take no space yet."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
    if os.fstat(handle).st_size < size:
        os.truncate(handle, size)
    return handle


def _read_json(file: Path) -> dict[str, Any]:
    """A JSON object; empty when there is no such file."""
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is damaged: {error}.", "Delete the folder and build it again.") from error
    return found if isinstance(found, dict) else {}


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all, and onto the disk."""
    new = file.with_suffix(".new")
    with new.open("w", encoding="utf-8") as stream:
        json.dump(values, stream, ensure_ascii=False)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)
