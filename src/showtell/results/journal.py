"""Going on after an interruption: what is kept beside an unfinished file, and which images a file holds.

The journal of `captions.csv` is `.captions.csv.unfinished`. Its first line says what the captions are made with: those
of two models in one file would look like those of one. Where the file itself can't grow (a COCO array, Parquet), the
captions are its other lines. It goes when the file is finished. A run holds a lock on it: two that write one file would
mix their rows.
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
    """Whether a run keeps one: not of a pipe or a device, which can't be continued."""
    # /dev/stdout is a link, to a file at times.
    return not path.is_symlink() and (path.is_file() or not path.exists())


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep the journal of an output, and other runs from it, until the output is finished or the block raises.

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
                if sys.platform == "win32":  # it removes nothing that is open
                    lock.close()
                journal.unlink()


def begin(path: Path, made_with: Mapping[str, Any]) -> None:
    """Write the first line of the journal that is held. Raises UsageError."""
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
        UsageError: its options were others.
    """
    try:
        with journal_of(path).open("rb") as file:
            before = json.loads(file.readline())["made_with"]
    except (OSError, ValueError, LookupError, TypeError):  # none, or its first line is half-written: so is nothing else
        return False
    refuse_others(path, before, made_with, "leave out --resume to begin again")
    return True


def refuse_others(where: object, before: Mapping[str, Any], made_with: Mapping[str, Any], else_: str) -> None:
    """Refuse to go on in an output that was begun with other options. Raises UsageError."""
    for name, now in json.loads(json.dumps(made_with)).items():
        then = before.get(name, now)  # what an older version did not know
        if then != now:
            raise UsageError(
                f"{where} was begun with {name} {shown(then)}, not {shown(now)}.",
                f"Give what it was begun with, or {else_}.",
            )


def shown(value: object) -> str:
    """An option's value in a message."""
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def done_images(path: Path, format: RowFormat, num: int, header: str = "", output: Path | None = None) -> set[str]:
    """The images that a file holds all `num` captions of; what follows the last one's is cut off.

    Args:
        path: the file.
        format: of its rows.
        num: captions of each image.
        header: the line that comes before them.
        output: what messages call the file.

    Raises:
        UsageError: the file is something else, or was made with another number of captions an image.
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
                    f"{output or path} holds another number of captions an image than {num}.", "Give the same --num."
                )
            current, count = name, count + 1 if name == current else 1
            if count == num:
                done.add(name)
                keep = end
        file.truncate(keep)
    return done


def _records(file: BinaryIO, *, quoted: bool) -> Iterator[tuple[int, bytes]]:
    """The records of a file, each with the byte behind it; if `quoted`, a line break in quotes ends none."""
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
