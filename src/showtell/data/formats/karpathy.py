"""Karpathy's splits (Karpathy and Fei-Fei 2015), which most papers report on: `karpathy:JSON,IMAGES`.

`dataset_flickr8k.json`, `dataset_flickr30k.json` and `dataset_coco.json` have one format. `restval`, the part
of COCO's val that is in neither val nor test, joins train, as in the papers; `val` is our dev.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from showtell.data.captions import captions_of, id_of
from showtell.data.dataset import SPLIT_NAMES, Dataset, Split, dataset_of_files
from showtell.data.formats.layout import slashed, understood
from showtell.errors import DataError, UsageError
from showtell.files import read_json

SYNTAX = "FILE.json,IMAGES"


def load(location: str, *, photos: bool = True) -> Dataset:
    """The data set of `JSON,IMAGES`. Raises DataError for another kind of file, UsageError without a folder."""
    name, _, folder = location.partition(".json,")
    if photos and not folder:
        raise UsageError(f"karpathy:{location} names no folder of images.", "Write karpathy:FILE.json,IMAGES.")
    file = Path(f"{name.removesuffix('.json')}.json").expanduser()
    root = Path(folder).expanduser() if folder else file.parent
    if not root.is_dir():
        raise DataError(f"{root} is not a folder.", "Name the folder that holds the images.")
    return dataset_of(file, read_json(file), root, photos=photos)


def dataset_of(file: Path, content: Any, root: Path, *, photos: bool = True) -> Dataset:
    """The data set from the content of the file; `root` is the folder of images. Raises DataError."""
    images: list[tuple[str, str, Split, Path, list[str]]] = []  # id, id with its folder, split, path, captions
    with understood(file, "one of Karpathy's data sets", "It needs images with filename, split and sentences."):
        for image in content["images"]:
            folder, name = image.get("filepath") or "", slashed(image["filename"])
            path = _folder(root, folder) / name
            number = id_of(image.get("cocoid")) or name
            texts = [text for sentence in image["sentences"] for text in _texts(sentence, f"{file}, {name}")]
            images.append((number, f"{folder}/{number}", SPLIT_NAMES[image["split"]], path, texts))
        kind = str(content.get("dataset", file.stem))
    apart = len({image[0] for image in images}) < len({image[1] for image in images})  # 1.jpg in two folders
    captions: dict[str, list[str]] = {}
    splits: dict[str, Split] = {}
    paths: dict[str, Path] = {}
    for number, with_folder, split, path, texts in images:
        image_id = with_folder if apart else number
        if (splits.setdefault(image_id, split), paths.setdefault(image_id, path)) != (split, path):
            raise DataError(
                f"{file}: image {image_id} is {paths[image_id]} in {splits[image_id]}, and {path} in {split}.",
                "Give each image its own id and one split.",
            )
        captions.setdefault(image_id, []).extend(texts)
    way_out = f"Name their folder: karpathy:{file},IMAGES."
    notes = _notes(content["images"])
    return dataset_of_files(f"karpathy {kind}", captions, splits, paths, notes, photos=photos, way_out=way_out)


def _folder(root: Path, filepath: str) -> Path:
    """Where an image is: COCO's are in `val2014` and the like, unless all are together."""
    for folder in (root / filepath, root / "images" / filepath):
        if filepath and folder.is_dir():
            return folder
    return root


def _texts(sentence: Any, where: str) -> list[str]:
    """A sentence as it is written, or as its tokens."""
    if not isinstance(sentence, dict):
        return captions_of(sentence, where)
    if sentence.get("raw") is not None:
        return captions_of(sentence["raw"], where)
    tokens = sentence["tokens"]
    return [" ".join(tokens)] if isinstance(tokens, list) else captions_of(tokens, where)


def _notes(images: list[dict[str, Any]]) -> list[str]:
    rest = Counter(image["split"] for image in images)["restval"]
    return [f"Images of restval, which count as train: {rest:,}."] if rest else []
