"""A table of images and captions: `table:FILE[,image=COLUMN][,caption=COLUMN][,split=COLUMN][,images=DIR]`.

CSV (commas, semicolons, tabs or bars), TSV, JSON, JSONL, or Parquet. An image may have several rows, or one row whose
caption column holds a list (in CSV, as JSON, Python or NumPy write it). Paths are relative to the table's folder, or to
`images=`. `columns=image,caption` names the columns of a table without a header row, `encoding=` the encoding of a text
that is not UTF-8. A split column (train, dev or val, test) gives the splits; otherwise we split the images, with the
shares of `split=90/5/5`.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from showtell.data.captions import captions_of, is_nothing
from showtell.data.dataset import SPLIT_NAMES, Dataset, Split, dataset_of_files, is_shares
from showtell.data.formats.layout import ENCODING, caption_lines, settings_of, slashed, split_by_file
from showtell.errors import DataError, UsageError, needs
from showtell.files import read_json, read_text, suffix_of
from showtell.images.names import is_image_name
from showtell.images.tables import COLUMNS, plain

SYNTAX = "FILE[,image=COLUMN][,caption=COLUMN][,split=COLUMN][,images=DIR][,columns=image,caption][,encoding=NAME]"

NO_ROWS = 'Write it as [{"image": "a.jpg", "caption": "a dog"}, ...].'

TableRow = Mapping[str, Any]


def load(location: str, *, photos: bool = True) -> Dataset:
    """The data set of one table. Raises DataError for its content, UsageError for an unknown setting."""
    file, asked = parse(location)
    rows = read_rows(file, asked)
    columns = find_columns(file, rows, asked)
    captions: dict[str, list[str]] = {}
    splits: dict[str, Split] = {}
    skipped = 0
    for number, row in enumerate(rows, start=1):
        image, texts = row.get(columns["image"]), captions_of(row.get(columns["caption"]), f"{file}, row {number}")
        if is_nothing(image) or not any(map(str.strip, texts)):
            skipped += 1
            continue
        image_id = _image_name(file, number, image)
        captions.setdefault(image_id, []).extend(texts)
        if "split" in columns:
            split = split_of(file, number, row.get(columns["split"]))
            if splits.setdefault(image_id, split) != split:
                raise DataError(f"{file}, row {number}: {image_id} is in {splits[image_id]} and in {split}.")
    notes = [f"Rows left out because they lack an image or a caption: {skipped:,}."] if skipped else []
    paths = _paths(captions, file, asked)
    if "split" not in columns:
        splits, note = split_by_file(paths, "There is no split column", asked)
        notes.append(note)
    way_out = f"Name their folder: table:{file},images=DIR."
    return dataset_of_files(file.name, captions, splits, paths, notes, photos=photos, way_out=way_out)


def parse(location: str) -> tuple[Path, dict[str, str]]:
    """The table's file and its settings: `FILE,image=COLUMN`. Raises UsageError for an unknown setting."""
    name, settings = settings_of(f"table:{location}", (*COLUMNS, "images", "columns", "encoding"))
    return Path(name).expanduser(), settings


def read_rows(file: Path, settings: Mapping[str, str]) -> list[TableRow]:
    """A table's rows, each a mapping from column to value. Raises DataError, and UsageError as `read_text`."""
    suffix = suffix_of(file)
    if not file.is_file():
        raise DataError(f"{file} is not a file.", "Name a CSV, TSV, JSON, JSONL or Parquet file.")
    if suffix in (".csv", ".tsv", ".txt"):
        return list(_csv_rows(file, settings))
    if "columns" in settings:
        raise UsageError(f"{file} names its columns itself.", "Leave out columns=.")
    if suffix == ".json":
        rows = read_json(file)
        known = {settings["caption"]} if "caption" in settings else COLUMNS["caption"]
        if isinstance(rows, dict) and not {*map(plain, rows)} & {*map(plain, known)}:
            raise DataError(f"{file} holds one object, not a list of rows.", NO_ROWS)
        return rows if isinstance(rows, list) else [rows]
    if suffix in (".jsonl", ".ndjson"):
        return list(_jsonl_rows(file, settings))
    if suffix in (".parquet", ".pq"):
        return _parquet_rows(file)
    raise DataError(
        f"{file} is not a kind of table that showtell reads.", "It reads .csv, .tsv, .json, .jsonl and .parquet."
    )


def _csv_rows(file: Path, settings: Mapping[str, str]) -> Iterator[TableRow]:
    """Rows, with column names from the first row or `columns=`; cells of columns with the same name form a list."""
    text = read_text(file, settings.get("encoding", "utf-8"), ENCODING)
    first, _, rest = text.partition("\n")
    if re.fullmatch("sep=[,;\t|]", first, re.IGNORECASE):  # Excel's own first line
        text, first = rest, rest.partition("\n")[0]
    delimiter = "\t" if suffix_of(file) == ".tsv" else max(",;\t|", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        names = settings["columns"].split(",") if "columns" in settings else next(reader, [])
        names = [name.strip() for name in names]
        twice = {name for name, times in Counter(names).items() if times > 1}
        for cells in filter(None, reader):
            while len(cells) > len(names) and not cells[-1]:  # trailing commas, as spreadsheets write them
                cells.pop()
            if len(cells) > len(names):
                raise DataError(
                    f"{file}, line {reader.line_num} has more cells than the header.",
                    f"Put captions that hold '{delimiter}' in quotation marks.",
                )
            named = list(zip(names, cells, strict=False))
            yield dict(named) | {name: [cell for other, cell in named if other == name] for name in twice}
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num} is not CSV: {error}.") from error


def _jsonl_rows(file: Path, settings: Mapping[str, str]) -> Iterator[TableRow]:
    for number, line in enumerate(caption_lines(file, settings), start=1):
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
    with needs("tables", "Reading Parquet"):
        import pyarrow
        import pyarrow.parquet
    try:
        rows: list[TableRow] = pyarrow.parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} is not Parquet: {' '.join(str(error).split())}.") from error
    return rows


def find_columns(file: Path, rows: Any, asked: Mapping[str, str]) -> dict[str, str]:
    """The names of the image, caption and (if there is one) split columns: requested, or well known.

    Raises:
        DataError: these are not rows, or the image or caption column is not found; the message lists the columns.
    """
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(f"{file} does not hold a list of objects with image_id and caption.")
    if not rows:
        raise DataError(f"{file} has no rows.")
    there: Iterable[str] = dict.fromkeys(column for row in rows for column in row)  # JSONL rows may differ
    by_name: dict[str, str] = {}
    for column in there:
        by_name.setdefault(plain(column), column)
    columns = {}
    for role, known in COLUMNS.items():
        if role == "split" and is_shares(asked.get(role, "")):
            continue  # a split other than a column's is requested
        looked_for = (asked[role],) if role in asked else known
        found = [name if name in there else by_name[plain(name)] for name in looked_for if plain(name) in by_name]
        if found:
            columns[role] = found[0]
        elif role != "split" or role in asked:
            headless = role == "image" and any(is_image_name(name.strip()) for name in there)
            raise DataError(
                f"{file} has no {role} column; its columns are {', '.join(there)}.",
                f"Its first row does not seem to be a header: table:{file},columns=image,caption."
                if headless
                else f"Looked for {', '.join(looked_for)}; name it: table:{file},{role}=COLUMN.",
            )
    return columns


def _paths(image_ids: Iterable[str], file: Path, asked: Mapping[str, str]) -> dict[str, Path]:
    """Where the images are. In `images=`, images with a full path from another machine are found by their names."""
    root = Path(asked.get("images", file.parent)).expanduser()
    names = Counter(PurePosixPath(image_id).name for image_id in image_ids) if "images" in asked else Counter()
    paths = {}
    for image_id in image_ids:
        name = PurePosixPath(image_id).name
        whole = PurePosixPath(image_id).is_absolute() or PureWindowsPath(image_id).drive
        paths[image_id] = root / (name if whole and names[name] == 1 else image_id)
    return paths


def _image_name(file: Path, number: int, image: object) -> str:
    if not isinstance(image, str):
        kind = type(image).__name__
        raise DataError(f"{file}, row {number}: the image column holds {kind}, not the path of a file.")
    if "://" in image:
        raise DataError(f"{file}, row {number}: {image} is an address.", "Download the images and name their files.")
    return slashed(image.strip())


def split_of(file: Path, number: int, cell: object) -> Split:
    """The split that a cell names. Raises DataError."""
    split = SPLIT_NAMES.get(str(cell).strip().lower())
    if split is None:
        raise DataError(f"{file}, row {number}: '{cell}' is not a split.", f"Splits are {', '.join(SPLIT_NAMES)}.")
    return split
