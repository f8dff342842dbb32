"""The folder of a bulk run's results, on a disk or wherever fsspec writes.

    part-000012.parquet        the captions of part 12, complete or not there at all
    _showtell/manifest.json    what the captions are made with; written when the list of parts is
    _showtell/parts.jsonl      the parts, one a line: the input as it was when the run began
    _showtell/attempts/        parts that workers are at, and how often that ended badly
    _showtell/unfinished/      files before they get their names

Readers of Parquet folders skip names that begin with `_`.
"""

import io
import json
import os
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from showtell.bulk.parts import Part
from showtell.errors import UsageError
from showtell.images.names import is_remote
from showtell.images.storage import file_system
from showtell.results.journal import refuse_others
from showtell.results.outputs import Row, write_parquet

OWN = "_showtell"
PART_FILE = re.compile(r"part-(\d+)\.parquet")


@dataclass
class Attempt:
    """What is known about the tries to caption a part, including this one."""

    tries: int = 1
    deaths: dict[int, int] = field(default_factory=dict)
    """Workers that died while they captioned an image, by its number in the part."""


class Results:
    """Reads and writes such a folder.

    Args:
        where: a path or a URL.

    Raises:
        UsageError: there is no such kind of URL.
        MissingExtraError: fsspec is not installed.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        place = where if is_remote(where) else os.path.abspath(where)  # noqa: PTH100
        self.file_system, root = file_system(place, "bulk")
        self.root = root.rstrip("/")
        self._own = f"{self.root}/{OWN}"

    def manifest(self) -> dict[str, Any] | None:
        """What the run in this folder is made with; None if none has begun.

        Raises:
            UsageError: the folder holds something else.
        """
        if (data := self._read(f"{self._own}/manifest.json")) is not None:
            manifest: dict[str, Any] = json.loads(data)
            return manifest
        with suppress(FileNotFoundError, NotADirectoryError):
            if any(entry.rstrip("/") != self._own for entry in self.file_system.ls(self.root, detail=False)):
                raise UsageError(f"{self.where} holds files that are not captions.", "Choose another --out.")
        return None

    def make_folders(self) -> None:
        """Make the folders that files are written to.

        Raises:
            UsageError: that is not possible.
        """
        try:
            for folder in ("attempts", "unfinished"):
                self.file_system.makedirs(f"{self._own}/{folder}", exist_ok=True)
        except (OSError, NotImplementedError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise UsageError(
                f"{self.where} can't be written: {reason or error or type(error).__name__}.", "Choose another --out."
            ) from None

    def begin(self, parts: Iterable[Part], made_with: Mapping[str, Any]) -> None:
        """Write the list of parts, and then, unless it is empty, what they are captioned with."""
        with self.file_system.open(self._list_of_parts, "wb") as file:
            written = sum(file.write(part.to_json().encode() + b"\n") for part in parts)
        if written:
            self._write(f"{self._own}/manifest.json", json.dumps(made_with, ensure_ascii=False, indent=1).encode())

    def check(self, made_with: Mapping[str, Any]) -> None:
        """Refuse to continue with other options.

        Raises:
            UsageError: they differ from the manifest's.
        """
        refuse_others(self.where, self.manifest() or {}, made_with, "choose another --out")

    def lines(self) -> list[tuple[int, int]]:
        """Where each part's line is in the list of parts: its first byte, and the one after its last."""
        places, end = [], 0
        with self.file_system.open(self._list_of_parts, "rb") as file:
            for line in file:
                places.append((end, end + len(line)))
                end += len(line)
        return places

    def part(self, first: int, end: int) -> Part:
        """The part in these bytes of the list of parts."""
        return Part.from_json(self.file_system.cat_file(self._list_of_parts, start=first, end=end))

    def done(self) -> set[int]:
        """The numbers of the parts whose files are there."""
        self.file_system.invalidate_cache()
        names = (name.rsplit("/", 1)[-1] for name in self.file_system.ls(self.root, detail=False))
        return {int(found[1]) for name in names if (found := PART_FILE.fullmatch(name))}

    def attempt(self, number: int) -> Attempt:
        """Note that this process tries to caption a part; return it with what earlier, unfinished tries have noted."""
        attempt = Attempt()
        if (data := self._read(self._attempt(number))) is not None:
            with suppress(
                ValueError, LookupError, TypeError
            ):  # half-written: the worker died there, which says nothing
                before = json.loads(data)
                attempt.deaths = {int(image): count for image, count in before["deaths"].items()}
                attempt.tries = before["tries"] + 1
                if (image := before["image"]) is not None:
                    attempt.deaths[image] = attempt.deaths.get(image, 0) + 1
        self.note(number, attempt)
        return attempt

    def note(self, number: int, attempt: Attempt, image: int | None = None) -> None:
        """Note which image of a part is captioned now, in case this process dies of it."""
        state = {"tries": attempt.tries, "deaths": attempt.deaths, "image": image}
        state |= {"host": socket.gethostname(), "pid": os.getpid()}
        self.file_system.pipe_file(self._attempt(number), json.dumps(state).encode())

    def finish(self, number: int, rows: Sequence[Row], made_with: Mapping[str, Any]) -> None:
        """Write a part's file, and replace any that is there."""
        file = io.BytesIO()
        write_parquet(file, rows, made_with, errors=True)
        self._write(f"{self.root}/part-{number:06}.parquet", file.getvalue())
        with suppress(FileNotFoundError):
            self.file_system.rm_file(self._attempt(number))

    def tidy(self) -> None:
        """Remove what killed workers have left."""
        for folder in ("attempts", "unfinished"):
            with suppress(FileNotFoundError):
                self.file_system.rm(f"{self._own}/{folder}", recursive=True)

    @property
    def _list_of_parts(self) -> str:
        return f"{self._own}/parts.jsonl"

    def _attempt(self, number: int) -> str:
        return f"{self._own}/attempts/{number:06}.json"

    def _read(self, path: str) -> bytes | None:
        try:
            data: bytes = self.file_system.cat_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return data

    def _write(self, path: str, data: bytes) -> None:
        """Write a file completely or not at all, also if two workers write it at the same time."""
        aside = f"{self._own}/unfinished/{uuid4().hex}"
        with self.file_system.open(aside, "wb") as file:
            file.write(data)
            file.flush()
            with suppress(AttributeError, OSError):  # not a disk's
                os.fsync(file.fileno())
        self.file_system.mv(aside, path)
