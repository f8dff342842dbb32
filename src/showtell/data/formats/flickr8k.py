"""Flickr8k (Hodosh, Young and Hockenmaier 2013), in both of its common layouts.

Kaggle's: `Images/` and `captions.txt` (CSV: image,caption). The original: `Flicker8k_Dataset/` (so spelt) and
`Flickr8k.token.txt` (image#number, a tab, the caption). Either may come with the official split files
`Flickr_8k.trainImages.txt`, `Flickr_8k.devImages.txt` and `Flickr_8k.testImages.txt`; without any of them we
split the images.
"""

import re
from pathlib import Path

from showtell.data.dataset import SPLITS, Dataset, Split, automatic_split, dataset_of_files
from showtell.data.formats.layout import caption_lines, first_file, image_folder, settings_of
from showtell.errors import DataError
from showtell.files import read_lines

SYNTAX = "DIR[,encoding=NAME][,split=90/5/5]"

IMAGE_FOLDERS = ("Images", "images", "Flicker8k_Dataset", "Flickr8k_Dataset")
CAPTION_FILES = ("captions.txt", "Flickr8k.token.txt", "Flickr8k_text/Flickr8k.token.txt")


def load(location: str, *, photos: bool = True) -> Dataset:
    """The data set in the folder `location`. Raises DataError if its layout is neither of the two."""
    location, settings = settings_of(f"flickr8k:{location}", ("encoding",), shares_only=True)
    root = Path(location).expanduser()
    file = first_file(root, CAPTION_FILES, "file of captions")
    folder = image_folder(root, IMAGE_FOLDERS, needed=photos)
    notes: list[str] = []
    read = read_csv if file.name == "captions.txt" else read_tokens
    captions = read(file, caption_lines(file, settings), notes)
    splits = {} if "split" in settings else _official_splits((root, file.parent), notes)
    if splits:
        _note_the_rest(captions, splits, notes)
    else:
        splits, note = automatic_split(captions, "There are no official split files", settings)
        notes.append(note)
    paths = {name: folder / name for name in splits}
    return dataset_of_files("flickr8k", captions, splits, paths, notes, photos=photos)


def read_csv(file: Path, lines: list[str], notes: list[str]) -> dict[str, list[str]]:
    """Captions by image from Kaggle's `image,caption` lines; captions with commas may be quoted or not."""
    header, *lines = lines
    way_out = f"Read it as a table: table:{file},images=DIR."
    if re.sub('[ "]', "", header).lower() != "image,caption":
        raise DataError(f"{file} begins with {header[:60]!r}, not with 'image,caption'.", way_out)
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=2):
        # Not the csv module: with it, a caption with one stray quotation mark would swallow the lines after it.
        image, comma, caption = line.partition(",")
        if not line.strip():
            continue
        if not comma:
            raise DataError(f"{file}, line {number} is not 'image.jpg,caption': {line[:60]!r}.", way_out)
        captions.setdefault(_unquoted(image).strip(), []).append(_unquoted(caption))
    return _repaired(captions, notes)


def _unquoted(cell: str) -> str:
    quoted = re.fullmatch(r'\s*"(.*)"\s*', cell)
    return quoted[1].replace('""', '"') if quoted else cell


def read_tokens(file: Path, lines: list[str], notes: list[str]) -> dict[str, list[str]]:
    """Captions by image from `name.jpg#number<tab>caption` lines."""
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        label, tab, caption = line.partition("\t")
        if not line.strip():
            continue
        if not tab or "#" not in label:
            raise DataError(f"{file}, line {number} is not 'image.jpg#0<tab>caption': {line[:60]!r}.")
        captions.setdefault(label.rpartition("#")[0], []).append(caption)
    return _repaired(captions, notes)


def _repaired(captions: dict[str, list[str]], notes: list[str]) -> dict[str, list[str]]:
    """Repair names like `2258277193_586949ec62.jpg.1`, which the published file has for one image."""
    for name in [name for name in captions if re.search(r"\.jpe?g\.\d+$", name, re.IGNORECASE)]:
        mended = name.rpartition(".")[0]
        captions.setdefault(mended, []).extend(captions.pop(name))
        notes.append(f"The captions of {name} are used for {mended}.")
    return captions


def _official_splits(folders: tuple[Path, ...], notes: list[str]) -> dict[str, Split]:
    """Image -> split from the existing split files; empty if there are none."""
    splits: dict[str, Split] = {}
    absent = []
    for split in SPLITS:
        name = f"Flickr_8k.{split}Images.txt"
        file = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if file is None:
            absent.append(name)
            continue
        for image in filter(None, map(str.strip, read_lines(file))):
            if splits.setdefault(image, split) != split:
                raise DataError(f"{file} has {image}, which is in the {splits[image]} split too.")
    if splits and absent:
        notes.append(f"There is no {' or '.join(absent)}.")
    return splits


def _note_the_rest(captions: dict[str, list[str]], splits: dict[str, Split], notes: list[str]) -> None:
    rest = captions.keys() - splits.keys()
    if rest:
        notes.append(f"Images left out because no split file names them: {len(rest):,}.")
