"""Files that hold many images: tar shards (WebDataset) and Parquet tables (Hugging Face data sets).

What is in them is listed without reading an image. A shard's members are then read where they lie, in any order; a
table's rows only one after the other, a few at a time, so that memory does not depend on the size of a row group.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from showtell.data.table import COLUMNS
from showtell.errors import DataError, ImageError, MissingExtraError, UsageError

TABLE_SUFFIXES = (".parquet", ".pq")
ROWS_READ_TOGETHER = 16
BUFFER = 2**20  # bytes of a column that are read at a time
END_OF_SHARD = bytes(2 * tarfile.BLOCKSIZE)


def shard_members(shard: str) -> Iterator[tuple[str, int, int]]:
    """The files in a tar shard, in its order: name, and the bytes' place and number.

    Raises:
        DataError: it is no tar file, is compressed, or ends too early; after those that come before.
    """
    try:
        with tarfile.open(shard, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else it keeps them all
                if member.isreg() and not member.issparse():
                    yield member.name.removeprefix("./"), member.offset_data, member.size
    except tarfile.TarError as error:
        if _is_compressed(shard):
            raise DataError(f"{shard} is compressed.", "Unpack it; the tar file itself is read in place.") from None
        raise DataError(f"{shard} is damaged or no tar file: {error}.", "Fetch it again.") from error
    except OSError as error:
        raise DataError(f"{shard} can't be read: {error.strerror or error}.") from None


def member_bytes(shard: str, name: str, offset: int, size: int) -> BinaryIO:
    """One member of a shard, as an open file that errors call `name`.

    Raises:
        ImageError: the shard can't be read any more, or is shorter than it was.
    """
    try:
        with Path(shard).open("rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise ImageError(f"{name} can't be read: {error.strerror or error}.") from None
    if len(data) < size:
        raise ImageError(f"{name} is cut off: its shard ends within it.")
    return named(data, name)


def as_member(name: str, data: bytes) -> bytes:
    """A file as it stands in a tar file, the same at any time: dates and owners are left out."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    return header.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def written_samples(shard: Path) -> Iterator[tuple[str, Any, int]]:
    """The samples of a shard that was written here, as far as they are whole: key, JSON, the byte behind them."""
    length = shard.stat().st_size
    try:
        for name, offset, size in shard_members(str(shard)):
            end = offset + size + -size % tarfile.BLOCKSIZE
            if name.endswith(".json") and end <= length:
                data = member_bytes(str(shard), name, offset, size).read()
                yield name.removesuffix(".json"), _json(data), end
    except DataError:  # an interruption has cut it off here
        return


def table_rows(table: str, column: str | None) -> tuple[str, list[str]]:
    """The column of a table that holds images, and what each row's image is called.

    A row's name is the path beside its bytes (as Hugging Face data sets have it) where these are all there and all
    different, else the row's number from 0.

    Args:
        table: a Parquet file.
        column: what the column is called; None to find it.

    Raises:
        DataError: it is not Parquet, or has no column of images.
        UsageError: there is no such column, or several without a usual name and none was asked for.
        MissingExtraError: pyarrow is not installed.
    """
    file = _opened(table)
    try:
        found = _image_column(table, file.schema_arrow, column)
        rows = file.metadata.num_rows
        if f"{found}.path" in _leaves(file):
            batches = file.iter_batches(batch_size=65_536, columns=[f"{found}.path"], use_threads=False)
            paths = [row["path"] if row else "" for batch in batches for row in batch.column(0).to_pylist()]
            if all(paths) and len(set(paths)) == rows:
                return found, paths
        return found, [str(row) for row in range(rows)]
    finally:
        file.close()


def read_rows(table: str, column: str, rows: Sequence[int]) -> Iterator[bytes | ImageError]:
    """The images of some of a table's rows, given in rising order; what else the groups of rows hold is passed over.

    Yields:
        A file's bytes for each row, or why there are none.
    """
    wanted = iter(rows)
    row = next(wanted, None)
    try:
        file = _opened(table)
        leaves = [leaf for leaf in (f"{column}.bytes", column) if leaf in _leaves(file)][:1]
        first = 0  # row of the group
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
            first = end
    except Exception as error:  # pyarrow's errors have no common class; the rows that are left all fail
        reason = error.problem if isinstance(error, DataError) else f"{table} is damaged: {_line(error)}."
        while row is not None:
            yield ImageError(f"Row {row}: {reason}")
            row = next(wanted, None)


def named(data: bytes, name: str) -> BinaryIO:
    """A file in memory that errors call by its name."""
    file = io.BytesIO(data)
    file.name = name
    return file


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


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
    usual = [name for name in able if name.lower() in COLUMNS["image"]]
    if not able:
        raise DataError(f"{table} has no column of image files (bytes).", _listed(able, schema))
    if len(able) > 1 and len(usual) != 1:
        raise UsageError(f"{table} has {len(able)} columns of image files.", f"Say --column: {', '.join(able)}.")
    return (usual or able)[0]


def _listed(able: list[str], schema: Any) -> str:
    if able:
        return f"There is {', '.join(able)}."
    return f"Its columns are {', '.join(f'{field.name} ({field.type})' for field in schema)}."


def _leaves(file: Any) -> list[str]:
    """The columns as they are stored, fields of structs apart: 'image.bytes', 'image.path'."""
    return [file.schema.column(number).path for number in range(len(file.schema))]


def _opened(table: str) -> Any:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise MissingExtraError("Reading Parquet", "tables") from None
    try:
        return ParquetFile(table, buffer_size=BUFFER, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{table} is not Parquet: {_line(error)}.") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _is_compressed(shard: str) -> bool:
    """Whether the file begins as gzip, bzip2, xz or Zstandard do."""
    with Path(shard).open("rb") as file:
        return file.read(4).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5\x2f\xfd"))
