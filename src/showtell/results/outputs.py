"""Where captions go: rows and tar shards are written at once; COCO results, Parquet and compressed files at the end.

Whatever the format, a run that is interrupted can be continued (`journal.py`).
"""

import csv
import gzip
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, TextIO

from showtell.confidence import in_words
from showtell.data.formats.coco import IMAGE_NAME
from showtell.errors import Interrupted, ShowtellError, UsageError, needs, reason_of
from showtell.files import append, check_writable, new_file, suffix_of
from showtell.images.decode import SUFFIXES
from showtell.images.names import on_one_line, printable, writable
from showtell.images.storage import ByteRange, StoredImage
from showtell.images.tar import END_OF_SHARD, as_member, written_samples
from showtell.results.journal import RowFormat, begin, done_images, first_line, has_journal, held, is_begun, journal_of

if TYPE_CHECKING:
    from showtell.captioner import Caption  # commands that only write files start without it

Format = Literal["text", "jsonl", "csv", "tsv", "coco", "parquet", "tar", "txt"]
WholeFormat = RowFormat | Literal["coco", "parquet"]
FORMAT_OF_SUFFIX: dict[str, Format] = {
    "": "text",
    ".txt": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tar": "tar",
    ".json": "coco",
    ".parquet": "parquet",
    ".pq": "parquet",
}
DELIMITERS = {"csv": ",", "tsv": "\t"}
COLUMNS = ("image", "caption", "log_prob", "confidence")
ROW_GROUP = 10_000  # rows of a Parquet file that are in memory together

Row = dict[str, Any]
"""A row of an output: image, caption, log_prob and confidence; in a cluster's, `error` too."""


class Output(Protocol):
    """Takes the captions of one image after the other."""

    done: set[str]
    """The images whose captions an interrupted run has written, by their names in the file."""

    def called(self, name: str) -> str:
        """An image's name in the file."""
        ...

    def write(self, image: StoredImage, captions: "Sequence[Caption]") -> None:
        """Take the captions of the image, best first."""
        ...


class RowOutput:
    """A row for each caption, written at once; with `sure` it says in words how sure the model is."""

    def __init__(
        self, write: Callable[[str], object], format: RowFormat, done: set[str], *, sure: bool = False
    ) -> None:
        self._write = write
        self._format = format
        self._sure = sure
        self.done = done

    def called(self, name: str) -> str:
        """The name in Unicode, in text on one line."""
        return printable(name) if self._format == "text" else writable(name)

    def write(self, image: StoredImage, captions: "Sequence[Caption]") -> None:
        """Write the image's rows together."""
        name = writable(image.name)
        self._write("".join(row_text(self._format, row_of(name, each, sure=self._sure)) for each in captions))


class ShardOutput:
    """A WebDataset sample for each image: KEY.jpg (the file as it is), KEY.txt (captions, one a line), KEY.json."""

    def __init__(self, write: Callable[[bytes], None], done: set[str], keys: set[str]) -> None:
        self._write = write
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
        values["confidences"] = [rounded(caption.confidence) for caption in captions]
        self._write(
            as_member(key + (suffix if suffix in SUFFIXES else ".jpg"), data)
            + as_member(f"{key}.txt", "\n".join(texts).encode())
            + as_member(f"{key}.json", json.dumps(values, ensure_ascii=False).encode())
        )

    def _key(self, image: StoredImage) -> str:
        """The image's path, in its shard if it has one, without suffix; made unique, and without a dot."""
        path = image.name.removeprefix(f"{image.container}/") if isinstance(image, ByteRange) else image.name
        stem = as_key(os.path.splitext(path)[0])  # noqa: PTH122 (a URL's slashes stay)
        numbered = (f"{as_key(image.name)}_{number}" for number in count(1))
        key = next(key for key in chain((stem, as_key(image.name)), numbered) if key not in self._keys)
        self._keys.add(key)
        return key


def row_of(name: str, caption: "Caption", *, sure: bool = False) -> Row:
    """The row of a caption; `sure` adds its confidence in words."""
    row: Row = {
        "image": name,
        "caption": caption.text,
        "log_prob": round(caption.log_prob, 4),
        "confidence": rounded(caption.confidence),
    }
    if sure and caption.confidence is not None:
        row["sure"] = in_words(caption.confidence)
    if caption.left_out is not None:
        row["reason"] = caption.left_out
    return row


def rounded(confidence: float | None) -> float | None:
    return None if confidence is None else round(confidence, 3)


def format_for(asked: Format | None, output: Path | None) -> Format:
    """The format that was asked for; else the one of the file's suffix; else text.

    Raises:
        UsageError: the suffix is not known, or the format needs a file and none is named.
        MissingExtraError: Parquet can't be written here.
    """
    suffix = suffix_of(output) if output else ""
    format = asked or FORMAT_OF_SUFFIX.get(suffix)
    if format is None:
        known = ", ".join(filter(None, FORMAT_OF_SUFFIX))
        raise UsageError(
            f"{output} has a suffix that names no format.",
            f"Use one of {known} (text formats also with .gz), or add --format.",
        )
    if format == "txt" and output is not None:
        raise UsageError("The txt format writes a text file beside each photo.", "Leave out -o, or use --format text.")
    if format in ("parquet", "tar"):
        if output is None:
            raise UsageError(f"The {format} format is not written to stdout.", f"Add -o FILE.{format}.")
        if _is_compressed(output):
            raise UsageError(f"{output}: {format} files are not compressed by gzip.", "Leave out .gz.")
    if format == "parquet":
        _pyarrow()
    return format


def _is_compressed(output: Path) -> bool:
    return output.suffix.lower() == ".gz"


@contextmanager
def open_output(
    path: Path | None,
    format: Format,
    made_with: Mapping[str, Any],
    *,
    num: int,
    resume: bool = False,
    sure: bool = False,
) -> Iterator[Output]:
    """Open a file (None: stdout) for captions.

    Args:
        path: the file.
        format: its format.
        made_with: what the captions depend on, by name; JSON.
        num: captions of each image.
        resume: continue what an interrupted run has written.
        sure: see `row_of`.

    Raises:
        UsageError: the file can't be written, or is not one that can be continued with these options.
    """
    assert format != "txt", "that has no file of its own: see `sidecars.py`"
    if format == "tar":
        assert path is not None, "format_for refuses that"
        opened: AbstractContextManager[Output] = _shard(path, made_with, num, resume=resume)
    elif format == "coco" or format == "parquet":
        opened = _rows_of_whole(path, format, made_with, num, resume=resume, sure=sure)
    elif path is None:
        _print(header_of(format))
        opened = nullcontext(RowOutput(_print, format, set(), sure=sure))
    elif _is_compressed(path):
        opened = _rows_of_whole(path, format, made_with, num, resume=resume, sure=sure)
    else:
        opened = _growing(path, format, made_with, num, resume=resume, sure=sure)
    with opened as output:
        yield output


@contextmanager
def _growing(
    path: Path, format: RowFormat, made_with: Mapping[str, Any], num: int, *, resume: bool, sure: bool
) -> Iterator[Output]:
    """A file whose rows are written as they are made."""
    header = header_of(format)
    done: set[str] = set()
    with held(path):
        if resume and path.is_file():
            is_begun(path, made_with)  # or it refuses
            done = done_images(path, format, num, header)
        goes_on = resume and path.is_file() and path.stat().st_size > 0
        with _opened(path) as write:
            begin(path, made_with)
            if not goes_on:
                _cut(path, 0)
                write(header.encode())
            yield RowOutput(lambda text: write(text.encode()), format, done, sure=sure)


@contextmanager
def _shard(path: Path, made_with: Mapping[str, Any], num: int, *, resume: bool) -> Iterator[Output]:
    """A tar file whose samples are written as they are made.

    Raises:
        UsageError: it can't be written, or was not made by showtell with `num` captions for each image.
    """
    done: set[str] = set()
    keys: set[str] = set()
    keep = 0  # bytes
    with held(path):
        if resume and path.exists():
            is_begun(path, made_with)  # or it refuses
            for key, values, end in written_samples(path):
                if not isinstance(values, dict) or len(values.get("captions", ())) != num:
                    raise UsageError(
                        f"{path} can't be continued: showtell did not write its {key}.json with {num} captions.",
                        "Choose another -o FILE, or leave out --resume.",
                    )
                keys.add(key)
                done.add(values["image"])
                keep = end
        with _opened(path) as write:
            begin(path, made_with)
            _cut(path, keep)
            yield ShardOutput(write, done, keys)
            write(END_OF_SHARD)


@contextmanager
def _rows_of_whole(
    path: Path | None,
    format: WholeFormat,
    made_with: Mapping[str, Any],
    num: int,
    *,
    resume: bool,
    sure: bool,
) -> Iterator[Output]:
    """Rows that become a file after the last one; until then they are in its journal."""
    if path is None:
        with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as file:
            file.write(first_line(made_with))
            try:
                yield RowOutput(file.write, "jsonl", set(), sure=sure)
            finally:
                file.seek(0)
                sys.stdout.writelines(coco_text(_rows(file)))
        return
    check_writable(path)
    with held(path), ExitStack() as stack:
        if has_journal(path):
            journal = journal_of(path)
        else:  # it can't be beside a device
            journal, resume = Path(stack.enter_context(tempfile.TemporaryDirectory()), "rows"), False
        goes_on = resume and is_begun(path, made_with)
        if resume and not goes_on and path.exists():
            raise UsageError(
                f"{path} is finished: an unfinished {format} file would have {journal.name} beside it.",
                "Leave out --resume to begin again.",
            )
        header = first_line(made_with)
        done = done_images(journal, "jsonl", num, header, output=path) if goes_on else set()
        with _opened(journal, shown=path) as write:
            if not goes_on:
                _cut(journal, 0)
                write(header.encode())
            try:
                yield RowOutput(lambda text: write(text.encode()), "jsonl", done, sure=sure)
            except Interrupted:  # the file holds what is done, and the journal stays, to be continued
                _write_whole_of(journal, path, format, made_with)
                raise
        _write_whole_of(journal, path, format, made_with)


def _write_whole_of(journal: Path, path: Path, format: WholeFormat, made_with: Mapping[str, Any]) -> None:
    """Make the file from its journal's rows."""
    with journal.open(encoding="utf-8", newline="") as file, new_file(path) as aside:
        rows = _rows(file)
        if format == "parquet":
            write_parquet(aside, rows, made_with)
            return
        text = coco_text(rows) if format == "coco" else chain([header_of(format)], (row_text(format, r) for r in rows))
        with aside.open("wb") as plain:
            if _is_compressed(path):
                with gzip.GzipFile("", "wb", fileobj=plain, mtime=0) as packed:
                    packed.writelines(piece.encode() for piece in text)
            else:
                plain.writelines(piece.encode() for piece in text)


def _rows(journal: TextIO) -> Iterator[Row]:
    """The rows of a journal."""
    next(journal)
    return map(json.loads, journal)


def header_of(format: RowFormat) -> str:
    """The line that comes before the rows; empty if there is none."""
    return DELIMITERS[format].join(COLUMNS) + "\n" if format in DELIMITERS else ""


def row_text(format: RowFormat, row: Row) -> str:
    """One caption as one row, line break included."""
    if format == "jsonl":
        return json.dumps(row, ensure_ascii=False) + "\n"
    if format == "text":
        sure = f"\t{row['sure']}" if "sure" in row else ""
        return f"{on_one_line(row['image'])}\t{row['caption']}{sure}\n"
    line = io.StringIO()
    writer = csv.writer(line, delimiter=DELIMITERS[format], lineterminator="\r\n")  # with "\n" it would not quote \r
    writer.writerow(row[column] for column in COLUMNS)
    return line.getvalue().removesuffix("\r\n") + "\n"


def coco_text(rows: Iterable[Row]) -> Iterator[str]:
    """The array of the COCO results format, an image on each line."""
    taken: set[int | str] = set()
    separator = "[\n"
    for record in rows:
        image_id = coco_image_id(record["image"])
        if image_id in taken:  # files of one name in two folders: the second gets its whole path
            image_id = record["image"]
        while image_id in taken:
            image_id = f"./{image_id}"
        taken.add(image_id)
        yield separator + json.dumps({"image_id": image_id, "caption": record["caption"]}, ensure_ascii=False)
        separator = ",\n"
    yield "\n]\n" if taken else "[\n\n]\n"


def write_parquet(
    file: Path | BinaryIO, rows: Iterable[Row], made_with: Mapping[str, Any], *, errors: bool = False
) -> None:
    """Write Parquet with the columns that `Row` names; its metadata say what the captions are made with.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    pa, parquet = _pyarrow()
    columns = [("image", pa.string()), ("caption", pa.string())]
    columns += [(name, pa.float64()) for name in ("log_prob", "confidence")]
    columns += [("error", pa.string())] * errors
    schema = pa.schema(columns, metadata={"showtell": json.dumps(made_with, ensure_ascii=False)})
    rows = iter(rows)
    with parquet.ParquetWriter(file, schema) as writer:
        while group := list(islice(rows, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))


def as_key(path: str) -> str:
    """A path as the key of a WebDataset sample: relative, and without a dot, after which a suffix would begin."""
    return re.sub(r"[^\w/-]+", "_", writable(path)).strip("/") or "image"


def coco_image_id(name: str) -> int | str:
    """The number in the name of a COCO file; another file's name, without its folder."""
    coco = IMAGE_NAME.fullmatch(Path(name).stem)
    return int(coco[1]) if coco else Path(name).name


@contextmanager
def _opened(path: Path, shown: Path | None = None) -> Iterator[Callable[[bytes], None]]:
    """Open a file, `shown` in messages; yields a function that appends to it, completely or not at all."""

    def write(content: bytes) -> None:
        try:
            append(file, content)
        except BrokenPipeError:  # its reader has seen enough
            raise
        except OSError as error:
            raise ShowtellError(
                f"{shown or path} can't be written: {reason_of(error)}.", "The same command with --resume continues."
            ) from None

    try:
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise UsageError(f"{shown or path} can't be written: {error.strerror}.", "Choose another -o FILE.") from None
    with file:
        yield write


def _cut(path: Path, length: int) -> None:
    if path.is_file():  # and not a pipe
        os.truncate(path, length)


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ShowtellError(f"stdout can't be written: {reason_of(error)}.") from None


def _pyarrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet. Raises MissingExtraError."""
    with needs("tables", "Writing Parquet"):
        import pyarrow
        import pyarrow.parquet
    return pyarrow, pyarrow.parquet
