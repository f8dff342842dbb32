"""Continuing after an interruption: what is kept beside an unfinished file, and which images a file holds.

The journal of `captions.csv` is `.captions.csv.unfinished`. Its first line says what the captions are made with, so
that one file never mixes the captions of two models. If the file itself can't grow (a COCO array, Parquet), the
journal's other lines hold the captions. It is removed when the file is finished. A run holds a lock on it, so that two
runs never write one file.
"""

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from showtell.errors import UsageError
from showtell.files import beside, locked

RowFormat = Literal["text", "jsonl", "csv", "tsv"]


def journal_of(path: Path) -> Path:
    """Where the journal of an output is."""
    return beside(path, "unfinished")


def has_journal(path: Path) -> bool:
    """Whether a run keeps one: not for a pipe or a device, which can't be continued."""
    # /dev/stdout is a link, sometimes to a file.
    return not path.is_symlink() and (path.is_file() or not path.exists())


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep the journal of an output, and keep other runs off it, until the output is finished or the block raises.

    Raises:
        UsageError: another run writes the output, or its folder can't be written.
    """
    if not has_journal(path):
        yield
        return
    journal = journal_of(path)
    is_over = False
    with ExitStack() as lock:
        try:
            lock.enter_context(locked(journal))
        except BlockingIOError:
            raise UsageError(
                f"Another run is writing {path}.", "Wait until it has ended, or choose another -o FILE."
            ) from None
        except OSError as error:
            raise UsageError(f"{path} can't be written: {error.strerror}.", "Choose another -o FILE.") from None
        try:
            yield
            is_over = True
        finally:
            if is_over or not journal.stat().st_size:
                if sys.platform == "win32":  # which can't remove an open file
                    lock.close()
                journal.unlink()


def begin(path: Path, made_with: Mapping[str, Any]) -> None:
    """Write the first line of the held journal. Raises UsageError."""
    if has_journal(path):
        try:
            journal_of(path).write_text(first_line(made_with), encoding="utf-8", newline="")
        except OSError as error:
            raise UsageError(f"{path} can't be written: {error.strerror}.", "Choose another -o FILE.") from None


def first_line(made_with: Mapping[str, Any]) -> str:
    """A journal's first line."""
    return json.dumps({"made_with": made_with}, ensure_ascii=False) + "\n"


def is_begun(path: Path, made_with: Mapping[str, Any]) -> bool:
    """Whether a run with the same options has left the output `path` unfinished.

    Raises:
        UsageError: its options were different.
    """
    try:
        with journal_of(path).open("rb") as file:
            before = json.loads(file.readline())["made_with"]
    except (OSError, ValueError, LookupError, TypeError):  # none, or only half of its first line
        return False
    refuse_others(path, before, made_with, "leave out --resume to begin again")
    return True


def refuse_others(where: object, before: Mapping[str, Any], made_with: Mapping[str, Any], else_: str) -> None:
    """Refuse to continue an output that was begun with other options. Raises UsageError."""
    for name, now in json.loads(json.dumps(made_with)).items():
        then = before.get(name, now)  # an older version may not have known it
        if then != now:
            raise UsageError(
                f"{where} was begun with {name} {shown(then)}, not {shown(now)}.",
                f"Use the same options as before, or {else_}.",
            )


def shown(value: object) -> str:
    """An option's value in a message."""
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def done_images(path: Path, format: RowFormat, num: int, header: str = "", output: Path | None = None) -> set[str]:
    """The images with all `num` captions in the file; what follows the last of these captions is cut off.

    Args:
        path: the file.
        format: of its rows.
        num: captions of each image.
        header: the line that comes before them.
        output: what messages call the file.

    Raises:
        UsageError: the file is something else, or was made with another number of captions for each image.
    """
    if not path.exists():
        return set()
    done: set[str] = set()
    with path.open("r+b") as file:
        keep = 0  # bytes
        current, count = None, 0
        for number, (end, record) in enumerate(_records(file, quoted=format in ("csv", "tsv")), 1):
            if header and number == 1:
                if record == header.encode():
                    keep = end
                    continue
                if not header.encode().startswith(record):
                    raise _other_file(output or path, number, format)
                break  # the header itself is half-written
            name = _image_of_row(record, format)
            if name is None:
                if file.read(1):
                    raise _other_file(output or path, number, format)
                break  # the last row is half-written
            if (name != current and 0 < count < num) or (name == current and count == num):
                raise UsageError(
                    f"{output or path} does not hold {num} captions for each image.", "Give the same --num as before."
                )
            current, count = name, count + 1 if name == current else 1
            if count == num:
                done.add(name)
                keep = end
        file.truncate(keep)
    return done


def _records(file: BinaryIO, *, quoted: bool) -> Iterator[tuple[int, bytes]]:
    """The records of a file, each with the position of its end; if `quoted`, a line break in quotes ends none."""
    record, end = b"", 0
    for line in iter(file.readline, b""):
        record += line
        end += len(line)
        if quoted and record.count(b'"') % 2:
            continue
        yield end, record
        record = b""
    if record:
        yield end, record


def _image_of_row(record: bytes, format: RowFormat) -> str | None:
    """The image that a row is about; None when the row is not whole."""
    try:
        text = record.decode("utf-8")
        if not text.endswith("\n"):
            return None
        if format == "jsonl":
            values = json.loads(text)
            return values["image"] if isinstance(values["image"], str) and "caption" in values else None
        if format == "text":
            name, _, *sure = text.split("\t")
            return name if len(sure) < 2 else None
        name, _, log_prob, _ = next(csv.reader([text], delimiter="\t" if format == "tsv" else ",", strict=True))
        float(log_prob)
        return name
    except (ValueError, KeyError, TypeError, csv.Error):
        return None


def _other_file(path: Path, line: int, format: RowFormat) -> UsageError:
    return UsageError(
        f"{path} can't be continued: row {line} is not one of showtell's {format} output.",
        "Choose another -o FILE, or leave out --resume.",
    )
