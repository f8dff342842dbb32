"""Where captions go: text, JSON lines, CSV and tar shards as they are made, COCO results and Parquet at the end.

Whatever the format, a run that is interrupted can be continued (`journal.py`).
"""

import csv
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, TextIO

from showtell.data.formats.coco import IMAGE_NAME
from showtell.errors import Interrupted, MissingExtraError, UsageError
from showtell.files import check_writable, new_file, write_file
from showtell.images.decode import SUFFIXES
from showtell.images.names import printable, writable
from showtell.images.storage import ByteRange, StoredImage
from showtell.images.tar import END_OF_SHARD, as_member, written_samples
from showtell.results.journal import done_images, first_line, is_begun, journal_of

if TYPE_CHECKING:
    from showtell.captioner import Caption  # commands that only write files start without it

Format = Literal["text", "jsonl", "csv", "coco", "parquet", "tar"]
FORMAT_OF_SUFFIX: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".tar": "tar",
    ".json": "coco",
    ".parquet": "parquet",
    ".pq": "parquet",
}
CSV_HEADER = "image,caption,log_prob\n"
ROW_GROUP = 10_000  # rows of a Parquet file that are in memory together

Row = dict[str, Any]
"""Of an output: image, caption and log_prob; in a cluster's, `error` too."""


class Output(Protocol):
    """Takes the captions of one image after the other."""

    done: set[str]
    """The images whose captions an interrupted run has left, by the names that the file calls them."""

    def called(self, name: str) -> str:
        """What the file calls an image."""
        ...

    def write(self, image: StoredImage, captions: "Sequence[Caption]") -> None:
        """Take the captions of the image, best first."""
        ...


class RowOutput:
    """A row for each caption, written out at once."""

    def __init__(self, file: TextIO, format: Literal["text", "jsonl", "csv"], done: set[str]) -> None:
        self._file = file
        self._format = format
        self.done = done

    def called(self, name: str) -> str:
        """The name in Unicode, in text on one line."""
        return printable(name) if self._format == "text" else writable(name)

    def write(self, image: StoredImage, captions: "Sequence[Caption]") -> None:
        """Write the image's rows together."""
        self._file.write("".join(row(self._format, image.name, caption) for caption in captions))
        self._file.flush()


class ShardOutput:
    """A WebDataset sample for each image: KEY.jpg (the file as it is), KEY.txt (a caption a line), KEY.json."""

    def __init__(self, file: BinaryIO, done: set[str], keys: set[str]) -> None:
        self._file = file
        self._keys = keys
        self.done = done

    def called(self, name: str) -> str:
        return writable(name)

    def write(self, image: StoredImage, captions: "Sequence[Caption]") -> None:
        """Write the image's sample; its JSON comes last, and says that the sample is whole."""
        data = image.read()
        suffix = Path(image.name).suffix.lower()
        key = self._key(image)
        texts = [caption.text for caption in captions]
        values = {"image": writable(image.name), "captions": texts, "log_probs": [c.log_prob for c in captions]}
        self._file.write(
            as_member(key + (suffix if suffix in SUFFIXES else ".jpg"), data)
            + as_member(f"{key}.txt", "\n".join(texts).encode())
            + as_member(f"{key}.json", json.dumps(values, ensure_ascii=False).encode())
        )
        self._file.flush()

    def _key(self, image: StoredImage) -> str:
        """The image's path without its suffix, in a shard the one there; no two are alike, and none has a dot."""
        path = image.name.removeprefix(f"{image.container}/") if isinstance(image, ByteRange) else image.name
        key = as_key(os.path.splitext(path)[0])  # noqa: PTH122 (a URL's slashes stay)
        if key in self._keys:
            key = as_key(image.name)
        self._keys.add(key)
        return key


def format_for(asked: Format | None, output: Path | None) -> Format:
    """The format that was asked for; else the one that the file's name says; else text.

    Raises:
        UsageError: the format needs a file, and none is named.
        MissingExtraError: Parquet can't be written here.
    """
    format = asked or FORMAT_OF_SUFFIX.get(output.suffix.lower() if output else "", "text")
    if format in ("parquet", "tar") and output is None:
        raise UsageError(f"The {format} format is not written to stdout.", f"Say -o FILE.{format}.")
    if format == "parquet":
        _pyarrow()
    return format


@contextmanager
def open_output(
    path: Path | None, format: Format, made_with: Mapping[str, Any], *, num: int, resume: bool = False
) -> Iterator[Output]:
    """Open a file (None: stdout) for captions.

    Args:
        path: the file.
        format: its format.
        made_with: what the captions depend on, by name; JSON.
        num: captions of each image.
        resume: go on behind what an interrupted run has left.

    Raises:
        UsageError: the file can't be written, or is not one that can be continued with these options.
    """
    if format == "coco" or format == "parquet":
        opened: AbstractContextManager[Output] = _rows_of_whole(path, format, made_with, num, resume=resume)
    elif format == "tar":
        assert path is not None, "format_for refuses that"
        opened = _shard(path, made_with, num, resume=resume)
    elif path is None:
        opened = nullcontext(RowOutput(sys.stdout, format, set()))
        sys.stdout.write(CSV_HEADER if format == "csv" else "")
    else:
        opened = _growing(path, format, made_with, num, resume=resume)
    with opened as output:
        yield output


@contextmanager
def _growing(
    path: Path, format: Literal["text", "jsonl", "csv"], made_with: Mapping[str, Any], num: int, *, resume: bool
) -> Iterator[Output]:
    """A file whose rows are written as they are made."""
    header = CSV_HEADER if format == "csv" else ""
    done: set[str] = set()
    if resume and path.is_file():
        is_begun(path, made_with)  # or refused
        done = done_images(path, format, num, header)
    goes_on = resume and path.is_file() and path.stat().st_size > 0
    with _opened(path, "a" if goes_on else "w") as file, _journalled(path, made_with):
        if not goes_on:
            file.write(header)
        yield RowOutput(file, format, done)


@contextmanager
def _shard(path: Path, made_with: Mapping[str, Any], num: int, *, resume: bool) -> Iterator[Output]:
    """A tar file whose samples are written as they are made.

    Raises:
        UsageError: it can't be written, or is not one that was made here with `num` captions an image.
    """
    done: set[str] = set()
    keys: set[str] = set()
    keep = 0  # bytes
    if resume and path.exists():
        is_begun(path, made_with)  # or refused
        for key, values, end in written_samples(path):
            if not isinstance(values, dict) or len(values.get("captions", ())) != num:
                raise UsageError(
                    f"{path} can't be continued: {key}.json is not of showtell's with {num} captions.",
                    "Choose another -o FILE, or leave out --resume.",
                )
            keys.add(key)
            done.add(values["image"])
            keep = end
    with _opened(path, "a"):  # so that it is there, or else explained
        pass
    with path.open("r+b") as file:
        file.truncate(keep)
        file.seek(keep)
        with _journalled(path, made_with):
            yield ShardOutput(file, done, keys)
            file.write(END_OF_SHARD)
            file.flush()


@contextmanager
def _journalled(path: Path, made_with: Mapping[str, Any]) -> Iterator[None]:
    """Keep a journal beside an open file until it is finished; not of a pipe or a device, which can't be continued."""
    if not path.is_file() or path.is_symlink():  # /dev/stdout is a link, to a file at times
        yield
        return
    write_file(journal_of(path), first_line(made_with))
    yield
    journal_of(path).unlink()


@contextmanager
def _rows_of_whole(
    path: Path | None, format: Literal["coco", "parquet"], made_with: Mapping[str, Any], num: int, *, resume: bool
) -> Iterator[Output]:
    """Rows that become a file when the last one is there; they wait in its journal."""
    if path is None:
        with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as file:
            file.write(first_line(made_with))
            try:
                yield RowOutput(file, "jsonl", set())
            finally:
                file.seek(0)
                sys.stdout.writelines(coco_text(_rows(file)))
        return
    check_writable(path)
    journal = journal_of(path)
    goes_on = resume and is_begun(path, made_with)
    if resume and not goes_on and path.exists():
        raise UsageError(
            f"{path} is finished: of an unfinished {format} file there would be {journal.name} beside it.",
            "Leave out --resume to make it anew.",
        )
    header = first_line(made_with)
    done = done_images(journal, "jsonl", num, header, output=path) if goes_on else set()
    with _opened(journal, "a" if goes_on else "w", shown=path) as file:
        if not goes_on:
            file.write(header)
            file.flush()
        try:
            yield RowOutput(file, "jsonl", done)
        except Interrupted:  # what is done can be read, and the journal stays to go on from
            _write_whole_of(journal, path, format, made_with)
            raise
    _write_whole_of(journal, path, format, made_with)
    journal.unlink()


def _write_whole_of(
    journal: Path, path: Path, format: Literal["coco", "parquet"], made_with: Mapping[str, Any]
) -> None:
    """Make the file of its journal's rows."""
    with journal.open(encoding="utf-8", newline="") as file:
        rows = _rows(file)
        if format == "coco":
            write_file(path, coco_text(rows))
        else:
            with new_file(path) as aside:
                write_parquet(aside, rows, made_with)


def _rows(journal: TextIO) -> Iterator[Row]:
    """The rows of a journal."""
    next(journal)
    return map(json.loads, journal)


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


def coco_text(rows: Iterable[Row]) -> Iterator[str]:
    """The array of the COCO results format, an image on each line."""
    taken: set[int | str] = set()
    separator = "[\n"
    for record in rows:
        image_id = coco_image_id(record["image"])
        if image_id in taken:  # files of one name in two folders: the second goes by its whole path
            image_id = record["image"]
        taken.add(image_id)
        yield separator + json.dumps({"image_id": image_id, "caption": record["caption"]}, ensure_ascii=False)
        separator = ",\n"
    yield "\n]\n" if taken else "[\n\n]\n"


def write_parquet(
    file: Path | BinaryIO, rows: Iterable[Row], made_with: Mapping[str, Any], *, errors: bool = False
) -> None:
    """Parquet of the columns image, caption, log_prob and perhaps error; its metadata say what they are made with.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    pa, parquet = _pyarrow()
    columns = [("image", pa.string()), ("caption", pa.string()), ("log_prob", pa.float64())]
    columns += [("error", pa.string())] * errors
    schema = pa.schema(columns, metadata={"showtell": json.dumps(made_with, ensure_ascii=False)})
    rows = iter(rows)
    with parquet.ParquetWriter(file, schema) as writer:
        while group := list(islice(rows, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))


def as_key(path: str) -> str:
    """A path as WebDataset's key of a sample: relative, and without a dot, behind which it would look for a suffix."""
    return re.sub(r"[^\w/-]+", "_", writable(path)).strip("/") or "image"


def coco_image_id(name: str) -> int | str:
    """The number in the name of a COCO file; another file's name, without its folder."""
    coco = IMAGE_NAME.fullmatch(Path(name).stem)
    return int(coco[1]) if coco else writable(Path(name).name)


@contextmanager
def _opened(path: Path, mode: Literal["w", "a"], shown: Path | None = None) -> Iterator[TextIO]:
    """Open a text file; its line breaks are written as they are."""
    try:
        file = path.open(mode, encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"{shown or path} can't be written: {error.strerror}.", "Choose another -o FILE.") from None
    with file:
        yield file


def _pyarrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet. Raises MissingExtraError."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("Writing Parquet", "tables") from None
    return pyarrow, pyarrow.parquet
