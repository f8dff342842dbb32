"""Input, cut into parts: as many images as one worker captions into one file.

A shard is a part as it is: to cut it, one would have to read it. Loose files are cut as they come, tables between
their groups of rows. Anything that fsspec knows is an input: paths, and URLs such as s3://bucket/photos.
"""

import glob
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from showtell.errors import DataError, MissingExtraError, UsageError
from showtell.images.names import is_container_name, is_image_name, is_shard_name, is_table_name
from showtell.images.tables import row_groups, table_rows

WEB = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class Part:
    """Images that are captioned into one file."""

    kind: Literal["files", "shard", "rows"]
    names: tuple[str, ...] = ()
    """Of the images; of a shard's, nobody has looked."""
    where: str = ""
    """The shard or the table."""
    column: str = ""
    """Of the table, that holds the images."""
    first: int = 0
    """Number of the table's row that the first name is of."""

    def to_json(self) -> str:
        """On one line; bytes of file names that are no Unicode survive."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Part":
        """What `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "names": tuple(values["names"])})


def find_parts(inputs: Iterable[str], column: str | None, size: int, problems: list[DataError]) -> Iterator[Part]:
    """The parts of the input, each image once, in a fixed order.

    Args:
        inputs: files, folders (with all below them), globs, shards and tables, as paths or as URLs.
        column: of tables, the one that holds images; None to find it.
        size: images of a part.
        problems: gets what is wrong with inputs that hold no image.

    Raises:
        UsageError: a table has no such column, or there is no such kind of URL.
        MissingExtraError: a package is missing.
    """
    seen: set[str] = set()
    files: list[str] = []
    for asked in inputs:
        try:
            for name in _files_of(asked):
                if name in seen:
                    continue
                seen.add(name)
                if is_shard_name(name):
                    yield Part("shard", where=name)
                elif is_table_name(name):
                    yield from _parts_of_table(name, column, size)
                else:
                    files.append(name)
                if len(files) == size:
                    yield Part("files", tuple(files))
                    files.clear()
        except DataError as error:
            problems.append(error)
        except OSError as error:
            problems.append(DataError(f"{asked} can't be read: {error.strerror or error}."))
    if files:
        yield Part("files", tuple(files))


def opened(name: str, folder: str = "") -> tuple[Any, str]:
    """The fsspec file system that a path or URL is in, and its path there; `folder` is what paths are relative to.

    Raises:
        UsageError: there is no such kind of URL.
        MissingExtraError: fsspec is not installed.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise MissingExtraError("Captioning on a cluster", "bulk") from None
    try:
        file_system, path = url_to_fs(name if "://" in name else os.path.join(folder, name))  # noqa: PTH118
    except (ImportError, ValueError) as error:  # not installed, not known
        raise UsageError(f"{name} can't be opened: {str(error).rstrip('.')}.", "Look for its name in fsspec.") from None
    return file_system, path


def _files_of(asked: str) -> Iterator[str]:
    """The files that one input names: images, or files of many.

    Raises:
        DataError: there are none.
    """
    if asked.startswith(WEB) or (is_image_name(asked) and not glob.has_magic(asked)):
        yield asked  # whether it is there, who reads it will see
        return
    file_system, path = opened(asked)
    if file_system.isdir(path):
        empty = True
        for file in _images_in(file_system, path):
            empty = False
            yield _name(file_system, file, path, asked)
        if empty:
            raise DataError(f"{asked}: no image in this folder.", "Images are known by their suffix: .jpg, .png, ...")
    elif file_system.exists(path):
        yield asked
    elif not glob.has_magic(asked):
        raise DataError(f"{asked}: there is no such file.")
    else:
        # 'shards/*.tar' is of shards; but photos/* is of photos only.
        takes = is_container_name if is_container_name(path) else is_image_name
        matching = sorted(filter(takes, _matching(file_system, path, asked)))
        if not matching:
            raise DataError(f"{asked}: no image matches.")
        yield from matching


def _matching(file_system: Any, path: str, asked: str) -> list[str]:
    if "://" not in asked:
        return glob.glob(asked, recursive=True)  # noqa: PTH207 (absolute, too)
    return [_name(file_system, file, path, asked) for file in file_system.glob(path)]


def _images_in(file_system: Any, folder: str) -> Iterator[str]:
    """The images in a folder, sorted, then those of the folders below it; hidden ones are left out."""
    entries = sorted(file_system.ls(folder, detail=True), key=lambda entry: entry["name"])
    for entry in entries:
        if entry["type"] != "directory" and is_image_name(entry["name"]):
            yield entry["name"]
    for entry in entries:
        below = entry["name"].rstrip("/")
        hidden = PurePosixPath(below).name.startswith(".")
        if entry["type"] == "directory" and below != folder.rstrip("/") and not hidden and not entry.get("islink"):
            yield from _images_in(file_system, below)


def _name(file_system: Any, path: str, folder: str, asked: str) -> str:
    """What results call a file in a folder: as the command line would."""
    if "://" not in asked:
        return (str(Path(asked)) + path[len(folder) :]).removeprefix("./")
    _, separator, outer = asked.partition("::")  # zip://photos::s3://bucket/photos.zip
    return f"{file_system.unstrip_protocol(path)}{separator}{outer}"


def _parts_of_table(name: str, column: str | None, size: int) -> Iterator[Part]:
    file_system, path = opened(name)
    with file_system.open(path, "rb") as file:
        found, rows = table_rows(name, column, file)
        groups = row_groups(name, file)
    if not rows:
        raise DataError(f"{name}: this table has no rows.")
    first = end = 0
    for number, group in enumerate(groups, 1):
        end += group
        if end - first >= size or (number == len(groups) and end > first):
            yield Part("rows", tuple(f"{name}/{row}" for row in rows[first:end]), name, found, first)
            first = end
