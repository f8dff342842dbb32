"""Tar shards (WebDataset): list them without reading an image, stream them, write them."""

import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from showtell.errors import DataError, ShowtellError, reason_of
from showtell.images.names import is_image_name, is_passed_over
from showtell.images.storage import open_file, read_range

END_OF_SHARD = bytes(2 * tarfile.BLOCKSIZE)
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5\x2f\xfd")  # how gzip, bzip2, xz and Zstandard begin


class TarError(DataError):
    """A shard is damaged or cut off, or not a tar file."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a shard, and where its bytes are."""

    name: str
    offset: int
    size: int
    read: Callable[[], bytes] = field(repr=False, compare=False)
    """Its bytes, until a later member is asked for."""


def members(shard: str, *, stream: bool = False) -> Iterator[Member]:
    """The files in a tar shard, in its order.

    Args:
        shard: a path or an address.
        stream: read it from beginning to end; it may then be compressed. Otherwise only headers are read, and what is
            asked for.

    Raises:
        TarError: it is not a tar file, is compressed, or ends too early; the files before that point come first.
        DataError: it can't be read.
    """
    with (
        _explained(shard, stream),
        open_file(shard) as file,
        tarfile.open(fileobj=file, mode="r|*" if stream else "r:") as tar,
    ):
        while (found := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # else it keeps them all
            if found.isreg() and not found.issparse():
                yield Member(found.name, found.offset_data, found.size, partial(_read, shard, stream, tar, found))


def image_members(shard: str, *, stream: bool = False) -> Iterator[Member]:
    """The images in a shard, the first of each name. Raises as `members`, and DataError if there are none."""
    names: set[str] = set()
    for member in members(shard, stream=stream):
        name = member.name.removeprefix("./")
        if is_image_name(name) and not is_passed_over(name) and name not in names:
            names.add(name)
            yield replace(member, name=name)
    if not names:
        raise DataError(f"{shard}: no image in this shard.", "Images are known by their suffix: .jpg, .png, ...")


def as_member(name: str, data: bytes) -> bytes:
    """The bytes of a file in a tar file, always the same: dates and owners are left out."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    return header.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def written_samples(shard: Path) -> Iterator[tuple[str, Any, int]]:
    """The complete samples of a shard that showtell wrote: key, JSON, the offset of the byte after them."""
    length = shard.stat().st_size
    try:
        for member in members(str(shard)):
            end = member.offset + member.size + -member.size % tarfile.BLOCKSIZE
            if member.name.endswith(".json") and end <= length:
                yield member.name.removesuffix(".json"), _json(member.read()), end
    except DataError:  # an interruption has cut it off here
        return


def _read(shard: str, stream: bool, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    with _explained(shard, stream):
        content = tar.extractfile(member)
        assert content is not None, "it is a regular file"
        return content.read()


@contextmanager
def _explained(shard: str, stream: bool) -> Iterator[None]:
    """Turn every error of a shard's readers into a DataError that names it."""
    try:
        yield
    except ShowtellError:
        raise
    except OSError as error:
        raise DataError(f"{shard} can't be read: {reason_of(error)}.") from None
    except Exception as error:  # tarfile, zlib and lzma have errors of their own
        if stream and shard.lower().endswith(".zst") and "zst" not in tarfile.TarFile.OPEN_METH:  # before Python 3.14
            raise TarError(f"{shard} is compressed with Zstandard.", "Unpack it, or use gzip, bzip2 or xz.") from None
        if not stream and read_range(shard, 0, 4).startswith(COMPRESSED):
            raise TarError(f"{shard} is compressed.", "Unpack it; the tar file itself is read in place.") from None
        raise TarError(f"{shard} is damaged or not a tar file: {reason_of(error)}.", "Fetch it again.") from error


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None
