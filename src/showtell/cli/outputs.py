"""Where captions go: text, JSON lines and CSV as they are made, the COCO results format at the end.

An interrupted JSON lines or CSV file can be continued: an image is done when all its rows are there,
line breaks included; the file is cut after the last such image.
"""

import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, TextIO

from showtell.data.coco import IMAGE_NAME
from showtell.errors import UsageError

if TYPE_CHECKING:
    from showtell.captioner import Caption  # commands that only write files start without it

Format = Literal["text", "jsonl", "csv", "coco"]
FORMAT_OF_SUFFIX: dict[str, Format] = {".jsonl": "jsonl", ".csv": "csv", ".json": "coco"}
RESUMABLE: tuple[Format, ...] = ("jsonl", "csv")
CSV_HEADER = "image,caption,log_prob\n"


class Output(Protocol):
    """Takes the captions of one image after the other."""

    def write(self, name: str, captions: "Sequence[Caption]") -> None:
        """Take the captions of the image, best first."""
        ...


class RowOutput:
    """A row for each caption, written out at once: an interruption costs one image at most."""

    def __init__(self, file: TextIO, format: Format) -> None:
        self._file = file
        self._format = format

    def write(self, name: str, captions: "Sequence[Caption]") -> None:
        """Write the image's rows together."""
        self._file.write("".join(row(self._format, name, caption) for caption in captions))
        self._file.flush()


class CocoOutput:
    """The array of the COCO results format: JSON is whole when it is closed only, so it is written last."""

    def __init__(self) -> None:
        self._captions: dict[int | str, str] = {}

    def write(self, name: str, captions: "Sequence[Caption]") -> None:
        """Keep the best caption: the format knows one for each image."""
        image_id = coco_image_id(name)
        # Files of one name in two folders: the second goes by its whole path.
        self._captions[writable(name) if image_id in self._captions else image_id] = captions[0].text

    def text(self) -> str:
        """The array as JSON, an image on each line."""
        rows = (
            json.dumps({"image_id": image_id, "caption": caption}, ensure_ascii=False)
            for image_id, caption in self._captions.items()
        )
        return "[\n" + ",\n".join(rows) + "\n]\n"


def format_for(asked: Format | None, output: Path | None) -> Format:
    """The format that was asked for; else the one that the file's name says; else text."""
    return asked or FORMAT_OF_SUFFIX.get(output.suffix.lower() if output else "", "text")


@contextmanager
def open_output(path: Path | None, format: Format, *, resume: bool = False) -> Iterator[Output]:
    """Open a file (None: stdout) for captions; with `resume`, go on behind what `done_images` left there.

    Raises:
        UsageError: the file can't be written.
    """
    if format == "coco":
        coco = CocoOutput()
        if path:
            check_writable(path)
        try:
            yield coco
        finally:  # also when Ctrl-C ended it: what is done is not lost
            if path:
                write_whole(path, coco.text())
            else:
                sys.stdout.write(coco.text())
        return
    goes_on = resume and path is not None and path.exists() and path.stat().st_size > 0
    with _opened(path, "a" if goes_on else "w") if path else nullcontext(sys.stdout) as file:
        if format == "csv" and not goes_on:
            file.write(CSV_HEADER)
        yield RowOutput(file, format)


def row(format: Format, name: str, caption: "Caption") -> str:
    """One caption as one row, line break included."""
    log_prob = round(caption.log_prob, 4)
    if format == "jsonl":
        values = {"image": writable(name), "caption": caption.text, "log_prob": log_prob}
        return json.dumps(values, ensure_ascii=False) + "\n"
    if format == "csv":
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow((writable(name), caption.text, log_prob))
        return line.getvalue()
    return f"{printable(name)}\t{caption.text}\n"


def done_images(path: Path, format: Format, num: int) -> set[str]:
    """The images that a JSON lines or CSV file holds all `num` captions of; what follows them is cut off.

    Raises:
        UsageError: the file is something else, or was made with another number of captions an image.
    """
    if not path.exists():
        return set()
    done: set[str] = set()
    with path.open("r+b") as file:
        keep = 0  # bytes
        current, count = None, 0
        for number, (end, record) in enumerate(_records(file, quoted=format == "csv"), 1):
            if format == "csv" and number == 1:
                if record == CSV_HEADER.encode():
                    keep = end
                    continue
                if not CSV_HEADER.encode().startswith(record):
                    raise _other_file(path, number, format)
                break  # the header itself is half-written
            name = _image_of_row(record, format)
            if name is None:
                if file.read(1):
                    raise _other_file(path, number, format)
                break  # the last row is half-written
            if (name != current and 0 < count < num) or (name == current and count == num):
                raise UsageError(
                    f"{path} holds another number of captions an image than {num}.", "Give the same --num."
                )
            current, count = name, count + 1 if name == current else 1
            if count == num:
                done.add(name)
                keep = end
        file.truncate(keep)
    return done


def coco_image_id(name: str) -> int | str:
    """The number in the name of a COCO file; another file's name, without its folder."""
    coco = IMAGE_NAME.fullmatch(Path(name).stem)
    return int(coco[1]) if coco else writable(Path(name).name)


def check_writable(path: Path) -> None:
    """Find out before the work, not after it, that a file can't be written.

    Raises:
        UsageError: it can't.
    """
    if path.is_dir():
        raise UsageError(f"{path} can't be written: it is a folder.", "Choose another -o FILE.")
    with _opened(_aside(path), "w", shown=path):
        pass
    _aside(path).unlink()


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all.

    Raises:
        UsageError: it can't be written.
    """
    with _opened(_aside(path), "w", shown=path) as file:
        file.write(text)
    _aside(path).replace(path)


def writable(name: str) -> str:
    """The name in Unicode: a file system may hold bytes that are none."""
    return os.fsencode(name).decode("utf-8", "replace")


def printable(name: str) -> str:
    """The name on one line, without characters that move a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in writable(name))


def _aside(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def _opened(path: Path, mode: Literal["w", "a"], shown: Path | None = None) -> Iterator[TextIO]:
    """Open a text file; its line breaks are written as they are."""
    try:
        file = path.open(mode, encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"{shown or path} can't be written: {error.strerror}.", "Choose another -o FILE.") from None
    with file:
        yield file


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


def _image_of_row(record: bytes, format: Format) -> str | None:
    """The image that a row is about; None when the row is not whole."""
    try:
        text = record.decode("utf-8")
        if not text.endswith("\n"):
            return None
        if format == "jsonl":
            values = json.loads(text)
            return values["image"] if isinstance(values["image"], str) and "caption" in values else None
        name, _, log_prob = next(csv.reader([text], strict=True))
        float(log_prob)
        return name
    except (ValueError, KeyError, TypeError, csv.Error):
        return None


def _other_file(path: Path, line: int, format: Format) -> UsageError:
    return UsageError(
        f"{path} can't be continued: row {line} is not one of showtell's {format} output.",
        "Choose another -o FILE, or leave out --resume.",
    )
