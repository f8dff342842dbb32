"""MS-COCO captions (Chen et al. 2015), of any year: `coco:DIR`, `coco:DIR,2014` or `coco:FILE.json,IMAGES`.

`DIR/annotations/captions_{train,val,test}YEAR.json`, and images in `DIR/{train,val,test}YEAR/` or `DIR/images/...`.
The files' splits are kept: train is train and val is dev. The captions of COCO's own test images are not public; the
test split that papers report is Karpathy's, loaded with `karpathy:`. If there is only one annotation file, its
images are split 80/10/10. Ids that restart in each file are kept apart by the files' names.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from showtell.data.captions import captions_of, id_of
from showtell.data.dataset import SPLIT_NAMES, SPLITS, Dataset, Split, dataset_of_files
from showtell.data.formats.layout import holds_images, not_found, settings_of, slashed, split_by_file, understood
from showtell.errors import DataError
from showtell.files import read_json

SYNTAX = "DIR[,YEAR][,split=90/5/5] or FILE.json[,IMAGES][,split=90/5/5]"

IMAGE_NAME = re.compile(r"(?:COCO_\w+_)?(\d{12})")  # val2017/000000000042.jpg is image 42
ANNOTATION_FILE = re.compile(r"captions_(?P<split>[a-z]+)_?(?P<year>\d*)\.json", re.IGNORECASE)


def load(location: str, *, photos: bool = True) -> Dataset:
    """The data set that `location` names, in one of the three forms above. Raises DataError."""
    location, settings = settings_of(f"coco:{location}", (), shares_only=True)
    path, _, after = location.partition(",")
    if path.lower().endswith(".json"):
        file = Path(path).expanduser()
        folder = Path(after).expanduser() if after else _images_of(file, file.parent, needed=photos)
        return _load_files([(file, folder)], settings, [], photos=photos)
    root, notes = Path(path).expanduser(), list[str]()
    files = [(file, _images_of(file, root, needed=photos)) for file in _annotation_files(root, after, notes)]
    return _load_files(files, settings, notes, photos=photos)


def _load_files(
    files: list[tuple[Path, Path]], settings: Mapping[str, str], notes: list[str], *, photos: bool
) -> Dataset:
    """One data set from annotation files, each with its image folder; image ids are COCO's numbers."""
    contents = [(file, folder, *read(file, read_json(file))) for file, folder in files]
    apart = max(Counter(i for _, _, names, _ in contents for i in names).values(), default=0) > 1
    if apart:
        notes.append(f"Ids restart in each file: images are called FILE/ID, such as {_short(files[0][0])}/1.")
    captions: dict[str, list[str]] = {}
    paths: dict[str, Path] = {}
    splits: dict[str, Split] = {}
    file_of: dict[Path, Path] = {}
    unlisted = 0
    for file, folder, names, texts in contents:
        unlisted += sum(len(texts[number]) for number in texts if names.get(number) is None)
        for number, name in names.items():
            if name is None:
                continue
            image_id = f"{_short(file)}/{number}" if apart else number
            paths[image_id] = folder / slashed(name)
            if file_of.setdefault(paths[image_id], file) != file:
                raise DataError(
                    f"{name} is in {file_of[paths[image_id]].name} and in {file.name}.",
                    "Remove it from one of them: an image must be in one split only.",
                )
            splits[image_id] = _split_of(file)
            captions[image_id] = texts.get(number, [])
    if unlisted:
        notes.append(f"Captions left out because their image has no file name: {unlisted:,}.")
    if len(files) == 1 or "split" in settings:
        splits, note = split_by_file(paths, f"{files[0][0].name} is the only file of captions", settings)
        notes.append(note)
    else:
        absent = [split for split in SPLITS if split not in splits.values()]
        notes.append(
            "COCO's val is the dev split"
            + (f"; there is no {' or '.join(absent)} split" if absent else "")
            + (" (Karpathy's data set has one: 'karpathy:')." if "test" in absent else ".")
        )
    way_out = f"Name their folder: coco:{files[0][0]},IMAGES." if len(files) == 1 else ""
    return dataset_of_files("coco", captions, splits, paths, notes, photos=photos, way_out=way_out)


def read(file: Path, content: Any) -> tuple[dict[str, str | None], dict[str, list[str]]]:
    """Image id -> file name, None if there is none; and image id -> captions, in the order of the file.

    Raises:
        DataError: it holds something else, or two images have the same id.
    """
    names: dict[str, str | None] = {}
    texts: dict[str, list[str]] = {}
    needed = "It needs images with id and file_name, and annotations with image_id and caption."
    with understood(file, "a COCO captions file", needed):
        for image in content["images"]:
            number = _id(image["id"])
            name = image.get("file_name")
            if not isinstance(name, str | None):
                raise KeyError("file_name")
            if names.setdefault(number, name) != name:
                raise DataError(
                    f"{file}: image {number} is both {names[number]} and {name}.", "Give each image its own id."
                )
        for note in content["annotations"]:
            number = _id(note["image_id"])
            texts.setdefault(number, []).extend(captions_of(note["caption"], f"{file}, a caption of image {number}"))
    return names, texts


def _id(value: object) -> str:
    found = id_of(value)
    if found is None:
        raise KeyError("id")
    return found


def _annotation_files(root: Path, year: str, notes: list[str]) -> list[Path]:
    """The caption files of one year: the requested one, or the newest; and those without a year."""
    there = sorted((root / "annotations").glob("[cC]aptions_*.json")) or sorted(root.glob("[cC]aptions_*.json"))
    matches = {file: ANNOTATION_FILE.fullmatch(file.name) for file in there}
    found = {file: match["year"] for file, match in matches.items() if match and match["split"].lower() in SPLIT_NAMES}
    if not found or (year and year not in found.values()):
        names = [f"annotations/captions_{split}{year or '2017'}.json" for split in ("train", "val")]
        raise not_found(root, "COCO captions" + f" of {year}" * bool(year), names)
    chosen = year or max(found.values())
    files = [file for file, of in found.items() if of == chosen]
    files += [file for file, of in found.items() if not of and _split_of(file) not in map(_split_of, files)]
    years = sorted({*found.values()} - {chosen, ""})
    if years:
        notes.append(f"The captions are those of {chosen}; for {', '.join(years)} write coco:{root},YEAR.")
    rest = [file.name for file in there if file not in files and not found.get(file)]
    if rest:
        notes.append(f"Caption files that were ignored: {', '.join(rest)}.")
    return files


def _images_of(file: Path, root: Path, *, needed: bool) -> Path:
    """The folder of an annotation file's images: `train2014` for `captions_train2014.json`."""
    name = _short(file)
    folders = [
        root / name,
        root / "images" / name,
        root.parent / name,
        root.parent / "images" / name,
        root / "images",
    ]
    for folder in (*folders, root):
        if holds_images(folder):
            return folder
    if not needed:
        return root / name
    raise not_found(root, f"folder of images for {file.name}", [f"{name}/", f"images/{name}/", "images/"])


def _short(file: Path) -> str:
    """The short name of a file of captions: `train2014` for `captions_train2014.json`."""
    return re.sub("^captions_", "", file.stem, flags=re.IGNORECASE)


def _split_of(file: Path) -> Split:
    match = ANNOTATION_FILE.fullmatch(file.name)
    return SPLIT_NAMES.get(match["split"].lower(), "train") if match is not None else "train"
