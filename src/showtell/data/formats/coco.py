"""MS-COCO captions (Chen et al. 2015), of any year: `coco:DIR`, `coco:DIR,2014` or `coco:FILE.json,IMAGES`.

`DIR/annotations/captions_{train,val}YEAR.json`, and images in `DIR/{train,val}YEAR/` or `DIR/images/...`.
COCO's splits are kept: train is train and val is dev. The captions of its own test images are not public, so
there is no test split; the one that papers report is Karpathy's, loaded with `karpathy:`. Where there is only
one annotation file, its images are split 80/10/10.
"""

import re
from pathlib import Path

from showtell.data.dataset import SPLIT_NAMES, Dataset, Split, dataset_of_files, split_by_image
from showtell.data.formats.layout import holds_images, not_found
from showtell.errors import DataError
from showtell.files import read_json

SYNTAX = "DIR[,YEAR] or FILE.json[,IMAGES]"

IMAGE_NAME = re.compile(r"(?:COCO_\w+_)?(\d{12})")  # val2017/000000000042.jpg is image 42
ANNOTATION_FILE = re.compile(r"captions_(?P<split>train|val)(?P<year>\d*)\.json")


def load(location: str, *, photos: bool = True) -> Dataset:
    """The data set that `location` names, in one of the three forms above. Raises DataError."""
    path, _, after = location.partition(",")
    if path.endswith(".json"):
        file = Path(path).expanduser()
        folder = Path(after).expanduser() if after else _images_of(file, file.parent, needed=photos)
        return _load_files([(file, folder)], [], photos=photos)
    root, notes = Path(path).expanduser(), list[str]()
    files = _annotation_files(root, after, notes)
    return _load_files([(file, _images_of(file, root, needed=photos)) for file in files], notes, photos=photos)


def _load_files(files: list[tuple[Path, Path]], notes: list[str], *, photos: bool) -> Dataset:
    """Annotation files, each with its image folder, as one data set; image ids are COCO's numbers."""
    captions: dict[str, list[str]] = {}
    paths: dict[str, Path] = {}
    splits: dict[str, Split] = {}
    for file, folder in files:
        images, sentences = _read(file)
        for image_id, name in images.items():
            paths[image_id] = folder / name
            splits[image_id] = _split_of(file)
        for image_id, caption in sentences:
            captions.setdefault(image_id, []).append(caption)
    if len(files) == 1:
        splits = split_by_image(paths)
        notes.append(f"{files[0][0].name} is the only file of captions: its images are split 80/10/10.")
    else:
        notes.append("COCO's val is the dev split; there is no test split (Karpathy's has one: 'karpathy:').")
    return dataset_of_files("coco", captions, splits, paths, notes, photos=photos)


def _annotation_files(root: Path, year: str, notes: list[str]) -> list[Path]:
    """The caption files of one year: the asked one, or the newest that there is."""
    found: dict[str, list[Path]] = {}
    for folder in (root / "annotations", root):
        for file in sorted(folder.glob("captions_*.json")) if not found else ():
            match = ANNOTATION_FILE.fullmatch(file.name)
            if match is not None:
                found.setdefault(match["year"], []).append(file)
    if not found or (year and year not in found):
        names = [f"annotations/captions_{split}{year or '2017'}.json" for split in ("train", "val")]
        raise not_found(root, "COCO captions" + f" of {year}" * bool(year), names)
    chosen = year or max(found)
    if len(found) > 1:
        others = ", ".join(sorted(found.keys() - {chosen}))
        notes.append(f"The captions are those of {chosen}; for {others} write coco:{root},YEAR.")
    return found[chosen]


def _images_of(file: Path, root: Path, *, needed: bool) -> Path:
    """The folder of an annotation file's images: `train2014` for `captions_train2014.json`; `root` if not needed."""
    name = file.stem.removeprefix("captions_")
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
        return root
    raise not_found(root, f"folder of images for {file.name}", [f"{name}/", f"images/{name}/", "images/"])


def _split_of(file: Path) -> Split:
    match = ANNOTATION_FILE.fullmatch(file.name)
    return SPLIT_NAMES[match["split"]] if match is not None else "train"


def _read(file: Path) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """File name by image id, and (image id, caption) pairs."""
    content = read_json(file)
    try:
        images = {str(image["id"]): str(image["file_name"]) for image in content["images"]}
        captions = [(str(note["image_id"]), str(note["caption"])) for note in content["annotations"]]
    except (KeyError, TypeError) as error:
        lacks = f" ('{error.args[0]}' is missing)" if isinstance(error, KeyError) else ""
        raise DataError(
            f"{file} is not a COCO captions file{lacks}.",
            "It needs images with id and file_name, and annotations with image_id and caption.",
        ) from error
    return images, captions
