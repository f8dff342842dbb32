"""Flickr30k (Young et al. 2014): Kaggle's layout (`results.csv`) and the published `results_20130124.token`.

The original has no split files. Those of Flickr30k Entities (`train.txt`, `val.txt`, `test.txt`, an image
number a line) are used when they are in the folder; without them the split is ours, by image. The split of
the captioning papers is in Karpathy's `dataset_flickr30k.json`: load that with `karpathy:`.
"""

import re
from pathlib import Path

from showtell.data.dataset import SPLIT_NAMES, Dataset, Split, dataset_of_files, split_by_image
from showtell.data.formats.flickr8k import read_csv, read_tokens
from showtell.data.formats.layout import first_file, image_folder
from showtell.errors import DataError
from showtell.files import read_lines, read_text

SYNTAX = "DIR"

IMAGE_FOLDERS = ("flickr30k_images", "flickr30k-images", "Images", "images")
CAPTION_FILES = (
    "results.csv",
    "results_20130124.token",
    "flickr30k_images/results.csv",
    "captions.txt",
)
SPLIT_FILES = ("train.txt", "val.txt", "test.txt")

# The last bar may be missing: it is, in one line of the published file.
RESULT_LINE = re.compile(r"\s*(?P<image>[^|]+?)\s*\|\s*(?P<number>\d+)\s*(?P<bar>\|?)\s*(?P<caption>.*)")


def load(location: str, *, photos: bool = True) -> Dataset:
    """The data set in the folder `location`. Raises DataError when its layout is none of those above."""
    root = Path(location).expanduser()
    file = first_file(root, CAPTION_FILES, "file of captions")
    folder = image_folder(root, IMAGE_FOLDERS, needed=photos)
    notes: list[str] = []
    read = {"results.csv": read_results, "captions.txt": read_csv}.get(file.name, read_tokens)
    captions = read(file, notes)
    splits = _entities_splits(root, captions, notes)
    if not splits:
        splits = split_by_image(captions)
        notes.append("There are no split files: images are split 80/10/10, the same way every time.")
    paths = {name: folder / name for name in splits}
    return dataset_of_files("flickr30k", captions, splits, paths, notes, photos=photos)


def read_results(file: Path, notes: list[str]) -> dict[str, list[str]]:
    """Captions by image from `image_name| comment_number| comment` lines."""
    header, *lines = read_lines(file)
    if header.replace(" ", "") != "image_name|comment_number|comment":
        raise DataError(f"{file} begins with {header[:60]!r}, not with 'image_name| comment_number| comment'.")
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
    """Image -> split from the split files of Flickr30k Entities; empty when they are not all there."""
    files = [root / name for name in SPLIT_FILES]
    if not all(file.is_file() for file in files):
        return {}
    splits: dict[str, Split] = {}
    for file in files:
        for number in read_text(file).split():
            image = number if number.endswith(".jpg") else f"{number}.jpg"
            splits[image] = SPLIT_NAMES[file.stem]
    rest = captions.keys() - splits.keys()
    if rest:
        notes.append(f"Images left out because no split file names them: {len(rest):,}.")
    return splits
