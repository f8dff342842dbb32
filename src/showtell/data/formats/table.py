"""A table of images and captions: `table:FILE[,image=COLUMN][,caption=COLUMN][,split=COLUMN][,images=DIR]`.

CSV (commas, semicolons, tabs or bars), TSV, JSONL, or Parquet. An image may have several rows, or one whose
caption column holds a list (in CSV, a JSON list). Paths are relative to the table's folder, or to `images=`.
With a split column (train, dev or val, test) those are the splits; otherwise the split is ours, by image.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from showtell.data.dataset import SPLIT_NAMES, Dataset, Split, dataset_of_files, split_by_image
from showtell.errors import DataError, MissingExtraError, UsageError
from showtell.files import read_lines, read_text, suffix_of
from showtell.images.tables import COLUMNS

SYNTAX = "FILE[,image=COLUMN][,caption=COLUMN][,split=COLUMN][,images=DIR]"

TableRow = Mapping[str, Any]


def load(location: str, *, photos: bool = True) -> Dataset:
    """The data set of one table. Raises DataError for its content, UsageError for an unknown setting."""
    file, asked = parse(location)
    rows = read_rows(file)
    columns = find_columns(file, rows, asked)
    root = Path(asked.get("images", file.parent)).expanduser()
    captions: dict[str, list[str]] = {}
    splits: dict[str, Split] = {}
    skipped = 0
    for number, row in enumerate(rows, start=1):
        image, texts = row.get(columns["image"]), captions_of(row.get(columns["caption"]))
        if not image or not texts:
            skipped += 1
            continue
        image_id = _image_name(file, number, image)
        captions.setdefault(image_id, []).extend(texts)
        if "split" in columns:
            split = split_of(file, number, row.get(columns["split"]))
            if splits.setdefault(image_id, split) != split:
                raise DataError(f"{file}, row {number}: {image_id} is in {splits[image_id]} and in {split}.")
    notes = [f"Rows left out because they lack an image or a caption: {skipped:,}."] if skipped else []
    if "split" not in columns:
        splits = split_by_image(captions)
        notes.append("There is no split column: images are split 80/10/10, the same way every time.")
    paths = {image_id: root / image_id for image_id in splits}
    return dataset_of_files(file.name, captions, splits, paths, notes, photos=photos)


def parse(location: str) -> tuple[Path, dict[str, str]]:
    """The table's file and its settings: `FILE,image=COLUMN`. Raises UsageError for an unknown setting."""
    name, *settings = location.split(",")
    return Path(name).expanduser(), dict(_setting(location, setting) for setting in settings)


def _setting(location: str, setting: str) -> tuple[str, str]:
    key, _, value = setting.partition("=")
    if key not in (*COLUMNS, "images") or not value:
        names = ", ".join(f"{name}=" for name in (*COLUMNS, "images"))
        raise UsageError(f"table:{location} has an unknown setting '{setting}'.", f"There are {names}.")
    return key, value


def read_rows(file: Path) -> list[TableRow]:
    """A table's rows, each a map from column to value. Raises DataError."""
    suffix = suffix_of(file)
    if not file.is_file():
        raise DataError(f"{file} is not a file.", "Name a CSV, TSV, JSONL or Parquet file.")
    if suffix in (".csv", ".tsv", ".txt"):
        return list(_csv_rows(file))
    if suffix in (".jsonl", ".ndjson"):
        return list(_jsonl_rows(file))
    if suffix in (".parquet", ".pq"):
        return _parquet_rows(file)
    raise DataError(f"{file} is of no kind that showtell reads.", "It reads .csv, .tsv, .jsonl and .parquet.")


def _csv_rows(file: Path) -> Iterator[TableRow]:
    text = read_text(file)
    header = text.partition("\n")[0]
    delimiter = "\t" if suffix_of(file) == ".tsv" else max(",;\t|", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            if None in row:
                raise DataError(
                    f"{file}, line {reader.line_num} has more cells than the header.",
                    f"Put captions that hold '{delimiter}' in quotation marks.",
                )
            yield {column.strip(): value for column, value in row.items()}
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num} is not CSV: {error}.") from error


def _jsonl_rows(file: Path) -> Iterator[TableRow]:
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{file}, line {number} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise DataError(f"{file}, line {number} is not a JSON object: {line[:60]!r}.")
        yield row


def _parquet_rows(file: Path) -> list[TableRow]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("Reading Parquet", "tables") from None
    try:
        rows: list[TableRow] = pyarrow.parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} is not Parquet: {' '.join(str(error).split())}.") from error
    return rows


def find_columns(file: Path, rows: list[TableRow], asked: Mapping[str, str]) -> dict[str, str]:
    """The names of the image, caption and (if there is one) split columns: asked for, or well known.

    Raises:
        DataError: the image or caption column is not found; the message lists those that there are.
    """
    if not rows:
        raise DataError(f"{file} has no rows.")
    there: Iterable[str] = dict.fromkeys(column for row in rows for column in row)  # JSONL rows may differ
    by_name = {column.lower(): column for column in there}
    columns = {}
    for role, known in COLUMNS.items():
        looked_for = (asked[role],) if role in asked else known
        column = next((by_name[name.lower()] for name in looked_for if name.lower() in by_name), None)
        if column is not None:
            columns[role] = column
        elif role != "split" or role in asked:
            raise DataError(
                f"{file} has no {role} column; its columns are {', '.join(there)}.",
                f"Looked for {', '.join(looked_for)}; name it: table:{file},{role}=COLUMN.",
            )
    return columns


def captions_of(cell: object) -> list[str]:
    """A cell's captions: one text, or a list of them, in CSV written as JSON."""
    if isinstance(cell, str) and cell.startswith("[") and cell.endswith("]"):
        try:
            cell = json.loads(cell)
        except ValueError:
            return [str(cell)]
    if isinstance(cell, list):
        return [text for text in cell if isinstance(text, str) and text.strip()]
    return [cell] if isinstance(cell, str) and cell.strip() else []


def _image_name(file: Path, number: int, image: object) -> str:
    if not isinstance(image, str):
        kind = type(image).__name__
        raise DataError(f"{file}, row {number}: the image column holds {kind}, not the path of a file.")
    if "://" in image:
        raise DataError(f"{file}, row {number}: {image} is an address.", "Download the images and name their files.")
    return image


def split_of(file: Path, number: int, cell: object) -> Split:
    """The split that a cell names. Raises DataError."""
    split = SPLIT_NAMES.get(str(cell).strip().lower())
    if split is None:
        raise DataError(f"{file}, row {number}: '{cell}' is no split.", f"Splits are {', '.join(SPLIT_NAMES)}.")
    return split
