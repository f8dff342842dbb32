"""What a name says about its file, wherever that is; how names are written, and found again on a disk."""

import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePath
from unicodedata import normalize

from showtell.images.decode import SUFFIXES

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")  # read, or refused with a reason
TABLE_SUFFIXES = (".parquet", ".pq")
WEB = ("http://", "https://")
LIKE_AN_ESCAPE = re.compile(r"\\(?=x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")

# Folders that a NAS, a recycle bin, an archiver or a disk keeps for itself: thumbnails, deleted photos, fragments.
SYSTEM_FOLDERS = frozenset(
    {"@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler", "recycled"}
    | {"system volume information", "found.000", "lost+found", "network trash folder", "temporary items", "__macosx"}
)


def is_image_name(name: str) -> bool:
    """Whether a file has the suffix of an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 (of 100,000 names)


def is_shard_name(name: str) -> bool:
    """Whether a file is a tar shard."""
    return name.lower().endswith(SHARD_SUFFIXES)


def is_table_name(name: str) -> bool:
    """Whether a file is a table of images."""
    return name.lower().endswith(TABLE_SUFFIXES)


def is_container_name(name: str) -> bool:
    """Whether a file holds many images."""
    return is_shard_name(name) or is_table_name(name)


def is_remote(name: str) -> bool:
    """Whether it is an address, not a path."""
    return "://" in name


def is_passed_over(path: str, asked: str = "") -> bool:
    """Whether a file or folder, or a folder that contains it, is hidden or belongs to the system.

    What the user has named in the path or glob `asked` is not passed over.
    """
    named = [part for part in PurePath(asked).parts if part[0] not in "*?["]
    return any(
        (part.startswith(".") and part != "..") or part.lower() in SYSTEM_FOLDERS
        for part in PurePath(path).parts
        if not any(fnmatchcase(part, each) for each in named)
    )


def writable(name: str) -> str:
    r"""The name in Unicode: other bytes become `\xe8`, and a backslash that looks like the start of one `\x5c`.

    Different names stay different: finished work is recognised by them.
    """
    return os.fsencode(LIKE_AN_ESCAPE.sub(r"\\x5c", name)).decode("utf-8", "backslashreplace")


def printable(name: str) -> str:
    """The name on one line: as `writable`, with characters that move a terminal's cursor escaped, too."""
    return on_one_line(writable(name))


def on_one_line(name: str) -> str:
    """What `writable` returned, as `printable` has it."""
    return "".join(c if c.isprintable() else _escape(ord(c)) for c in name)


def _escape(code: int) -> str:
    r"""The escape of a character; `\x80` to `\xff` are left for bytes."""
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def as_on_disk(paths: Iterable[Path]) -> Iterator[Path | None]:
    """Each path as the disk spells it, None if it does not exist; a folder is listed once for all its files.

    A Mac writes é as e and an accent (NFD), while people mostly type one letter (NFC): both are the same name.
    """

    @cache
    def names_in(folder: Path) -> tuple[Path, dict[str, str]]:
        there = folder if folder.is_dir() or folder == folder.parent else found(folder) or folder
        names = [entry.name for entry in there.iterdir()] if there.is_dir() else []
        return there, {normalize("NFC", name): name for name in names} | {name: name for name in names}

    def found(path: Path) -> Path | None:
        folder, names = names_in(path.parent)
        name = names.get(path.name) or names.get(normalize("NFC", path.name))
        return None if name is None else folder / name

    return map(found, paths)
