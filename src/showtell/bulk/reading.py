"""The images of a part, in its order; one that can't be read is an error of its own, and the others go on."""

import io
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, TypeVar

from showtell.bulk.parts import Part, opened
from showtell.errors import ImageError, ShowtellError
from showtell.images.names import is_image_name
from showtell.images.tables import read_rows

LARGEST = 64 * 2**20  # bytes of one image
WAITS = (1.0, 4.0)  # seconds before what a network broke is tried again
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)  # trying again won't help

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a part."""

    name: str
    content: Callable[[], bytes]

    def read(self) -> BinaryIO:
        """Its file, as one that errors call by its name. Raises ImageError."""
        file = io.BytesIO(self.content())
        file.name = self.name
        return file


def images_of(part: Part, folder: str) -> Iterator[Image]:
    """The images of a part. Loose files are read when `read` is called, on any thread; shards and tables, in order.

    Args:
        part: the part.
        folder: what paths are relative to.
    """
    if part.kind == "files":
        for name in part.names:
            yield Image(name, _reading(name, folder))
    elif part.kind == "shard":
        yield from _members(part.where, folder)
    else:
        yield from _rows(part, folder)


def _reading(name: str, folder: str) -> Callable[[], bytes]:
    def content() -> bytes:
        file_system, path = opened(name, folder)
        with file_system.open(path, "rb") as file:
            data: bytes = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise _too_large(name)
        return data

    return lambda: _patiently(name, content)


def _rows(part: Part, folder: str) -> Iterator[Image]:
    file_system, path = opened(part.where, folder)
    try:
        file = _patiently(part.where, lambda: file_system.open(path, "rb"))
    except ImageError as error:
        yield from (Image(name, _raising(error)) for name in part.names)
        return
    with file:
        rows = range(part.first, part.first + len(part.names))
        for name, data in zip(part.names, read_rows(part.where, part.column, rows, file), strict=True):
            yield Image(name, _raising(data) if isinstance(data, ImageError) else _giving(data))


def _members(shard: str, folder: str) -> Iterator[Image]:
    """The images in a shard; where it breaks off, the last one is the shard itself, with the reason."""
    given = 0
    for wait in (*WAITS, None):
        try:
            for image in islice(_streamed(shard, folder), given, None):
                given += 1
                yield image
            if not given:
                yield Image(shard, _raising(ImageError(f"{shard}: no image in this shard.")))
            return
        except (tarfile.TarError, EOFError) as error:
            yield Image(shard, _raising(_no_tar(shard, error)))
            return
        except Exception as error:  # of a library that reads from a network
            if wait is None or isinstance(error, FINAL):
                yield Image(shard, _raising(_unreadable(shard, error)))
                return
            time.sleep(wait)


def _no_tar(shard: str, error: Exception) -> ImageError:
    if shard.lower().endswith(".zst") and "zst" not in tarfile.TarFile.OPEN_METH:  # before Python 3.14
        return ImageError(f"{shard} is compressed with Zstandard.", "Unpack it, or use gzip, bzip2 or xz.")
    return ImageError(f"{shard} is damaged or no tar file: {error}.")


def _streamed(shard: str, folder: str) -> Iterator[Image]:
    file_system, path = opened(shard, folder)
    seen: set[str] = set()
    with file_system.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # else it keeps them all
            name = f"{shard}/{member.name.removeprefix('./')}"
            if not member.isreg() or member.issparse() or not is_image_name(member.name) or name in seen:
                continue
            seen.add(name)
            if member.size > LARGEST:
                yield Image(name, _raising(_too_large(name)))
            elif (content := tar.extractfile(member)) is not None:
                yield Image(name, _giving(content.read()))


def _patiently(name: str, read: Callable[[], Result]) -> Result:
    """What `read` returns; what may be a network's fault is tried again. Raises ImageError."""
    for wait in (*WAITS, None):
        try:
            return read()
        except ShowtellError:
            raise
        except Exception as error:  # each library that fsspec calls has its own
            if wait is None or isinstance(error, FINAL):
                raise _unreadable(name, error) from None
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _unreadable(name: str, error: Exception) -> ImageError:
    reason = error.strerror if isinstance(error, OSError) else None
    return ImageError(f"{name} can't be read: {reason or str(error).rstrip('.') or type(error).__name__}.")


def _too_large(name: str) -> ImageError:
    return ImageError(f"{name} is larger than {LARGEST // 2**20} MiB.")


def _giving(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def _raising(error: ImageError) -> Callable[[], bytes]:
    def content() -> bytes:
        raise error

    return content
