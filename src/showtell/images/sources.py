"""From the names that a user gives to images: files, folders, globs, addresses, stdin, tar shards, Parquet tables.

`Finder` is the only code that walks through folders, on this disk and over fsspec. `find_images` lists images without
opening one, and each `StoredImage` reads itself.
"""

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from showtell.errors import DataError
from showtell.files import as_text
from showtell.images.names import (
    WEB,
    as_on_disk,
    is_container_name,
    is_image_name,
    is_passed_over,
    is_remote,
    is_shard_name,
    is_table_name,
)
from showtell.images.storage import STDIN, ByteRange, ImageFile, StoredImage, file_system, retried
from showtell.images.tables import TableImage, table_rows
from showtell.images.tar import image_members

FOLDERS, FILES, PIPES = "hidden or system folder", "hidden file", "pipe or device"


class Entry(NamedTuple):
    name: str
    path: str
    """The path, with the folder as the user wrote it."""
    kind: str
    """`folder`, `link` (to a folder), `file`, or a word for something else."""


class Finder:
    """Finds the files that names refer to, each once and in a fixed order.

    Hidden and system files and folders are passed over, unless the user names them. Links to folders are followed,
    but no folder is searched twice.

    Attributes:
        problems: errors about names that refer to nothing and folders that can't be read.
    """

    def __init__(self, takes: Callable[[str], bool] = is_image_name) -> None:
        self.problems: list[DataError] = []
        self._takes = takes
        self._passed_over: dict[str, list[str]] = {}
        self._folders: set[object] = set()  # those that were searched

    def files(self, asked: Iterable[str]) -> Iterator[str]:
        """The images and containers of images that files, folders, globs, addresses and `-` refer to.

        Raises:
            UsageError: there is no such kind of address.
            MissingExtraError: fsspec is not installed.
        """
        seen: set[str] = set()
        for name in asked:
            try:
                for file in self._files_of(name):
                    if file not in seen:
                        seen.add(file)
                        yield file
            except DataError as error:
                self.problems.append(error)
            except OSError as error:
                self.problems.append(DataError(f"{name} can't be read: {error.strerror or error}."))

    def files_in(self, folder: str) -> Iterator[str]:
        """The files in a folder, sorted, then those in the folders below it; linked folders come last."""
        links: list[str] = []
        yield from self._walk(folder if is_remote(folder) else str(Path(folder)), links)
        while links:
            yield from self._walk(links.pop(0), links)

    def passed_over(self) -> str:
        """A sentence on what was passed over; empty if nothing was."""
        said = [
            f"{len(paths):,} {kind}{'s' * (len(paths) > 1)} ({paths[0]}{', ...' * (len(paths) > 1)})"
            for kind, paths in self._passed_over.items()
        ]
        return f"Skipped: {', '.join(said)}." if said else ""

    def notes(self) -> list[str]:
        """What was passed over and what is wrong, each in a sentence."""
        return [note for note in (self.passed_over(), *map(str, self.problems)) if note]

    def _pass_over(self, kind: str, path: str) -> None:
        self._passed_over.setdefault(kind, []).append(path)

    def _files_of(self, asked: str) -> Iterator[str]:
        """The files that one name refers to. Raises DataError if there are none, OSError."""
        magic = glob.has_magic(asked)
        if asked == STDIN or asked.startswith(WEB) or (is_remote(asked) and is_image_name(asked) and not magic):
            yield asked  # its reader will see whether it exists
            return
        if is_remote(asked):
            system, path = file_system(asked)
            is_folder, is_there = system.isdir(path), system.exists(path)
        else:  # os.path, not Path: a name that is too long is one bad input, not an exception
            is_folder, is_there = os.path.isdir(asked), os.path.lexists(asked)  # noqa: PTH112
        if is_folder:
            if _identity(asked) in self._folders:
                return
            before, empty = len(self.problems), True
            for file in self.files_in(asked):
                empty = False
                yield file
            if empty and len(self.problems) == before:
                raise DataError(
                    f"{asked}: no image in this folder.", "Images are known by their suffix: .jpg, .png, ..."
                )
        elif is_there:
            yield asked
        elif magic:
            matching = self._matching(asked)
            if not matching:
                raise DataError(f"{asked}: no image matches.")
            yield from matching
        else:
            spelled = None if is_remote(asked) else next(as_on_disk([Path(asked)]))
            if spelled is None:
                raise DataError(f"{asked}: there is no such file.")
            yield from self._files_of(str(spelled))

    def _matching(self, pattern: str) -> list[str]:
        """The files that a glob matches: 'shards/*.tar' gives shards, but photos/* gives photos only."""
        takes = is_container_name if is_container_name(pattern) else self._takes
        parts = Path(pattern).parts
        if is_remote(pattern):
            system, path = file_system(pattern)
            found = [_address(system, file, pattern) for file in retried(pattern, lambda: system.glob(path))]
        elif "**" in parts:  # Python's glob would follow a link upwards for ever
            inner = Finder(takes)
            inner.problems, inner._passed_over = self.problems, self._passed_over
            start = parts.index("**")
            found = [
                file
                for folder in filter(os.path.isdir, glob.glob(str(Path(*parts[:start]))))  # noqa: PTH207
                for file in inner.files_in(folder)
                if _matches(Path(file).relative_to(folder).parts, parts[start:])
            ]
        else:
            found = glob.glob(pattern)  # noqa: PTH207
        matching = []
        for file in sorted(filter(takes, found)):
            if is_passed_over(file, pattern):
                self._pass_over(FILES, file)
            elif not is_remote(file) and os.path.exists(file) and not os.path.isfile(file):  # noqa: PTH110, PTH113
                self._pass_over(PIPES, file)
            else:
                matching.append(file)
        return matching

    def _walk(self, folder: str, links: list[str]) -> Iterator[str]:
        """The files in a folder and below it; linked folders are added to `links` instead."""
        try:
            identity = _identity(folder)
            entries = [] if identity in self._folders else sorted(_entries(folder))
        except OSError as error:
            self.problems.append(DataError(f"{folder}: this folder can't be read ({error.strerror})."))
            return
        except DataError as error:  # at an address
            self.problems.append(error)
            return
        self._folders.add(identity)
        below: list[str] = []
        for entry in entries:
            is_folder = entry.kind in ("folder", "link")
            if not is_folder and not self._takes(entry.name):
                continue
            if is_passed_over(entry.name):
                self._pass_over(FOLDERS if is_folder else FILES, entry.path)
            elif is_folder:
                (below if entry.kind == "folder" else links).append(entry.path)
            elif entry.kind == "file":
                yield entry.path
            else:
                self._pass_over(entry.kind, entry.path)
        for each in below:
            yield from self._walk(each, links)


def find_images(names: Iterable[str], column: str | None = None) -> tuple[list[StoredImage], Finder]:
    """The images that `names` refer to, each once, in a fixed order; and the finder, which knows all problems.

    Args:
        names: files, folders, globs, addresses, shards, tables; `-` is stdin.
        column: the column of tables that holds images; None to find it.

    Raises:
        UsageError: a table has no such column, or there is no such kind of address.
        MissingExtraError: tables or addresses can't be read here.
    """
    found: dict[str, StoredImage] = {}
    finder = Finder()
    for file in finder.files(names):
        try:
            for image in _images_of(file, column):
                found.setdefault(image.name, image)
        except DataError as error:
            finder.problems.append(error)
    return list(found.values()), finder


def listed_names(path: str) -> list[str]:
    """The lines of a file, or of stdin for ``-``: one input per line; empty lines are skipped.

    Raises:
        DataError: the file can't be read.
    """
    try:
        data = sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"The list {path} can't be read: {error.strerror}.") from None
    try:
        lines = as_text(data, sys.getfilesystemencoding(), "surrogateescape").split("\n")
    except UnicodeDecodeError:
        raise DataError(f"The list {path} begins like UTF-16 but is not.", "Convert it to UTF-8.") from None
    return [line for line in lines if line.strip()]


def _images_of(file: str, column: str | None) -> Iterator[StoredImage]:
    """The image in a file, or the images in a container. Raises DataError if there are none, or none any more."""
    if is_shard_name(file):
        for member in image_members(file):
            yield ByteRange(f"{file}/{member.name}", file, member.offset, member.size)
    elif is_table_name(file):
        found, rows = table_rows(file, column)
        for number, row in enumerate(rows):
            yield TableImage(f"{file}/{row}", file, found, number)
    else:
        yield ImageFile(file)


def _entries(folder: str) -> list[Entry]:
    """What is in a folder. Raises OSError."""
    if not is_remote(folder):
        inside = "" if folder == "." else folder
        with os.scandir(folder) as entries:
            return [Entry(e.name, os.path.join(inside, e.name), _kind(e)) for e in entries]  # noqa: PTH118
    system, path = file_system(folder)
    kinds = {"directory": "folder", "file": "file"}
    return [
        # Links are not followed there: their targets are unknown.
        Entry(
            below.rpartition("/")[2],
            _address(system, below, folder),
            "remote link" if entry.get("islink") else kinds.get(entry["type"], PIPES),
        )
        for entry in retried(folder, lambda: system.ls(path, detail=True))
        if (below := entry["name"].rstrip("/")) != path.rstrip("/")
    ]


def _kind(entry: "os.DirEntry[str]") -> str:
    if not entry.is_symlink():
        return "folder" if entry.is_dir() else "file" if entry.is_file() else PIPES
    if os.path.isdir(entry):  # noqa: PTH112
        return "link"
    # A broken link counts as a file: its reader says what is wrong.
    return "file" if os.path.isfile(entry) or not os.path.exists(entry) else PIPES  # noqa: PTH110, PTH113


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path match the parts of a glob."""
    if not pattern:
        return not path
    if pattern[0] == "**" and _matches(path, pattern[1:]):
        return True
    here = bool(path) and fnmatchcase(path[0], pattern[0])
    return here and _matches(path[1:], pattern if pattern[0] == "**" else pattern[1:])


def _identity(folder: str) -> object:
    """A value that is the same for all names of one folder."""
    if is_remote(folder):
        return folder.rstrip("/")
    found = os.stat(folder or ".")  # noqa: PTH116
    return found.st_dev, found.st_ino


def _address(system: Any, path: str, asked: str) -> str:
    """The address of a path in a file system, written like `asked`: zip://photos::s3://bucket/photos.zip."""
    _, separator, outer = asked.partition("::")
    return f"{system.unstrip_protocol(path)}{separator}{outer}"
