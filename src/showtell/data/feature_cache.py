"""A feature cache: what a frozen encoder makes of each image, computed once and read batch by batch.

A folder of four files:

    features.f16      rows x N x D half-precision numbers, one after the other: row i is image i of the index
    done.u8           a byte a row: 0 to do, 1 done, 2 the image can't be read
    index.json        the fingerprint of the encoder, N, D, and of each row its image's id and stamp
    unreadable.json   image id -> why it can't be read

A row is marked as done after its numbers have reached the disk, so a builder that is killed at any moment,
or loses power, goes on where it was. More images can be added at any time. N is the grid's cells, D the
feature width.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
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

    def __init__(self, folder: Path, index: Mapping[str, Any], state: npt.NDArray[np.uint8]) -> None:
        self.folder = folder
        self.fingerprint: str = index["fingerprint"]
        self.shape: tuple[int, int, int] = (len(index["images"]), index["cells"], index["width"])
        self.unreadable: dict[str, str] = _read_json(folder / "unreadable.json")
        self._row = {image_id: row for row, image_id in enumerate(index["images"]) if state[row] == DONE}
        self._features = np.memmap(folder / "features.f16", np.float16, "r", shape=self.shape)

    @classmethod
    def open(cls, folder: str | Path, fingerprint: str | None = None) -> "FeatureCache":
        """The cache in a folder, as far as it is built; with a fingerprint, only if it is of that encoder.

        Raises:
            DataError: there is no cache, it is damaged, or another encoder made it.
        """
        folder = Path(folder)
        index = read_index(folder)
        if fingerprint is not None:
            refuse_another(folder, index, fingerprint)
        state = _state(folder, len(index["images"]))
        expected = state.size * index["cells"] * index["width"] * 2
        if (folder / "features.f16").stat().st_size < expected:
            raise cut_off(folder)
        return cls(folder, index, state)

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
        return np.asarray(self._features[rows])

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

    def __init__(self, folder: str | Path, fingerprint: str, cells: int, width: int, stamps: Mapping[str, str]) -> None:
        """Make or extend the cache in `folder`.

        Args:
            folder: made if it isn't there.
            fingerprint: of encoder, weights and preprocessing.
            cells: N.
            width: D.
            stamps: image id -> something that changes when the image does.

        Raises:
            DataError: another encoder made the cache, an image has changed, or the disk is too small.
        """
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._row_bytes = cells * width * 2
        begun = (self.folder / "index.json").exists()
        index = read_index(self.folder) if begun else {"images": [], "stamps": []}
        if begun:
            refuse_another(self.folder, index, fingerprint)
            self._refuse_changed(index, stamps)
        self.row = {image_id: row for row, image_id in enumerate(index["images"])}
        new = [image_id for image_id in stamps if image_id not in self.row]
        for image_id in new:
            self.row[image_id] = len(self.row)
        state = np.zeros(len(self.row), np.uint8)
        if begun:
            state[: len(index["images"])] = _state(self.folder, len(index["images"]))
        self.to_do = sorted((i for i in stamps if state[self.row[i]] == TO_DO), key=self.row.__getitem__)
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


def megabytes(size: int) -> str:
    """A number of bytes as people read it: 878 MB."""
    return f"{size / 1e6:,.0f} MB"


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a cache. Raises DataError when there is none of this format."""
    file = folder / "index.json"
    if not file.exists():
        raise DataError(f"There is no feature cache in {folder}.", "Build one with 'showtell features'.")
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
