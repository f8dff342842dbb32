"""Karpathy's splits (Karpathy and Fei-Fei 2015), which most papers report on: `karpathy:JSON,IMAGES`.

`dataset_flickr8k.json`, `dataset_flickr30k.json` and `dataset_coco.json` have one format. `restval`, the part
of COCO's val that is in neither val nor test, joins train, as in the papers; `val` is our dev.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from showtell.data.dataset import SPLIT_NAMES, Dataset, Split, dataset_of_files
from showtell.errors import DataError, UsageError
from showtell.files import read_json

SYNTAX = "FILE.json,IMAGES"


def load(location: str, *, photos: bool = True) -> Dataset:
    """The data set of `JSON,IMAGES`. Raises DataError for another kind of file, UsageError for no folder."""
    name, _, folder = location.partition(".json,")
    if photos and not folder:
        raise UsageError(f"karpathy:{location} names no folder of images.", "Write karpathy:FILE.json,IMAGES.")
    file = Path(f"{name.removesuffix('.json')}.json").expanduser()
    root = Path(folder).expanduser() if folder else file.parent
    if not root.is_dir():
        raise DataError(f"{root} is not a folder.", "Name the folder that holds the images.")
    return dataset_of(file, read_json(file), root, photos=photos)


def dataset_of(file: Path, content: Any, root: Path, *, photos: bool = True) -> Dataset:
    """The data set of what the file holds; `root` is the folder of images. Raises DataError."""
    captions: dict[str, list[str]] = {}
    splits: dict[str, Split] = {}
    paths: dict[str, Path] = {}
    try:
        for image in content["images"]:
            image_id = str(image.get("cocoid", image["filename"]))
            captions[image_id] = [_text(sentence) for sentence in image["sentences"]]
            splits[image_id] = SPLIT_NAMES[image["split"]]
            paths[image_id] = _folder(root, image.get("filepath", "")) / image["filename"]
        kind = str(content.get("dataset", file.stem))
    except (KeyError, TypeError, AttributeError) as error:
        lacks = f" ('{error.args[0]}' is missing or unknown)" if isinstance(error, KeyError) else ""
        raise DataError(
            f"{file} is not one of Karpathy's data sets{lacks}.",
            "It needs images with filename, split and sentences.",
        ) from error
    return dataset_of_files(f"karpathy {kind}", captions, splits, paths, _notes(content["images"]), photos=photos)


def _folder(root: Path, filepath: str) -> Path:
    """Where an image lies: COCO's are in `val2014` and the like, unless all lie together."""
    for folder in (root / filepath, root / "images" / filepath):
        if filepath and folder.is_dir():
            return folder
    return root


def _text(sentence: dict[str, Any]) -> str:
    return str(sentence["raw"]) if "raw" in sentence else " ".join(sentence["tokens"])


def _notes(images: list[dict[str, Any]]) -> list[str]:
    rest = Counter(image["split"] for image in images)["restval"]
    return [f"Images of restval, which are in train: {rest:,}."] if rest else []
