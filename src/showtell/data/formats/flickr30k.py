"""Flickr30k (Young et al. 2014): Kaggle's layout (`results.csv`) and the published `results_20130124.token`.

The original has no split files. Those of Flickr30k Entities (`train.txt`, `val.txt`, `test.txt`, one image
number per line) are used if they are in the folder; without them we split the images. The split of
the captioning papers is in Karpathy's `dataset_flickr30k.json`: load that with `karpathy:`.
"""

import re
from pathlib import Path

from showtell.data.dataset import SPLIT_NAMES, Dataset, Split, automatic_split, dataset_of_files
from showtell.data.formats.flickr8k import read_csv, read_tokens
from showtell.data.formats.layout import caption_lines, first_file, image_folder, settings_of
from showtell.errors import DataError
from showtell.files import read_text

SYNTAX = "DIR[,encoding=NAME][,split=90/5/5]"

IMAGE_FOLDERS = ("flickr30k_images", "flickr30k-images", "Images", "images")
CAPTION_FILES = (
    "results.csv",
    "results_20130124.token",
    "flickr30k_images/results.csv",
    "captions.txt",
)
SPLIT_FILES = ("train.txt", "val.txt", "test.txt")

# The last bar may be missing, as it is in one line of the published file.
RESULT_LINE = re.compile(r"\s*(?P<image>[^|]+?)\s*\|\s*(?P<number>\d+)\s*(?P<bar>\|?)\s*(?P<caption>.*)")


def load(location: str, *, photos: bool = True) -> Dataset:
    """The data set in the folder `location`. Raises DataError if its layout is none of those above."""
    location, settings = settings_of(f"flickr30k:{location}", ("encoding",), shares_only=True)
    root = Path(location).expanduser()
    file = first_file(root, CAPTION_FILES, "file of captions")
    folder = image_folder(root, IMAGE_FOLDERS, needed=photos)
    notes: list[str] = []
    read = {"results.csv": read_results, "captions.txt": read_csv}.get(file.name, read_tokens)
    captions = read(file, caption_lines(file, settings), notes)
    splits = {} if "split" in settings else _entities_splits(root, captions, notes)
    if not splits:
        splits, note = automatic_split(captions, "There are no split files", settings)
        notes.append(note)
    paths = {name: folder / name for name in splits}
    return dataset_of_files("flickr30k", captions, splits, paths, notes, photos=photos)


def read_results(file: Path, lines: list[str], notes: list[str]) -> dict[str, list[str]]:
    """Captions by image from `image_name| comment_number| comment` lines."""
    header, *lines = lines
    if header.replace(" ", "") != "image_name|comment_number|comment":
        raise DataError(
            f"{file} begins with {header[:60]!r}, not with 'image_name| comment_number| comment'.",
            f"Read it as a table: table:{file},images=DIR.",
        )
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=2):
        match = RESULT_LINE.fullmatch(line)
        if match is None:
            if line.strip():
                raise DataError(f"{file}, line {number} is not 'image.jpg| 0| caption': {line[:60]!r}.")
            continue
        if not match["bar"]:
            notes.append(f"Line {number} of {file.name} lacks its second bar; read as comment {match['number']}.")
        captions.setdefault(match["image"], []).append(match["caption"])
    return captions


def _entities_splits(root: Path, captions: dict[str, list[str]], notes: list[str]) -> dict[str, Split]:
    """Image -> split from the existing split files of Flickr30k Entities; empty if there are none."""
    files = [root / name for name in SPLIT_FILES]
    splits: dict[str, Split] = {}
    for file in filter(Path.is_file, files):
        split = SPLIT_NAMES[file.stem]
        for number in read_text(file).split():
            image = number if number.endswith(".jpg") else f"{number}.jpg"
            if splits.setdefault(image, split) != split:
                raise DataError(f"{file} has {image}, which is in the {splits[image]} split too.")
    absent = [file.name for file in files if not file.is_file()]
    if splits and absent:
        notes.append(f"There is no {' or '.join(absent)}.")
    rest = captions.keys() - splits.keys()
    if splits and rest:
        notes.append(f"Images left out because no split file names them: {len(rest):,}.")
    return splits
