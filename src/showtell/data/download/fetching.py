"""Download one large file: continue after a break, check it, and put it in its place completely or not at all.

`NAME.part` holds what has arrived, and `NAME.part.json` beside it names the version of the file. The next try, or
the next run, asks the server for the rest of that version (Range with If-Range). If the server has a newer version
by then, the download begins again.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from showtell.errors import DataError
from showtell.files import move, write_file
from showtell.images.urls import TRY_LATER

TRIES = 5  # in a row that bring nothing new
PAUSE = 1.0  # seconds before the second try; doubled for each that follows
LONGEST_PAUSE = 120.0  # that we wait if a server asks for it
TIMEOUT = 60.0  # seconds without a byte
CHUNK = 1 << 20

BytesDone = Callable[[int, int], None]
"""Called with the number of bytes done, and of all bytes."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that never changes, and how to recognise it."""

    url: str
    digest: str
    """`sha256:HEX` or `md5:HEX`."""
    size: int | None = None
    """In bytes, if it is known in advance."""

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]


class Broken(Exception):
    """A try that ended early; the next one may succeed."""

    def __init__(self, problem: object, pause: float | None = None) -> None:
        super().__init__(str(problem))
        self.pause = pause
        """The seconds that the server asks us to wait."""


def fetch(file: RemoteFile, path: Path, progress: BytesDone = lambda done, total: None) -> None:
    """Download the file to `path`, continuing where the last try stopped.

    Raises:
        DataError: the server refuses it or sends a file other than the published one, or the disk is too small.
    """
    part, facts = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
    failures = 0
    while True:
        before = _size(part)
        try:
            _fetch_rest(file, part, facts, progress)
            break
        except Broken as problem:
            failures = 1 if _size(part) > before else failures + 1
            if failures == TRIES:
                kept = "What has arrived is kept: run the command again to continue." if _size(part) else ""
                raise DataError(f"{file.url} can't be fetched: {problem}.", kept) from None
            pause = problem.pause or PAUSE * 2 ** (failures - 1)
            logger.info("%s: %s; trying again in %.0f s", file.name, problem, pause)
            time.sleep(pause)
    try:
        check(file, part)
    except DataError:
        part.unlink()
        facts.unlink()
        raise
    move(part, path)
    facts.unlink()


def check(file: RemoteFile, path: Path) -> None:
    """Compare the file at `path` with the published one. Raises DataError if it differs."""
    algorithm, _, digest = file.digest.partition(":")
    with path.open("rb") as content:
        found = hashlib.file_digest(content, algorithm).hexdigest()
    if found != digest:
        raise DataError(
            f"{path} is not the file that was published: its {algorithm} is {found}, but should be {digest}.",
            "It was damaged on the way, or its publisher has changed it. Remove it if it is there, and try again.",
        )


def need_space(folder: Path, size: int, purpose: str) -> None:
    """Raise DataError if the disk has no room."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{purpose} takes {size / 1e9:.1f} GB, but the disk of {folder} has {free / 1e9:.1f} GB free.",
            "Make room, or choose a folder on another disk (--out DIR).",
        )


def _fetch_rest(file: RemoteFile, part: Path, facts: Path, progress: BytesDone) -> None:
    """One try. Raises Broken if another try may help, DataError if none will."""
    known = _read_facts(facts, file.url)
    done = _size(part) if known else 0
    if known and done == known["size"]:
        return
    headers = {"User-Agent": "showtell", "Accept-Encoding": "identity"}
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": known["version"]}
    try:
        answer: HTTPResponse = urlopen(Request(file.url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416:  # there is no such rest: our part belongs to something else
            facts.unlink(missing_ok=True)
            raise Broken("the server has nothing after what has arrived") from None
        raise _refusal(file, error) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise Broken(getattr(reason, "strerror", None) or reason) from None
    with answer:
        version, start, size = _version(answer.headers), 0, _length(answer)
        if answer.status == 206:
            start, size = _range(answer.headers)
            if start != done or size != known.get("size") or version not in ("", known["version"]):
                facts.unlink(missing_ok=True)
                raise Broken("the file has changed on the server")
        if size is None:
            raise DataError(f"{file.url} can't be fetched: the server does not say how long it is.")
        if file.size not in (None, size):
            raise DataError(
                f"{file.url} is {size:,} bytes long now, but {file.size:,} bytes were published.",
                "Its publisher has changed it, or a proxy answers in the server's place.",
            )
        need_space(part.parent, size - start, file.name)
        if not start:
            part.unlink(missing_ok=True)  # before the new facts, which must never be beside old bytes
            write_file(facts, json.dumps({"url": file.url, "version": version, "size": size}))
        _write_rest(answer, part, start, size, progress)


def _write_rest(answer: HTTPResponse, part: Path, start: int, size: int, progress: BytesDone) -> None:
    """Append what arrives to the existing part. Raises Broken if it is less than announced."""
    done = start
    with part.open("ab") as file:
        while done < size:
            try:
                chunk = answer.read(min(CHUNK, size - done))
            except (OSError, HTTPException) as error:
                raise Broken(f"the connection broke off ({error})") from None
            if not chunk:
                raise Broken(f"the connection broke off after {done:,} of {size:,} bytes")
            file.write(chunk)
            done += len(chunk)
            progress(done, size)
        file.flush()
        os.fsync(file.fileno())


def _refusal(file: RemoteFile, error: HTTPError) -> Exception:
    """The error for an answer that is not a file: try again later, or give up."""
    said = f"the server answers {error.code} {error.reason}"
    if error.code not in TRY_LATER:
        return DataError(f"{file.url} can't be fetched: {said}.", "Check whether its publisher has moved it.")
    pause = _pause(error.headers.get("Retry-After", ""))
    if pause is not None and pause > LONGEST_PAUSE:
        return DataError(
            f"{file.url} can't be fetched now: {said}.", f"It asks clients to wait for {pause / 60:.0f} minutes."
        )
    return Broken(said, pause)


def _pause(retry_after: str) -> float | None:
    """The seconds that a Retry-After header asks for, which holds a number or a date."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _version(headers: Message) -> str:
    """The name of this version of the file for If-Range: a strong ETag, or else the date; empty without either."""
    tag = str(headers.get("ETag", ""))
    return tag if tag.startswith('"') else str(headers.get("Last-Modified", ""))


def _length(answer: HTTPResponse) -> int | None:
    length = str(answer.headers.get("Content-Length", ""))
    return int(length) if length.isdecimal() else None


def _range(headers: Message) -> tuple[int, int | None]:
    """First byte and length of the whole file in `Content-Range: bytes FIRST-LAST/LENGTH`; else (-1, None)."""
    unit, _, rest = str(headers.get("Content-Range", "")).partition(" ")
    span, _, length = rest.partition("/")
    first = span.partition("-")[0]
    if unit.lower() != "bytes" or not first.isdecimal() or not length.isdecimal():
        return -1, None
    return int(first), int(length)


def _read_facts(facts: Path, url: str) -> dict[str, Any]:
    """What is known about the bytes that have arrived; empty if they can't be continued."""
    try:
        known = json.loads(facts.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    usable = isinstance(known, dict) and known.get("url") == url and known.get("version") and known.get("size")
    return known if usable else {}


def _size(path: Path) -> int:
    """The size of a file in bytes; 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0
