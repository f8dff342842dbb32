"""Input, cut into parts: as many images as one worker captions into one file.

A shard is one part: to cut it, one would have to read it. Loose files are cut in the order in which they come, tables
between their groups of rows.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from showtell.errors import DataError, ShowtellError
from showtell.images.names import is_shard_name, is_table_name
from showtell.images.sources import Finder
from showtell.images.storage import LARGEST, STDIN, ImageBytes, ImageFile, StoredImage, too_large
from showtell.images.tables import read_rows, row_groups, table_rows
from showtell.images.tar import image_members


@dataclass(frozen=True, slots=True)
class Part:
    """Images that are captioned into one file."""

    kind: Literal["files", "shard", "rows"]
    names: tuple[str, ...] = ()
    """The images' names; empty for a shard, which nobody has read yet."""
    where: str = ""
    """The shard or the table."""
    column: str = ""
    """The table's column that holds the images."""
    first: int = 0
    """Number of the table's row that belongs to the first name."""

    def to_json(self) -> str:
        """On one line; bytes of file names that are not Unicode survive."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Part":
        values = json.loads(text)
        return cls(**{**values, "names": tuple(values["names"])})


def find_parts(names: Iterable[str], column: str | None, size: int, finder: Finder) -> Iterator[Part]:
    """The parts of the input, each image once, in a fixed order.

    Args:
        names: files, folders (with all below them), globs, shards and tables, as paths or as addresses.
        column: the tables' column that holds images; None to find it.
        size: images in a part.
        finder: goes through the folders, and collects what is wrong with names that hold no image.

    Raises:
        UsageError: a table has no such column, or there is no such kind of address.
        MissingExtraError: a package is missing.
    """
    files: list[str] = []
    for name in finder.files(names):
        if is_shard_name(name):
            yield Part("shard", where=name)
        elif is_table_name(name):
            try:
                yield from _parts_of_table(name, column, size)
            except DataError as error:
                finder.problems.append(error)
        elif name == STDIN:
            finder.problems.append(DataError("-: a cluster can't read this machine's stdin.", "Name a file."))
        else:
            files.append(name)
        if len(files) == size:
            yield Part("files", tuple(files))
            files.clear()
    if files:
        yield Part("files", tuple(files))


def images_of(part: Part) -> Iterator[StoredImage]:
    """The images of a part, in order. An image that can't be read gives its own error and does not stop the others.

    Loose files are read when `read` is called, on any thread; shards and tables while this generator runs. If a shard
    breaks off, the last image is the shard itself, with the reason.
    """
    if part.kind == "files":
        yield from map(ImageFile, part.names)
    elif part.kind == "rows":
        rows = range(part.first, part.first + len(part.names))
        for name, data in zip(part.names, read_rows(part.where, part.column, rows), strict=True):
            yield ImageBytes(name, data)
    else:
        try:
            for member in image_members(part.where, stream=True):
                name = f"{part.where}/{member.name}"
                yield ImageBytes(name, too_large(name) if member.size > LARGEST else member.read())
        except ShowtellError as error:
            yield ImageBytes(part.where, error)


def _parts_of_table(name: str, column: str | None, size: int) -> Iterator[Part]:
    found, rows = table_rows(name, column)
    groups = row_groups(name)
    first = end = 0
    for number, group in enumerate(groups, 1):
        end += group
        if end - first >= size or (number == len(groups) and end > first):
            yield Part("rows", tuple(f"{name}/{row}" for row in rows[first:end]), name, found, first)
            first = end
