"""A feature cache: a frozen encoder's features of each image, computed once and read batch by batch.

A folder of four files:

    features.f16      rows x N x D half-precision numbers, one after the other: row i is image i of the index
    done.u8           one byte per row: 0 to do, 1 done, 2 the image can't be read
    index.json        the fingerprint of the encoder, N, D, and for each row its image's id and stamp
    unreadable.json   image id -> why it can't be read

or one such folder for each of several builders, `part-1-of-4` and so on, which are read as one cache. A builder writes
only to its own part, and leaves out what any other part already holds. The number of builders may change, and the
folder itself may be a part, too.

A row is marked as done after its numbers have reached the disk, so a builder that is killed at any moment, or
loses power, can continue where it was. More images can be added at any time. N is the number of grid cells, D the
feature width.

Rows are read with plain reads, not through a memory map: touched pages of a map count as the process's own memory until
something else needs it, so training on 15 GB of features would seem to grow by 15 GB.
"""

import json
import threading
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from showtell.errors import DataError

Features = npt.NDArray[np.float16]

FORMAT_VERSION = 1
TO_DO, DONE, UNREADABLE = 0, 1, 2


class FeatureCache:
    """Features by image id, read from the disk on request.

    Attributes:
        folder: its folder.
        fingerprint: identifies the encoder, weights and preprocessing that made it.
        shape: (images, N, D).
        unreadable: image id -> why it is left out.
    """

    def __init__(self, folder: Path, parts: Sequence["CachePart"]) -> None:
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
            self.unreadable |= read_json_object(part.folder / "unreadable.json")
        self.unreadable = {image_id: why for image_id, why in self.unreadable.items() if image_id not in self._row}

    @classmethod
    def open(
        cls, folder: str | Path, fingerprint: str | None = None, stamps: Mapping[str, str] | None = None
    ) -> "FeatureCache":
        """The cache in a folder, as far as it is built.

        A `fingerprint` or `stamps` of images by id refuse a cache of another encoder or of other images.

        Raises:
            DataError: there is no cache, it is damaged, or it or a part of it was made by another encoder or from
                other images.
        """
        folder = Path(folder)
        parts = [read_part(part) for part in part_folders(folder)]
        if not parts:
            raise _no_cache(folder)
        for part in parts:
            refuse_another(part.folder, part.index, fingerprint or parts[0].index["fingerprint"])
            refuse_changed(part.folder, part.index, stamps or {})
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


@dataclass(frozen=True)
class CachePart:
    """A folder of the four files."""

    folder: Path
    index: dict[str, Any]
    state: npt.NDArray[np.uint8]
    """The state of each row: to do, done, unreadable."""

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
        """Fill `values` [N, D] with a row; False if the file ends too early."""
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
    """How many images of a cache are done or unreadable while it is being built; duplicates count twice."""
    marks = (np.fromfile(part / "done.u8", np.uint8) for part in part_folders(folder))
    return sum(int(np.count_nonzero(of_part != TO_DO)) for of_part in marks)


def megabytes(size: int) -> str:
    """A number of bytes for people: 878 MB."""
    return f"{size / 1e6:,.0f} MB"


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a cache. Raises DataError if there is none of this format."""
    file = folder / "index.json"
    if not file.exists():
        raise _no_cache(folder)
    index = read_json_object(file)
    if index.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"The feature cache {folder} has format version {index.get('format_version')}, "
            f"but this version of showtell reads {FORMAT_VERSION}.",
            "Delete it and build it again.",
        )
    return index


def refuse_another(folder: Path, index: Mapping[str, Any], fingerprint: str) -> None:
    """Raise DataError for a cache of another encoder, whose features would give confident nonsense."""
    if index["fingerprint"] != fingerprint:
        raise DataError(
            f"The feature cache {folder} was built by {index['fingerprint']}, but the encoder is {fingerprint}.",
            "Delete that folder or choose another.",
        )


def refuse_changed(folder: Path, index: Mapping[str, Any], stamps: Mapping[str, str]) -> None:
    """Raise DataError if a known id now belongs to another image: it would get the old image's features."""
    for image_id, stamp in zip(index["images"], index["stamps"], strict=True):
        if stamp not in (now := stamps.get(image_id, stamp), now.partition("-")[0]):  # older caches have the size alone
            raise DataError(
                f"{image_id} is not the image that the feature cache {folder} was built from.",
                "Delete that folder or choose another.",
            )


def _no_cache(folder: Path) -> DataError:
    return DataError(f"There is no feature cache in {folder}.", "Build one with 'showtell features'.")


def read_part(folder: Path) -> CachePart:
    """A part as it is on the disk now, perhaps while its builder works on it. Raises DataError."""
    index = read_index(folder)
    return CachePart(folder, index, state_of(folder, len(index["images"])))


def state_of(folder: Path, rows: int) -> npt.NDArray[np.uint8]:
    """The state of each row."""
    marks = (folder / "done.u8").read_bytes()[:rows]
    if len(marks) < rows:
        raise cut_off(folder)
    return np.frombuffer(marks, np.uint8)


def cut_off(folder: Path) -> DataError:
    """The error for a cache whose files are shorter than its index says."""
    return DataError(f"The feature cache {folder} is cut off.", "Delete it and build it again.")


def read_json_object(file: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file."""
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is damaged: {error}.", "Delete the folder and build it again.") from error
    return found if isinstance(found, dict) else {}
