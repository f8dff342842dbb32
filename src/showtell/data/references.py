"""Captions by people and captions by systems, to score one against the other; images are not needed.

References are any data set that `load` knows, or a file: COCO annotations, one of Karpathy's data sets, a table,
or a JSON object of image -> captions. Predictions are in the COCO results format, in the formats that `showtell
caption` and `showtell evaluate` write, a table, or a JSON object of image -> caption.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from showtell.data.captions import TEXT_FIELDS, captions_of, empty_captions, id_of
from showtell.data.dataset import SPLIT_NAMES, Dataset
from showtell.data.formats import DATA_FORMATS, coco, karpathy, load, table
from showtell.data.formats.guess import format_of
from showtell.data.formats.layout import slashed
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
    """Image id -> where its file is, or was, if its file name is known."""
    notes: tuple[str, ...] = ()
    """What a user should know about how the file was read: one sentence each."""


@dataclass(frozen=True)
class Predictions:
    """One caption per image, by one system."""

    captions: dict[str, str]
    """Image id -> caption, in the order of the file."""
    decoding: str | None = None
    """The search options, if the file says them: "beam=3,max_words=20"."""
    spare: int = 0
    """Further captions of an image; they are left out."""
    notes: tuple[str, ...] = ()
    """What a user should know about how the file was read: one sentence each."""


def read_references(source: str | Path, split: str | None = None) -> References:
    """The references in a file or in a SPEC such as `flickr8k:DIR`: all, or those of one split.

    Raises:
        DataError: the file is missing or holds something else, or there is no such split.
        UsageError: it is neither a file nor a SPEC, or it has no splits.
    """
    kind, _, rest = str(source).partition(":")
    if kind == "table" and rest:
        return _of_table(*table.parse(rest), split)
    if kind in DATA_FORMATS and rest:
        return _of_dataset(load(str(source), photos=False), split)
    if Path(source).expanduser().is_dir() and format_of(str(source)) is not None:
        return _of_dataset(load(str(source), photos=False), split)
    file = _file(source)
    if suffix_of(file) != ".json":
        return _of_table(file, {}, split)
    content = read_json(file)
    if isinstance(content, list):
        return _of_table(file, {}, split)
    if not isinstance(content, dict) or not content:
        raise _not_references(file)
    images = content.get("images")
    if isinstance(images, list) and images and isinstance(images[0], dict) and "sentences" in images[0]:
        return _of_dataset(karpathy.dataset_of(file, content, file.parent, photos=False), split)
    if "annotations" in content:
        return _of_coco(file, content) if split is None else _of_dataset(load(f"coco:{file}", photos=False), split)
    if split is not None:
        raise UsageError(f"{file} has no splits.", "Leave out the split.")
    if all(isinstance(captions, str | list | dict | None) for captions in content.values()):
        return _told(file, {image: captions_of(said, f"{file}, {image}") for image, said in content.items()})
    raise _not_references(file)


def read_predictions(source: str | Path) -> Predictions:
    """The predictions in a file, or in the columns that `table:FILE,image=COLUMN,caption=COLUMN` names.

    If an image has several captions, as from `showtell caption --num`, the first counts: it is the best.

    Raises:
        DataError: the file is missing or holds something else.
        UsageError: it does not name a file.
    """
    kind, _, rest = str(source).partition(":")
    file, asked = table.parse(rest) if kind == "table" and rest else (_predictions_file(source), {})
    rows: Any
    decoding = None
    if suffix_of(file) == ".json":
        rows = read_json(file)
        if isinstance(rows, dict):
            decoding = _decoding(rows.get("search"))
            of_images = [{"image_id": image_id, "caption": said} for image_id, said in rows.items()]
            inside = next(filter(_are_rows, rows.values()), of_images)  # {"results": [...]}
            rows = rows.get("predictions", rows.get("annotations", inside))
    elif suffix_of(file) == ".txt" and not asked:
        rows = [_text_row(file, number, line) for number, line in enumerate(read_lines(file), 1) if line]
    else:
        rows = table.read_rows(file, asked)
    columns = _columns(file, rows, asked)
    captions: dict[str, str] = {}
    left_out = 0
    for number, row in enumerate(rows, start=1):
        image_id = _image_id(file, number, row.get(columns["image"]))
        caption = _best(row.get(columns["caption"]), f"{file}, row {number}")
        if caption is None:
            left_out += 1
        else:
            captions.setdefault(image_id, caption)
    notes = [f"{file}: captions left out because they are null or not text: {left_out:,}."] if left_out else []
    return Predictions(captions, decoding, len(rows) - len(captions) - left_out, tuple(notes))


def matched(predictions: Predictions, references: References) -> Predictions:
    """The predictions by the references' image ids, if these can be found.

    An id matches as text, or else by file name: `photos/17.jpg` is the image whose file is
    17.jpg or whose id is 17, and `COCO_val2014_000000000042.jpg` is image 42. A name of two images matches neither.
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
        dataset.notes,
    )


def _of_coco(file: Path, content: Mapping[str, Any]) -> References:
    """COCO annotations as they are: in their order, and with images that have no captions."""
    names, texts = coco.read(file, {"images": [], **content})
    captions = {image_id: texts.get(image_id, []) for image_id in (*names, *(i for i in texts if i not in names))}
    return _told(file, captions, {image_id: file.parent / name for image_id, name in names.items() if name})


def _of_table(file: Path, asked: Mapping[str, str], split: str | None) -> References:
    """References with a row for each caption, or for each image with a list of captions.

    Without a split column, the splits are those that the table has as a data set.
    """
    rows = table.read_rows(file, asked)
    columns = _columns(file, rows, asked)
    if split is not None and "split" not in columns:
        spec = ",".join([f"table:{file}", *(f"{name}={value}" for name, value in asked.items())])
        return _of_dataset(load(spec, photos=False), split)
    wanted = SPLIT_NAMES.get(split.lower()) if split is not None else None
    captions: dict[str, list[str]] = {}
    for number, row in enumerate(rows, start=1):
        if split is None or table.split_of(file, number, row.get(columns["split"])) == wanted:
            image_id = _image_id(file, number, row.get(columns["image"]))
            said = captions_of(row.get(columns["caption"]), f"{file}, row {number}")
            captions.setdefault(image_id, []).extend(said)
    if not captions:
        raise DataError(f"{file} has no split '{split}'.")
    return _told(file, captions, {image_id: file.parent / image_id for image_id in captions})


def _told(file: Path, captions: Mapping[str, Sequence[str]], paths: Mapping[str, Path] | None = None) -> References:
    """References without empty captions, which are counted."""
    found = {image_id: list(filter(str.strip, texts)) for image_id, texts in captions.items()}
    empty = sum(len(captions[image_id]) - len(texts) for image_id, texts in found.items())
    notes = tuple(f"{file}: {note}" for note in empty_captions(empty))
    return References(dict(found), dict(paths or {}), notes)


def _columns(file: Path, rows: Any, asked: Mapping[str, str]) -> dict[str, str]:
    ids = isinstance(rows, list) and any(isinstance(row, dict) and "image_id" in row for row in rows)
    return table.find_columns(file, rows, {**({"image": "image_id"} if ids else {}), **asked})


def _image_id(file: Path, number: int, value: object) -> str:
    """An id as text: 42, "42" and 42.0 are the same image."""
    found = id_of(value)
    if found is None:
        raise DataError(f"{file}, row {number} has no image id.")
    return found


def _are_rows(value: object) -> bool:
    """Whether it is a list of captions of several images, not the captions of one."""
    rows = [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
    return len({str(row["image_id"]) for row in rows if "image_id" in row and "caption" in row}) > 1


def _best(said: object, where: str) -> str | None:
    """The first caption of a cell or field, None if there is none; an empty text is a caption, and scores 0."""
    while isinstance(said, list | dict) and said:
        said = said[0] if isinstance(said, list) else next((said[name] for name in TEXT_FIELDS if name in said), None)
    return "" if isinstance(said, str) and not said.strip() else next(iter(captions_of(said, where)), "") or None


def _text_row(file: Path, number: int, line: str) -> dict[str, str]:
    """A row of the output of `showtell caption`: the image, a tab, the caption."""
    image, tab, caption = line.partition("\t")
    if not tab:
        raise DataError(f"{file}, line {number} is not 'image<tab>caption': {line[:60]!r}.")
    return {"image_id": image, "caption": caption}


def _names(image_id: str) -> Iterable[str]:
    """Other possible names of an image, the likeliest first."""
    path = Path(slashed(image_id))
    stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
    number = coco.IMAGE_NAME.fullmatch(stem)
    whole = re.fullmatch(r"(\d+)\.0", image_id)  # how pandas writes a column of numbers with a missing one
    return dict.fromkeys([path.name, stem, *[str(int(found[1])) for found in (number, whole) if found]])


def _decoding(search: object) -> str | None:
    """The search options that are set, on one line."""
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


def _predictions_file(name: str | Path) -> Path:
    file = Path(name).expanduser()
    if not file.is_file():
        raise DataError(
            f"{file} is {'a folder' if file.is_dir() else 'not a file'}.",
            "Name a file of captions: COCO results, JSONL, CSV, or what showtell caption and evaluate write.",
        )
    return file


def _not_references(file: Path) -> DataError:
    return DataError(
        f"{file} holds no references.",
        "It may hold COCO annotations, one of Karpathy's data sets, or an object of image -> list of captions.",
    )
