"""What stands behind a command line's inputs: files, folders, globs, URLs, stdin, tar shards and Parquet tables.

`find_inputs` lists the images without opening one; an `Input` reads its own. A table's rows must be read in order:
`ready` does that, for whoever goes through the list from its start.
"""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from itertools import groupby
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from showtell import __version__
from showtell.errors import DataError, ImageError
from showtell.files import as_text
from showtell.images.names import is_container_name, is_image_name, is_shard_name, is_table_name
from showtell.images.tables import read_rows, table_rows
from showtell.images.tar import member_bytes, named, shard_members

STDIN = "-"
URL_PREFIXES = ("http://", "https://")
URL_SAFE = "%:/?#[]@!$&'()*+,;="
URL_TIMEOUT = 20.0  # seconds without a byte
URL_LIMIT = 64 * 2**20  # bytes of one image


@dataclass(frozen=True, slots=True)
class Input:
    """One image of the command line, by the name that the results call it."""

    name: str

    def read(self) -> str | BinaryIO:
        """What `read_image` takes: the path of a file, or the bytes of a URL or of stdin under its name.

        Raises:
            ImageError: the URL can't be fetched, or stdin is empty.
        """
        if self.path is not None:
            return self.name
        return named(stdin_bytes(), "stdin") if self.name == STDIN else named(fetch(self.name), self.name)

    @property
    def path(self) -> Path | None:
        """The image's file; None if it has none of its own."""
        return None if self.name == STDIN or self.name.startswith(URL_PREFIXES) else Path(self.name)


class Part(Input):
    """An image inside a file of many."""

    __slots__ = ()

    @property
    def path(self) -> None:
        """None: its file is not its alone."""


@dataclass(frozen=True, slots=True)
class Member(Part):
    """An image in a tar shard, called SHARD/MEMBER."""

    shard: str
    offset: int
    size: int

    def read(self) -> BinaryIO:
        """The member's bytes under its name. Raises ImageError."""
        return member_bytes(self.shard, self.name, self.offset, self.size)


@dataclass(frozen=True, slots=True)
class Row(Part):
    """An image in a Parquet table, called TABLE/ROW; `ready` makes it one that can be read."""

    table: str
    column: str
    row: int


@dataclass(frozen=True, slots=True)
class ReadRow(Part):
    """An image of a table whose bytes are there, or why they are not."""

    data: bytes | ImageError

    def read(self) -> BinaryIO:
        """The row's bytes under its name. Raises ImageError."""
        if isinstance(self.data, ImageError):
            raise self.data
        return named(self.data, self.name)


def find_inputs(names: Iterable[str], column: str | None = None) -> tuple[list[Input], list[DataError]]:
    """The images behind `names`, each once, in a fixed order; and what is wrong with names that hold none.

    Args:
        names: files, folders, globs, URLs, shards, tables; `-` is stdin.
        column: of tables, the one that holds images; None to find it.

    Raises:
        UsageError: a table has no such column.
        MissingExtraError: tables can't be read here.
    """
    found: dict[str, Input] = {}
    problems: list[DataError] = []
    for name in names:
        try:
            for image in _images_of(name, column, problems):
                found.setdefault(image.name, image)
        except DataError as error:
            problems.append(error)
    return list(found.values()), problems


def ready(images: Iterable[Input]) -> Iterator[Input]:
    """The same images, the rows of tables with their bytes, read as they are asked for."""
    for (table, column), group in groupby(images, key=_table_of):
        if table is None:
            yield from group
            continue
        rows = list(group)
        contents = read_rows(table, column, [image.row for image in rows if isinstance(image, Row)])
        for image, data in zip(rows, contents, strict=True):
            yield ReadRow(image.name, data)


def listed_names(path: str) -> list[str]:
    """The lines of a file, or of stdin for ``-``: one input a line; empty lines are skipped.

    Raises:
        DataError: the file can't be read.
    """
    try:
        data = sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"The list {path} can't be read: {error.strerror}.") from None
    lines = as_text(data, sys.getfilesystemencoding(), "surrogateescape").split("\n")
    return [line for line in lines if line.strip()]


def fetch(url: str) -> bytes:
    """The bytes behind a URL.

    Raises:
        ImageError: it can't be fetched, takes too long or is too large.
    """
    try:
        # A pasted URL may hold spaces and letters that a request line can't.
        request = Request(quote(url, safe=URL_SAFE), headers={"User-Agent": f"showtell/{__version__}"})
        with urlopen(request, timeout=URL_TIMEOUT) as answer:
            data: bytes = answer.read(URL_LIMIT + 1)
    except HTTPError as error:
        raise ImageError(f"{url} can't be fetched: the server answers {error.code} {error.reason}.") from None
    except URLError as error:
        raise ImageError(f"{url} can't be fetched: {error.reason}.") from None
    except TimeoutError:
        raise ImageError(f"{url} can't be fetched: no answer for {URL_TIMEOUT:.0f} s.") from None
    except (
        OSError,
        HTTPException,
        ValueError,
    ) as error:  # a connection that breaks off, a port that is no number
        raise ImageError(f"{url} can't be fetched: {error}.") from None
    if len(data) > URL_LIMIT:
        raise ImageError(f"{url} is larger than {URL_LIMIT // 2**20} MiB.", "Download it, and give the file.")
    return data


def stdin_bytes() -> bytes:
    """One image from stdin.

    Raises:
        ImageError: nothing came.
    """
    data = sys.stdin.buffer.read()
    if not data:
        raise ImageError("Stdin is empty.", "For '-', send one image: showtell caption - < photo.jpg")
    return data


def _images_of(name: str, column: str | None, problems: list[DataError]) -> Iterator[Input]:
    """The images behind one name; folders in it that can't be read are added to `problems`.

    Raises:
        DataError: there are none, or none any more.
    """
    if name == STDIN or name.startswith(URL_PREFIXES):
        yield Input(name)
    # os.path and not Path: a name that is too long or out of bounds is one bad input, and no exception.
    elif os.path.isdir(name):  # noqa: PTH112
        before = len(problems)
        empty = True
        for image in _images_in(name, problems):
            empty = False
            yield Input(image)
        if empty and len(problems) == before:
            raise DataError(f"{name}: no image in this folder.", "Images are known by their suffix: .jpg, .png, ...")
    elif os.path.lexists(name):
        yield from _images_of_file(name, column)
    elif not glob.has_magic(name):
        raise DataError(f"{name}: there is no such file.")
    else:
        # 'shards/*.tar' is of shards; but photos/* is of photos only.
        takes = is_container_name if is_container_name(name) else is_image_name
        matching = sorted(filter(takes, glob.glob(name, recursive=True)))  # noqa: PTH207 (absolute, too)
        if not matching:
            raise DataError(f"{name}: no image matches.")
        for match in matching:
            yield from _images_of_file(match, column)


def _images_of_file(name: str, column: str | None) -> Iterator[Input]:
    """The image that a file is, or those that it holds."""
    if is_shard_name(name):
        empty = True
        for member, offset, size in shard_members(name):
            if is_image_name(member):
                empty = False
                yield Member(f"{name}/{member}", name, offset, size)
        if empty:
            raise DataError(f"{name}: no image in this shard.", "Images are known by their suffix: .jpg, .png, ...")
    elif is_table_name(name):
        found, rows = table_rows(name, column)
        if not rows:
            raise DataError(f"{name}: this table has no rows.")
        for number, row in enumerate(rows):
            yield Row(f"{name}/{row}", name, found, number)
    else:
        yield Input(name)


def _images_in(folder: str, problems: list[DataError]) -> Iterator[str]:
    """The images in a folder and the folders below it, sorted; hidden ones are left out."""

    def unreadable(error: OSError) -> None:
        problems.append(DataError(f"{error.filename}: this folder can't be read ({error.strerror})."))

    for parent, folders, files in os.walk(str(Path(folder)), onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = "" if parent == "." else parent.removeprefix("./")
        yield from (os.path.join(inside, name) for name in sorted(files) if is_image_name(name))  # noqa: PTH118


def _table_of(image: Input) -> tuple[str | None, str]:
    return (image.table, image.column) if isinstance(image, Row) else (None, "")
