"""Files on this disk or at an address that fsspec knows (https, s3, gs, hf, ...), and images that are parts of them.

Nothing is read whole: a range of bytes is asked for, so an image in a tar shard of a gigabyte costs what the image
weighs, wherever the shard lies.
"""

import io
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from showtell.errors import DataError, MissingExtraError, UsageError

TRIES = 4  # to read from a network
PAUSE = 1.0  # seconds before the second try; doubled for each that follows
BLOCK = 8 * 2**20
"""So much of a remote file comes at a time when all of it is read."""
VERSION_KEYS = ("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "updated", "mtime", "commit_hash")

logger = logging.getLogger(__name__)


class Stored(Protocol):
    """The bytes of one image file, in something that holds many."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def container(self) -> str:
        """What holds it: a path or an address."""

    @property
    def stamp(self) -> str:
        """Something that changes when the image does, and not when its container is copied."""

    @property
    def in_order_only(self) -> bool:
        """Whether reading images in another order than that of the data set is very slow."""

    def read(self) -> bytes:
        """The file. Raises DataError when it can't be had now."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A file within a file, at `offset`, of `length` bytes."""

    name: str
    container: str
    offset: int
    length: int

    @property
    def stamp(self) -> str:
        """Its length."""
        return str(self.length)

    @property
    def in_order_only(self) -> bool:
        """Never."""
        return False

    def read(self) -> bytes:
        """The bytes. Raises DataError when they can't be had now."""
        return read_range(self.container, self.offset, self.length)


class NamedBytes(io.BytesIO):
    """A file in memory that messages call by its name."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def is_remote(file: str) -> bool:
    """Whether it is an address and no path."""
    return "://" in file


def size_and_version(file: str) -> tuple[int, str]:
    """How long a file is, and something that changes when it is written again.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: nobody says how long it is.
    """
    if not is_remote(file):
        found = Path(file).stat()
        return found.st_size, str(found.st_mtime_ns)
    system, path = _file_system(file)
    info = _tried(file, lambda: system.info(path))
    if not isinstance(info.get("size"), int):
        raise DataError(f"{file} can't be read in parts: its server does not say how long it is.", _DOWNLOAD)
    return info["size"], str(next((info[key] for key in VERSION_KEYS if info.get(key)), ""))


def read_range(file: str, offset: int, length: int) -> bytes:
    """Some bytes of a file; fewer where it ends before.

    Raises:
        DataError: they can't be had, on a network after a few tries.
    """
    if not is_remote(file):
        try:
            with Path(file).open("rb", buffering=0) as opened:
                opened.seek(offset)
                return opened.read(length)
        except OSError as error:
            raise DataError(f"{file} can't be read: {error.strerror}.") from error
    system, path = _file_system(file)
    found: bytes = _tried(file, lambda: system.cat_file(path, start=offset, end=offset + length))
    if len(found) > length:
        raise DataError(f"{file} can't be read in parts: its server sends it whole.", _DOWNLOAD)
    return found


def open_file(file: str) -> BinaryIO:
    """A file open for reading from its beginning to its end. Raises OSError, and DataError while it is read."""
    if not is_remote(file):
        return Path(file).open("rb")
    return io.BufferedReader(_RemoteFile(file), BLOCK)


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


def _file_system(file: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise MissingExtraError("Reading from a network", "shards") from None
    try:
        system, path = fsspec.core.url_to_fs(file)
    except ValueError as error:
        raise UsageError(f"{file} is no address that can be read: {error}.") from None
    except ImportError as error:  # fsspec says which package knows this kind of address
        raise UsageError(f"{file} can't be read: {error}") from None
    return system, path


def _tried(file: str, ask: Callable[[], Any]) -> Any:
    """What `ask` returns, tried a few times. Raises FileNotFoundError, DataError."""
    for number in range(1, TRIES + 1):
        try:
            return ask()
        except FileNotFoundError:
            raise
        except Exception as error:  # each file system has its own
            reason = " ".join(str(error).split()) or type(error).__name__
            if number == TRIES:
                raise DataError(f"{file} can't be read: {reason}.", "Run the command again to go on.") from error
            logger.info("%s: %s; trying again", file, reason)
            time.sleep(PAUSE * 2 ** (number - 1))
    raise AssertionError("the last try returns or raises")
