"""Image files, wherever they are kept, and the bytes of files on this disk or at an address.

Addresses are those that fsspec knows (https, s3, gs, hf, ...). Only the needed range of bytes is read: an image in a
tar shard of a gigabyte costs only the image's own size, wherever the shard is.
"""

import io
import logging
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from showtell.errors import DataError, ImageError, ShowtellError, UsageError, needs, reason_of
from showtell.images.names import WEB, is_remote
from showtell.images.urls import Unanswered, fetch

STDIN = "-"
LARGEST = 64 * 2**20  # bytes of an image that comes over a network, or out of a stream
TRIES = 4  # to read from a network
PAUSE = 1.0  # seconds before the second try; doubled for each that follows
BLOCK = 8 * 2**20
"""How much of a remote file is read at a time when all of it is read."""
VERSION_KEYS = ("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "updated", "mtime", "commit_hash")
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)  # trying again won't help

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class StoredImage(ABC):
    """One image file, wherever it is kept.

    Attributes:
        name: its name in results and messages; no other image of a run has the same.
    """

    __slots__ = ()
    name: str

    @property
    def path(self) -> Path | None:
        """Its own file on this disk; None if it has none."""
        return None

    @abstractmethod
    def read(self) -> bytes:
        """The file. Raises ImageError; DataError if its container can't be read now."""

    def source(self) -> str | BinaryIO:
        """What `read_image` takes. Raises as `read`."""
        return NamedBytes(self.read(), self.name)


class ContainedImage(StoredImage):
    """An image in a file of many, which a later run recognises.

    Attributes:
        container: the path or address of the file that holds it.
    """

    __slots__ = ()
    container: str

    @property
    def in_order_only(self) -> bool:
        """Whether it is very slow to read images in a different order from that of their container."""
        return False

    @property
    @abstractmethod
    def stamp(self) -> str:
        """A text that changes with the image, but not when its container is copied."""


@dataclass(frozen=True, slots=True)
class ImageFile(StoredImage):
    """An image that is a file of its own: on this disk, at an address, or `-` for stdin."""

    name: str

    @property
    def path(self) -> Path | None:
        """The file, if it is on this disk."""
        return None if self.name == STDIN or is_remote(self.name) else Path(self.name)

    def read(self) -> bytes:
        """The file; stdin can be read once."""
        return _stdin() if self.name == STDIN else read_file(self.name)

    def source(self) -> str | BinaryIO:
        """The path of a file on this disk, so that only what is needed is read."""
        if self.path is not None:
            return self.name
        return NamedBytes(self.read(), "stdin" if self.name == STDIN else self.name)


@dataclass(frozen=True, slots=True)
class ByteRange(ContainedImage):
    """An image within a file, at `offset`, of `length` bytes."""

    name: str
    container: str
    offset: int
    length: int

    @property
    def stamp(self) -> str:
        return str(self.length)

    def read(self) -> bytes:
        """The range. Raises DataError; ImageError if the container ends within it."""
        data = read_range(self.container, self.offset, self.length)
        if len(data) < self.length:
            raise ImageError(f"{self.name} is cut off: its shard ends within it.")
        return data


@dataclass(frozen=True, slots=True)
class ImageBytes(StoredImage):
    """An image whose bytes are in memory, or the error in their place."""

    name: str
    data: bytes | ShowtellError

    def read(self) -> bytes:
        """The bytes. Raises the error in their place."""
        if isinstance(self.data, ShowtellError):
            raise self.data
        return self.data


class NamedBytes(io.BytesIO):
    """A file in memory, with the name that messages use."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def read_file(file: str) -> bytes:
    """All of an image file.

    Raises:
        ImageError: an address can't be fetched, or holds more than `LARGEST` bytes.
        DataError: it can't be read.
    """
    if file.startswith(WEB):
        return retried(file, lambda: fetch(file, LARGEST, trusted=True))
    if not is_remote(file):
        try:
            return Path(file).read_bytes()
        except OSError as error:
            raise _unreadable(file, error) from error
    data = read_range(file, 0, LARGEST + 1)
    if len(data) > LARGEST:
        raise too_large(file)
    return data


def read_range(file: str, offset: int, length: int) -> bytes:
    """Some bytes of a file; fewer if it ends before.

    Raises:
        DataError: they can't be read, on a network after a few tries.
    """
    try:
        if not is_remote(file):
            with Path(file).open("rb", buffering=0) as opened:
                opened.seek(offset)
                return opened.read(length)
        system, path = file_system(file)
        found: bytes = retried(file, lambda: system.cat_file(path, start=offset, end=offset + length))
    except OSError as error:
        raise _unreadable(file, error) from error
    if len(found) > length:
        raise DataError(f"{file} can't be read in parts: its server sends it whole.", _DOWNLOAD)
    return found


def size_and_version(file: str) -> tuple[int, str]:
    """The length of a file, and a text that changes when the file is written again.

    Raises:
        OSError: there is no such file, or it may not be read.
        DataError: its length is unknown.
    """
    if not is_remote(file):
        found = Path(file).stat()
        return found.st_size, str(found.st_mtime_ns)
    system, path = file_system(file)
    info = retried(file, lambda: system.info(path))
    if not isinstance(info.get("size"), int):
        raise DataError(f"{file} can't be read in parts: its server does not say how long it is.", _DOWNLOAD)
    return info["size"], str(next((info[key] for key in VERSION_KEYS if info.get(key)), ""))


def open_file(file: str) -> BinaryIO:
    """A file open for reading, in any order. Raises OSError, and DataError while it is read."""
    if not is_remote(file):
        return Path(file).open("rb")
    return io.BufferedReader(_RemoteFile(file), BLOCK)


def file_system(file: str, extra: str = "shards") -> tuple[Any, str]:
    """The fsspec file system that a path or address is in, and its path there; `extra` is what installs fsspec.

    Raises:
        UsageError: there is no such kind of address.
        MissingExtraError: fsspec is not installed.
    """
    with needs(extra, "Reading remote files"):
        from fsspec.core import url_to_fs
    try:
        system, path = url_to_fs(file)
    except ValueError as error:
        raise UsageError(f"{file} is not an address that can be read: {reason_of(error)}.") from None
    except ImportError as error:  # fsspec says which package knows this kind of address
        raise UsageError(f"{file} can't be read: {error}") from None
    return system, path


def retried(file: str, ask: Callable[[], Result]) -> Result:
    """What `ask` returns; errors that may come from the network are tried again.

    Raises:
        OSError: there is no such file, or it may not be read.
        ShowtellError: from `ask`.
        DataError: the last try failed, too.
    """
    for number in range(1, TRIES + 1):
        try:
            return ask()
        except Exception as error:  # each library that fsspec calls has its own
            passes = not isinstance(error, (*FINAL, ShowtellError)) or isinstance(error, Unanswered)
            if not passes or (number == TRIES and isinstance(error, ShowtellError)):
                raise
            if number == TRIES:
                raise _unreadable(file, error, "Run the command again to continue.") from error
            logger.info("%s: %s; trying again", file, reason_of(error))
            time.sleep(PAUSE * 2 ** (number - 1))
    raise AssertionError("the last try returns or raises")


def too_large(name: str) -> ImageError:
    """The error for an image of more than `LARGEST` bytes."""
    return ImageError(f"{name} is larger than {LARGEST / 2**20:.3g} MiB.")


class _RemoteFile(io.RawIOBase):
    """A remote file, read range by range."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._size, _ = size_and_version(file)
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, room: Any) -> int:
        length = min(len(room), self._size - self._place)
        if length <= 0:
            return 0
        found = read_range(self._file, self._place, length)
        room[: len(found)] = found
        self._place += len(found)
        return len(found)


_DOWNLOAD = "Download it and name the local file."


def _stdin() -> bytes:
    """One image from stdin. Raises ImageError when nothing came."""
    data = sys.stdin.buffer.read()
    if not data:
        raise ImageError("Stdin is empty.", "For '-', send one image: showtell caption - < photo.jpg")
    return data


def _unreadable(file: str, error: Exception, way_out: str = "") -> DataError:
    unsaid = isinstance(error, FileNotFoundError) and not error.strerror  # fsspec's: only the path
    reason = "there is no such file" if unsaid else reason_of(error)
    return DataError(f"{file} can't be read: {reason}.", way_out)
