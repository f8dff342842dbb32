"""Hugging Face data sets: `hub:NAME[,image=COLUMN][,caption=COLUMN][,id=COLUMN][,split=COLUMN][,config=NAME]
[,revision=COMMIT][,streaming]`.

NAME is org/name on the Hub, or a local folder: of Parquet files, of images with metadata, or one that `save_to_disk`
wrote. Rows with the same id are one image. `caption=` may name several columns (`caption_*`).

Usually `datasets` downloads everything to this disk, where images are read in any order. With `streaming` nothing is
kept: one pass reads the captions (and only their columns of Parquet files), and a later pass puts the features of the
images into the feature cache. A stream has a fixed order, so an encoder can't be trained on it: see `Stream`.
"""

import re
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from showtell.data.captions import captions_of, empty_captions, id_of, tidy
from showtell.data.dataset import SPLIT_NAMES, Dataset, Example, is_shares
from showtell.data.formats.layout import common_folder, settings_of, slashed, split_by_name
from showtell.errors import DataError, needs, reason_of
from showtell.images.storage import ContainedImage, read_file
from showtell.images.tables import COLUMNS, plain

SYNTAX = "NAME[,image=COLUMN][,caption=COLUMN][,id=COLUMN][,split=COLUMN][,config=NAME][,streaming]"

SETTINGS = ("image", "caption", "id", "split", "config", "revision")
IMAGE_IDS = ("image_id", "img_id", "imgid", "cocoid", "filename", "file_name", "image_name", "__key__", "key")
NUMBERED = re.compile(r"(caption|sentence|text|description)s?_?\d+")
READ_AHEAD = 256  # images of a stream that are kept for threads that have not asked for them yet
ROWS = 1000  # read together, from columns without images

Key = tuple[str, str]
"""The part that an image is in, and its id."""
Cell = Mapping[str, Any]
"""An image as it is stored: `bytes`, or the `path` of its file."""


@dataclass(frozen=True, slots=True)
class Columns:
    image: str
    captions: tuple[str, ...]
    image_id: str | None
    split: str | None

    @property
    def texts(self) -> list[str]:
        return [*self.captions, *filter(None, (self.image_id, self.split))]


@dataclass(frozen=True, slots=True)
class HubImage(ContainedImage):
    """The image in a row of a data set on this disk, or of a stream."""

    name: str
    container: str
    version: str
    """Its length in bytes; in a stream, its number."""
    rows: Any = field(repr=False, compare=False)
    """The rows: a `datasets.Dataset` with images only, or a `Stream`."""
    column: str
    number: int

    @property
    def stamp(self) -> str:
        return self.version

    @property
    def in_order_only(self) -> bool:
        """Whether it is very slow to read in a different order from that of the rows."""
        return isinstance(self.rows, Stream)

    def read(self) -> bytes:
        """The image file. Raises DataError if it can't be read now."""
        try:
            cell: Cell = self.rows[self.number][self.column]
        except Exception as error:  # from Arrow or the network
            raise DataError(f"{self.name} can't be read: {reason_of(error)}.", "Run the command again.") from error
        content: bytes | None = cell.get("bytes")
        return read_file(str(cell["path"])) if content is None else content


class Stream:
    """The rows of a stream by their number, for callers that ask for them nearly in order.

    Threads may ask for rows a little out of order. A request for a much earlier row restarts the stream and skips
    everything before that row.
    """

    def __init__(self, rows: Any) -> None:
        self._all = rows
        self._rest: Iterator[Mapping[str, Any]] = iter(())
        self._next = -1  # number of the row that comes next; -1: the stream is not open
        self._waiting: dict[int, Mapping[str, Any]] = {}
        self._lock = threading.Lock()

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        """A row. Raises what the stream raises, and IndexError if it has become shorter."""
        with self._lock:
            if number in self._waiting:
                return self._waiting.pop(number)
            if not 0 <= self._next <= number:
                self._waiting.clear()
                self._rest, self._next = iter(self._all.skip(number)), number
            try:
                while self._next < number:
                    self._waiting[self._next] = next(self._rest)
                    self._next += 1
                    if len(self._waiting) > READ_AHEAD:
                        del self._waiting[min(self._waiting)]
                self._next += 1
                return next(self._rest)
            except BaseException as error:
                self._next = -1  # however it ended, the next request restarts it
                if isinstance(error, StopIteration):
                    raise IndexError("the stream has become shorter") from None
                raise


def load(where: str, *, photos: bool = True) -> Dataset:
    """The data set.

    Raises:
        DataError: it can't be read, or has no column of images or of captions.
        UsageError: a setting is unknown.
    """
    name, settings = settings_of(f"hub:{where}", SETTINGS, flags=("streaming",))
    streaming = "streaming" in settings
    parts = _opened(name, settings, streaming)
    columns = find_columns(name, parts, settings)
    captions: dict[Key, list[str]] = {}
    told: dict[Key, str] = {}
    images: dict[Key, HubImage] = {}
    captionless = empty = others = 0
    for part, rows in parts.items():
        images_alone = _images_of(rows, columns.image)
        source = Stream(images_alone) if streaming else images_alone
        ids = () if streaming or columns.image_id else _paths(images_alone, columns.image)
        texts = _texts(rows, columns, name, part, settings, streaming)
        lengths = () if streaming else _lengths(images_alone, columns.image)
        for number, row in enumerate(texts):
            said = id_of(row[columns.image_id]) if columns.image_id else ids[number] if ids else None
            key = (part, said or f"{number:08}")
            version = str(lengths[number] if lengths else number)
            if key in images and lengths and images[key].version != version:
                key = (part, f"{key[1]} of {version} bytes")  # a different image, which must not be lost
                others += key not in images
            where = f"hub:{name}, {part}, row {number}"
            texts_here = [tidy(text) for column in columns.captions for text in captions_of(row[column], where)]
            found = list(filter(None, texts_here))
            captions.setdefault(key, []).extend(found)
            captionless += not found
            empty += len(texts_here) - len(found) if found else 0
            if columns.split and told.setdefault(key, split := str(row[columns.split])) != split:
                raise DataError(f"hub:{name}: {key[1]} is in {told[key]} and in {split}.")
            if key not in images:
                called = f"{name}, {part}: {key[1]}"
                images[key] = HubImage(called, f"hub:{name}", version, source, columns.image, number)
    keys = [key for key, texts in captions.items() if texts]
    if not keys:
        raise DataError(f"{name} has no captions in {', '.join(columns.captions)}.")
    names = _image_ids(keys)
    parts_say = {names[key]: SPLIT_NAMES.get(key[0].strip().lower()) for key in keys}
    why = "Neither a column nor the parts name train, dev and test"
    splits, notes = split_by_name({names[key]: told.get(key) for key in keys}, parts_say, why, settings)
    if captionless:
        notes.append(f"Rows without a caption: {captionless:,}.")
    notes += empty_captions(empty)
    if others:
        notes.append(f"Images with the same name as another one: {others:,}; they are told apart by their size.")
    examples = tuple(
        Example(names[key], splits[names[key]], tuple(captions[key]), stored=images[key])
        for key in keys
        if names[key] in splits
    )
    return Dataset(Path(name).name, examples, notes=tuple(notes))


def find_columns(name: str, parts: Mapping[str, Any], settings: Mapping[str, str]) -> Columns:
    """The columns that were requested, or that have a well-known name or content. Raises DataError."""
    features = next(iter(parts.values())).features
    there = list(features)
    lower: dict[str, str] = {}
    for column in there:
        lower.setdefault(plain(column), column)

    def one(role: str, known: Iterable[str]) -> str | None:
        if role == "split" and is_shares(settings.get(role, "")):
            return None  # a split other than a column's is requested
        asked = [settings[role]] if role in settings else known
        return next((c if c in there else lower[plain(c)] for c in asked if plain(c) in lower), None)

    pictures = [column for column in there if _holds_images(features[column])]
    image = one("image", pictures)
    if "caption" in settings:
        captions = [column for column in there if fnmatchcase(column, settings["caption"])]
    else:
        first = one("caption", (*COLUMNS["caption"], "txt"))
        captions = [first] if first else [column for column in there if NUMBERED.fullmatch(column.lower())]
    for role, found in (("image", image), ("caption", captions)):
        if not found or (role == "image" and image not in pictures):
            raise DataError(
                f"{name} has no {role} column; its columns are {', '.join(there)}.",
                f"Name it: hub:{name},{role}=COLUMN.",
            )
    assert image is not None
    image_id, split = one("id", IMAGE_IDS), one("split", COLUMNS["split"])
    for role, found in (("id", image_id), ("split", split)):
        if role in settings and found is None and not is_shares(settings[role]):
            raise DataError(f"{name} has no column '{settings[role]}'; its columns are {', '.join(there)}.")
    return Columns(image, tuple(captions), image_id, split)


def _holds_images(feature: Any) -> bool:
    """Whether a column holds image files: by its type, or as their bytes and names."""
    return type(feature).__name__ == "Image" or (isinstance(feature, Mapping) and "bytes" in feature)


def _opened(name: str, settings: Mapping[str, str], streaming: bool, **options: Any) -> dict[str, Any]:
    """Its parts by name, `datasets.Dataset`s or, streamed, `IterableDataset`s with known columns. Raises DataError."""
    with needs("datasets", "Reading Hugging Face data sets"):
        import datasets
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    folder = Path(name).expanduser()
    try:
        if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
            found = datasets.load_from_disk(str(folder))
        else:
            found = datasets.load_dataset(
                str(folder) if folder.is_dir() else name,
                settings.get("config"),
                revision=settings.get("revision"),
                streaming=streaming,
                **options,
            )
    except Exception as error:  # from the Hub or the files
        raise DataError(f"hub:{name} can't be opened: {reason_of(error)}.") from error
    parts = dict(found) if isinstance(found, dict) else {str(found.split or "train"): found}
    if streaming:
        parts = {part: rows if rows.features else rows._resolve_features() for part, rows in parts.items()}
    return parts


def _images_of(rows: Any, column: str) -> Any:
    """Only the images, as they are stored: `bytes` and `path`."""
    import datasets

    return rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))


def _texts(
    rows: Any, columns: Columns, name: str, part: str, settings: Mapping[str, str], streaming: bool
) -> Iterator[Mapping[str, Any]]:
    """Each row without its image. Raises DataError if a stream breaks off."""
    if streaming:
        with suppress(DataError):  # only Parquet files can be read by column
            rows = _opened(name, settings, streaming, columns=columns.texts)[part]
    try:
        for batch in rows.select_columns(columns.texts).iter(ROWS):
            yield from (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))
    except OSError as error:
        raise DataError(f"hub:{name} broke off: {reason_of(error)}.", "Run the command again.") from error


def _paths(rows: Any, column: str) -> Sequence[str | None]:
    """The file names of the images, if they are stored; nothing else is read."""
    import pyarrow.compute as compute

    found = rows.with_format("arrow")[:].column(column)
    paths = compute.struct_field(found, "path").to_pylist()
    whole = {path: slashed(path) for path in {*paths} if path}
    names = Counter(Path(path).name for path in whole.values())
    common = common_folder(whole.values())
    return [  # 1.png in two folders means two images
        (name if names[name := Path(whole[path]).name] == 1 else whole[path].removeprefix(common)) if path else None
        for path in paths
    ]


def _lengths(rows: Any, column: str) -> Sequence[int]:
    """The images' sizes in bytes, without reading them."""
    import pyarrow.compute as compute

    found = rows.with_format("arrow")[:].column(column)
    lengths = compute.binary_length(compute.struct_field(found, "bytes")).to_pylist()
    paths = compute.struct_field(found, "path").to_pylist()
    return [
        Path(path).stat().st_size if length is None and path and Path(path).is_file() else length or 0
        for length, path in zip(lengths, paths, strict=True)
    ]


def _image_ids(keys: Sequence[Key]) -> dict[Key, str]:
    """The name of each image; with its part before it if two parts use the same names."""
    unique = max(Counter(image_id for _, image_id in keys).values()) == 1
    return {(part, image_id): image_id if unique else f"{part}/{image_id}" for part, image_id in keys}
