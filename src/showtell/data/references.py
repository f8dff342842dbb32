"""What people say about images, and what systems say, to be scored against each other: no image is needed.

References are any data set that `load` knows, or a file: COCO annotations, one of Karpathy's data sets, a table,
or a JSON object of image -> captions. Predictions are the COCO results format, what `showtell caption` and
`showtell evaluate` write, a table, or a JSON object of image -> caption.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from showtell.data.dataset import SPLIT_NAMES, Dataset
from showtell.data.formats import DATA_FORMATS, coco, karpathy, load, table
from showtell.errors import DataError, UsageError
from showtell.files import read_json, read_lines, suffix_of
from showtell.images.decode import SUFFIXES

SAMPLING = ("temperature", "top_k", "top_p", "seed")


@dataclass(frozen=True)
class References:
    """Images with the captions that people gave them."""

    captions: dict[str, Sequence[str]]
    """Image id -> captions, in the order of the file."""
    paths: dict[str, Path] = field(default_factory=dict)
    """Image id -> where its file is, or was; of images whose file name is known."""


@dataclass(frozen=True)
class Predictions:
    """One caption an image, by one system."""

    captions: dict[str, str]
    """Image id -> caption, in the order of the file."""
    decoding: str | None = None
    """How they were searched for, where the file says it: "beam=3,max_words=20"."""
    spare: int = 0
    """Further captions of images that have one; they are left out."""


def read_references(source: str | Path, split: str | None = None) -> References:
    """The references that a file or a SPEC such as `flickr8k:DIR` names; all, or those of one split.

    Raises:
        DataError: the file is not there or holds something else, or there is no such split.
        UsageError: it is no file and no SPEC, or it has no splits.
    """
    kind, _, rest = str(source).partition(":")
    if kind == "table" and rest:
        file, asked = table.parse(rest)
        return _of_rows(file, _rows(file), asked, split)
    if kind in DATA_FORMATS and rest:
        return _of_dataset(load(str(source), photos=False), split)
    file = _file(source)
    if suffix_of(file) != ".json":
        return _of_rows(file, _rows(file), {}, split)
    content = read_json(file)
    if isinstance(content, list):
        return _of_rows(file, content, {}, split)
    if not isinstance(content, dict) or not content:
        raise _not_references(file)
    images = content.get("images")
    if isinstance(images, list) and images and isinstance(images[0], dict) and "sentences" in images[0]:
        return _of_dataset(karpathy.dataset_of(file, content, file.parent, photos=False), split)
    if split is not None:
        raise UsageError(f"{file} has no splits.", "Leave out the split.")
    if "annotations" in content:
        return _of_coco(file, content)
    if all(isinstance(captions, str | list) for captions in content.values()):
        return References({image: table.captions_of(captions) for image, captions in content.items()})
    raise _not_references(file)


def read_predictions(source: str | Path) -> Predictions:
    """The predictions in a file, or in the columns that `table:FILE,image=COLUMN,caption=COLUMN` names.

    Where an image has several captions, as `showtell caption --num` writes them, the first counts: the best.

    Raises:
        DataError: the file is not there or holds something else.
        UsageError: it names no file.
    """
    kind, _, rest = str(source).partition(":")
    file, asked = table.parse(rest) if kind == "table" and rest else (_file(source), {})
    rows: Any
    decoding = None
    if suffix_of(file) == ".json":
        rows = read_json(file)
        if isinstance(rows, dict):
            decoding = _decoding(rows.get("search"))
            rows = rows.get(
                "predictions", rows.get("annotations", [{"image_id": i, "caption": c} for i, c in rows.items()])
            )
    elif suffix_of(file) == ".txt":
        rows = [_text_row(file, number, line) for number, line in enumerate(read_lines(file), 1) if line]
    else:
        rows = _rows(file)
    columns = _columns(file, rows, asked)
    captions: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        image_id = _image_id(file, number, row.get(columns["image"]))
        caption = row.get(columns["caption"])
        if isinstance(caption, list) and caption:
            caption = caption[0]
        if not isinstance(caption, str):
            raise DataError(f"{file}, row {number} has no caption of image {image_id}.")
        captions.setdefault(image_id, caption)
    return Predictions(captions, decoding, len(rows) - len(captions))


def matched(predictions: Predictions, references: References) -> Predictions:
    """The predictions by the references' image ids, as far as they can be found.

    An id matches if it is the same as text, or else by file name: `photos/17.jpg` is the image whose file is
    17.jpg or whose id is 17, and `COCO_val2014_000000000042.jpg` is image 42. Names of two images match neither.
    """
    image_of: dict[str, str | None] = {}
    for image_id in references.captions:
        path = references.paths.get(image_id)
        for name in {*_names(image_id), *(_names(str(path)) if path else ())}:
            image_of[name] = None if name in image_of else image_id
    captions: dict[str, str] = {}
    for image_id, caption in predictions.captions.items():
        found = image_id
        if image_id not in references.captions:
            found = next((i for name in _names(image_id) if (i := image_of.get(name)) is not None), image_id)
        captions.setdefault(found, caption)
    spare = predictions.spare + len(predictions.captions) - len(captions)
    return replace(predictions, captions=captions, spare=spare)


def _of_dataset(dataset: Dataset, split: str | None) -> References:
    examples = dataset.examples if split is None else dataset.split(split)
    return References(
        {example.image_id: example.captions for example in examples},
        {example.image_id: example.path for example in examples if example.path is not None},
    )


def _of_coco(file: Path, content: Mapping[str, Any]) -> References:
    """COCO annotations as they are written: in their order, an image without captions too."""
    captions: dict[str, Sequence[str]] = {}
    paths: dict[str, Path] = {}
    try:
        found: dict[str, list[str]] = {str(image["id"]): [] for image in content.get("images", ())}
        for note in content["annotations"]:
            found.setdefault(str(note["image_id"]), []).append(str(note["caption"]))
        captions |= found
        for image in content.get("images", ()):
            if "file_name" in image:
                paths[str(image["id"])] = file.parent / str(image["file_name"])
    except (KeyError, TypeError, AttributeError) as error:
        raise _not_references(file) from error
    return References(captions, paths)


def _of_rows(file: Path, rows: Sequence[Any], asked: Mapping[str, str], split: str | None) -> References:
    """References with a row for each caption, or for each image with a list of them."""
    columns = _columns(file, rows, asked)
    if split is not None and "split" not in columns:
        raise UsageError(
            f"{file} has no splits.", "Leave out the split, or name their column: table:FILE,split=COLUMN."
        )
    wanted = SPLIT_NAMES.get(split.lower()) if split is not None else None
    captions: dict[str, list[str]] = {}
    for number, row in enumerate(rows, start=1):
        if split is None or table.split_of(file, number, row.get(columns["split"])) == wanted:
            image_id = _image_id(file, number, row.get(columns["image"]))
            captions.setdefault(image_id, []).extend(table.captions_of(row.get(columns["caption"])))
    if not captions:
        raise DataError(f"{file} has no split '{split}'.")
    return References(dict(captions), {image_id: file.parent / image_id for image_id in captions})


def _rows(file: Path) -> Sequence[Any]:
    """A table's rows; a JSON file may hold them as a list."""
    if suffix_of(file) == ".json":
        rows = read_json(file)
        return rows if isinstance(rows, list) else [rows]
    return table.read_rows(file)


def _columns(file: Path, rows: Any, asked: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file} does not hold a list of objects with image_id and caption.")
    by_id = {"image": "image_id"} if any("image_id" in row for row in rows) else {}
    return table.find_columns(file, rows, {**by_id, **asked})


def _image_id(file: Path, number: int, value: object) -> str:
    """An id as text: 42, "42" and 42.0 are the same image."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(f"{file}, row {number} has no image id.")
    return str(value)


def _text_row(file: Path, number: int, line: str) -> dict[str, str]:
    """A row of what `showtell caption` prints: the image, a tab, the caption."""
    image, tab, caption = line.partition("\t")
    if not tab:
        raise DataError(f"{file}, line {number} is not 'image<tab>caption': {line[:60]!r}.")
    return {"image_id": image, "caption": caption}


def _names(image_id: str) -> Iterable[str]:
    """What else an image may be called, the likeliest first."""
    path = Path(image_id.replace("\\", "/"))
    stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
    number = coco.IMAGE_NAME.fullmatch(stem)
    return dict.fromkeys([path.name, stem, *([str(int(number[1]))] if number else [])])


def _decoding(search: object) -> str | None:
    """The options of a search that differ from none, on one line."""
    if not isinstance(search, dict):
        return None
    sampled = bool(search.get("sample"))
    idle = {"num", "sample", *(["beam"] if sampled else SAMPLING)}
    options = [
        f"{name}={'+'.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in search.items()
        if name not in idle and value
    ]
    return ",".join(["sample"] * sampled + options)


def _file(name: str | Path) -> Path:
    file = Path(name).expanduser()
    if file.is_dir():
        forms = ", ".join(f"{name}:{file}" for name in ("flickr8k", "flickr30k", "coco"))
        raise UsageError(f"{file} is a folder.", f"Name a file, or say what it holds: {forms}.")
    if not file.is_file():
        raise DataError(
            f"{file} is not a file.", f"Data sets are named {', '.join(f'{name}:' for name in DATA_FORMATS)}."
        )
    return file


def _not_references(file: Path) -> DataError:
    return DataError(
        f"{file} holds no references.",
        "It may hold COCO annotations, one of Karpathy's data sets, or an object of image -> list of captions.",
    )
