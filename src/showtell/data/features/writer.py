"""Build a feature cache: rows are written, flushed to the disk, and only then marked as done."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from showtell.data.features.cache import (
    DONE,
    FORMAT_VERSION,
    TO_DO,
    UNREADABLE,
    CachePart,
    megabytes,
    part_folders,
    read_index,
    read_json_object,
    read_part,
    refuse_another,
    refuse_changed,
    state_of,
)
from showtell.errors import DataError
from showtell.files import write_file

SYNC_BYTES = 32 * 2**20
"""How much is written between two marks: a trade-off between what a kill costs and how often we wait for the disk."""


class CacheWriter:
    """Adds rows to a new or existing cache; use it in a `with` block.

    Attributes:
        to_do: the requested image ids that have no row yet, in the order of the rows.
        row: image id -> row, for all images of the cache.
        new_bytes: how many bytes are still to be written.
    """

    def __init__(
        self, folder: str | Path, fingerprint: str, cells: int, width: int, stamps: Mapping[str, str], part: str = ""
    ) -> None:
        """Make or extend the cache in `folder`.

        Args:
            folder: the folder; it is made if it does not exist.
            fingerprint: the fingerprint of encoder, weights and preprocessing.
            cells: N.
            width: D.
            stamps: image id -> a text that changes with the image.
            part: the name of this writer's own part, as `part_name` gives it; if empty, the folder itself.

        Raises:
            DataError: another encoder made the cache, an image has changed, or the disk is too small.
        """
        self.folder = Path(folder) / part
        self.folder.mkdir(parents=True, exist_ok=True)
        self._row_bytes = cells * width * 2
        elsewhere: set[str] = set()
        for other in part_folders(Path(folder)):
            if other != self.folder:
                elsewhere |= self._done_in(read_part(other), fingerprint, stamps)
        begun = (self.folder / "index.json").exists()
        index = read_index(self.folder) if begun else {"images": [], "stamps": []}
        if begun:
            refuse_another(self.folder, index, fingerprint)
            refuse_changed(self.folder, index, stamps)
        wanted = [image_id for image_id in stamps if image_id not in elsewhere]
        self.row = {image_id: row for row, image_id in enumerate(index["images"])}
        new = [image_id for image_id in wanted if image_id not in self.row]
        for image_id in new:
            self.row[image_id] = len(self.row)
        state = np.zeros(len(self.row), np.uint8)
        if begun:
            state[: len(index["images"])] = state_of(self.folder, len(index["images"]))
        self.to_do = sorted((i for i in wanted if state[self.row[i]] == TO_DO), key=self.row.__getitem__)
        self.new_bytes = len(self.to_do) * self._row_bytes
        self._refuse_full_disk()
        self._unreadable: dict[str, str] = read_json_object(self.folder / "unreadable.json") if begun else {}
        if not begun:  # the remains of a cache without an index are useless
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
            # Last, when all that it promises exists.
            write_file(self.folder / "index.json", json.dumps(index, ensure_ascii=False))
        self._unmarked: dict[str, int] = {}
        self._pending = 0

    def write(self, image_ids: Sequence[str], features: npt.NDArray[np.floating[Any]]) -> None:
        """Write the features [B, N, D] of B images.

        Raises:
            DataError: a feature is NaN or too large for half precision, or the disk is full.
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
        """Flush everything to the disk, and only then mark it as done."""
        if UNREADABLE in self._unmarked.values():
            write_file(self.folder / "unreadable.json", json.dumps(self._unreadable, ensure_ascii=False))
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
        """Keep what was written, however the block ended."""
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
                "Free some space and run the same command: it continues where it stopped.",
            ) from error

    def _done_in(self, part: CachePart, fingerprint: str, stamps: Mapping[str, str]) -> set[str]:
        """The images that another part has, including those that it found unreadable."""
        refuse_another(part.folder, part.index, fingerprint)
        refuse_changed(part.folder, part.index, stamps)
        done = (part.state != TO_DO).tolist()
        return {image_id for image_id, is_done in zip(part.index["images"], done, strict=True) if is_done}

    def _refuse_full_disk(self) -> None:
        free = shutil.disk_usage(self.folder).free
        if self.new_bytes > free:
            raise DataError(
                f"The feature cache {self.folder} needs {megabytes(self.new_bytes)} more, but its disk has "
                f"{megabytes(free)} free.",
                "Free some space or choose another folder.",
            )


def _open_at_least(file: Path, size: int) -> int:
    """A file open for writing, extended to `size` with zeros that take no space yet."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
    if os.fstat(handle).st_size < size:
        os.truncate(handle, size)
    return handle
