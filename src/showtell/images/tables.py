"""Parquet tables of images (such as Hugging Face data sets): the name of each row, and its file's bytes.

Rows are listed without reading an image, and then read in order, a few at a time, so that memory does not depend on
the size of a row group. Tables are on this disk or at an address.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from showtell.errors import DataError, ImageError, UsageError, needs, reason_of
from showtell.images.names import is_remote
from showtell.images.storage import ImageBytes, StoredImage, open_file

# Usual names of each column, for specs that don't name it, the likeliest first; compared as `plain` spells them.
COLUMNS = {
    "image": (
        "image", "image_path", "file_name", "filename", "filepath", "file_path", "image_file", "image_name", "path",
        "file", "img", "img_path", "photo", "picture", "image_id",
    ),
    "caption": (
        "caption", "captions", "text", "texts", "sentence", "sentences", "description", "descriptions", "comment",
        "comments", "title", "alt_text", "alt",
    ),
    "split": ("split", "partition", "subset", "set", "fold"),
}  # fmt: skip

ROWS_READ_TOGETHER = 16
BUFFER = 2**20  # bytes of a column that are read at a time


def plain(column: str) -> str:
    """A column name for comparison: Image Name, image-name and imageName all become image_name."""
    return re.sub(r"[\s_.-]+", "", column).lower()


@dataclass(frozen=True, slots=True)
class TableImage(StoredImage):
    """The image in a row of a table, called TABLE/ROW."""

    name: str
    table: str
    column: str
    row: int

    def read(self) -> bytes:
        """This row alone; much of its table must be read for it."""
        return next(in_order([self])).read()


def in_order(images: Iterable[StoredImage]) -> Iterator[StoredImage]:
    """The same images; those of a table are read on the way, in order, as they are asked for."""
    for (table, column), group in groupby(images, key=_table_of):
        if table is None:
            yield from group
            continue
        rows = [image for image in group if isinstance(image, TableImage)]
        for image, data in zip(rows, read_rows(table, column, [image.row for image in rows]), strict=True):
            yield ImageBytes(image.name, data)


def table_rows(table: str, column: str | None) -> tuple[str, list[str]]:
    """The column of a table that holds images, and what each row's image is called.

    A row's name is the path beside its bytes (as in Hugging Face data sets) if all paths exist and differ, else the
    row's number from 0.

    Args:
        table: a Parquet file.
        column: the column's name; None to find it.

    Raises:
        DataError: it is not Parquet, has no column of images, or no rows.
        UsageError: there is no such column; or none was asked for, and several exist without a usual name.
        MissingExtraError: pyarrow is not installed.
    """
    with _opened(table) as file:
        found = _image_column(table, file.schema_arrow, column)
        rows = file.metadata.num_rows
        if not rows:
            raise DataError(f"{table}: this table has no rows.")
        if f"{found}.path" in _leaves(file):
            batches = file.iter_batches(batch_size=65_536, columns=[f"{found}.path"], use_threads=False)
            paths = [row["path"] if row else "" for batch in batches for row in batch.column(0).to_pylist()]
            if all(paths) and len(set(paths)) == rows:
                return found, paths
        return found, [str(row) for row in range(rows)]


def row_groups(table: str) -> list[int]:
    """The number of rows in each row group of a table. Raises as above."""
    with _opened(table) as file:
        return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]


def read_rows(table: str, column: str, rows: Sequence[int]) -> Iterator[bytes | ImageError]:
    """The images of some rows of a table, given in ascending order; the other rows are skipped.

    Yields:
        The bytes of each row's file, or the error in their place.
    """
    wanted = iter(rows)
    row = next(wanted, None)
    try:
        file = _opened(table)
        leaves = [leaf for leaf in (f"{column}.bytes", column) if leaf in _leaves(file)][:1]
        first = 0  # number of the group's first row
        for group in range(file.num_row_groups):
            end = first + file.metadata.row_group(group).num_rows
            if row is None:
                return
            if row < end:
                for batch in file.iter_batches(ROWS_READ_TOGETHER, [group], leaves, use_threads=False):
                    while row is not None and row < first + len(batch):
                        yield _bytes_of(batch.column(0)[row - first].as_py(), table, row)
                        row = next(wanted, None)
                    first += len(batch)
                    if row is None or row >= end:
                        break
            first = end
    except Exception as error:  # pyarrow's errors have no common class; the rows that are left all fail
        reason = error.problem if isinstance(error, DataError) else f"{table} is damaged: {reason_of(error)}."
        while row is not None:
            yield ImageError(f"Row {row}: {reason}")
            row = next(wanted, None)


def _bytes_of(cell: Any, table: str, row: int) -> bytes | ImageError:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    return data if data else ImageError(f"{table}, row {row}: the image is missing.")


def _image_column(table: str, schema: Any, asked: str | None) -> str:
    import pyarrow.types as types

    def holds_files(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(field.name == "bytes" and holds_files(field.type) for field in kind)
        return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))

    able: list[str] = [field.name for field in schema if holds_files(field.type)]
    if asked is not None:
        if asked not in able:
            raise UsageError(f"{table} has no column '{asked}' of image files.", _listed(able, schema))
        return asked
    usual = [name for name in able if plain(name) in map(plain, COLUMNS["image"])]
    if not able:
        raise DataError(f"{table} has no column of image files (bytes).", _listed(able, schema))
    if len(able) > 1 and len(usual) != 1:
        raise UsageError(
            f"{table} has {len(able)} columns of image files.", f"Choose one with --column: {', '.join(able)}."
        )
    return (usual or able)[0]


def _listed(able: list[str], schema: Any) -> str:
    if able:
        return f"Choose from: {', '.join(able)}."
    return f"Its columns are {', '.join(f'{field.name} ({field.type})' for field in schema)}."


def _leaves(file: Any) -> list[str]:
    """The columns as they are stored, fields of structs apart: 'image.bytes', 'image.path'."""
    return [file.schema.column(number).path for number in range(len(file.schema))]


def _opened(table: str) -> Any:
    with needs("tables", "Reading Parquet"):
        import pyarrow
        from pyarrow.parquet import ParquetFile
    try:
        return ParquetFile(open_file(table) if is_remote(table) else table, buffer_size=BUFFER, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{table} is not Parquet: {reason_of(error)}.") from error


def _table_of(image: StoredImage) -> tuple[str | None, str]:
    return (image.table, image.column) if isinstance(image, TableImage) else (None, "")
