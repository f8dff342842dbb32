"""Tar shards (WebDataset): what is in them is listed without reading an image, and read where it lies, in any order."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from showtell.errors import DataError, ImageError

END_OF_SHARD = bytes(2 * tarfile.BLOCKSIZE)


def shard_members(shard: str) -> Iterator[tuple[str, int, int]]:
    """The files in a tar shard, in its order: name, and the bytes' place and number.

    Raises:
        DataError: it is no tar file, is compressed, or ends too early; after those that come before.
    """
    try:
        with tarfile.open(shard, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else it keeps them all
                if member.isreg() and not member.issparse():
                    yield member.name.removeprefix("./"), member.offset_data, member.size
    except tarfile.TarError as error:
        if _is_compressed(shard):
            raise DataError(f"{shard} is compressed.", "Unpack it; the tar file itself is read in place.") from None
        raise DataError(f"{shard} is damaged or no tar file: {error}.", "Fetch it again.") from error
    except OSError as error:
        raise DataError(f"{shard} can't be read: {error.strerror or error}.") from None


def member_bytes(shard: str, name: str, offset: int, size: int) -> BinaryIO:
    """One member of a shard, as an open file that errors call `name`.

    Raises:
        ImageError: the shard can't be read any more, or is shorter than it was.
    """
    try:
        with Path(shard).open("rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise ImageError(f"{name} can't be read: {error.strerror or error}.") from None
    if len(data) < size:
        raise ImageError(f"{name} is cut off: its shard ends within it.")
    return named(data, name)


def as_member(name: str, data: bytes) -> bytes:
    """A file as it stands in a tar file, the same at any time: dates and owners are left out."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    return header.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def written_samples(shard: Path) -> Iterator[tuple[str, Any, int]]:
    """The samples of a shard that was written here, as far as they are whole: key, JSON, the byte behind them."""
    length = shard.stat().st_size
    try:
        for name, offset, size in shard_members(str(shard)):
            end = offset + size + -size % tarfile.BLOCKSIZE
            if name.endswith(".json") and end <= length:
                data = member_bytes(str(shard), name, offset, size).read()
                yield name.removesuffix(".json"), _json(data), end
    except DataError:  # an interruption has cut it off here
        return


def named(data: bytes, name: str) -> BinaryIO:
    """A file in memory that errors call by its name."""
    file = io.BytesIO(data)
    file.name = name
    return file


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _is_compressed(shard: str) -> bool:
    """Whether the file begins as gzip, bzip2, xz or Zstandard do."""
    with Path(shard).open("rb") as file:
        return file.read(4).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5\x2f\xfd"))
