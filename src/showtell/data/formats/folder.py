"""A folder of images with captions beside them: `photo.txt` holds the captions of `photo.jpg`, one a line.

Folders inside are searched too. Where all images lie in folders named train, dev (val) and test, those are
the splits; otherwise the split is ours, by image.
"""

from pathlib import Path

from showtell.data.dataset import SPLIT_NAMES, Dataset, Split, dataset_of_files, split_by_image
from showtell.data.formats.layout import not_found
from showtell.files import read_lines
from showtell.images.names import is_image_name, writable
from showtell.images.sources import Finder

SYNTAX = "DIR"


def load(where: str, *, photos: bool = True) -> Dataset:
    """The data set in the folder `where`. Raises DataError when no image has a text beside it."""
    root = Path(where).expanduser()
    finder = Finder(lambda name: is_image_name(name) or name.lower().endswith(".txt"))
    files = sorted(map(Path, finder.files_in(str(root)))) if root.is_dir() else []
    texts = {path.with_suffix("") for path in files if path.suffix.lower() == ".txt"}
    images = [path for path in files if is_image_name(path.name)]
    captioned = {writable(path.relative_to(root).as_posix()): path for path in images if path.with_suffix("") in texts}
    if not captioned:
        raise not_found(root, "image with a text beside it", ["photo.jpg with photo.txt"])
    captions = {image_id: read_lines(path.with_suffix(".txt")) for image_id, path in captioned.items()}
    notes = []
    bare = len(images) - len(captioned)
    if bare:
        notes.append(f"Images left out because no text lies beside them: {bare:,}.")
    alone = texts - {path.with_suffix("") for path in images}
    if alone:
        notes.append(f"Texts that no image lies beside: {len(alone):,}, such as {min(alone).name}.txt.")
    notes += finder.notes()
    splits = _splits_of_folders(captioned)
    if not splits:
        splits = split_by_image(captioned)
        notes.append("There are no train, dev and test folders: images are split 80/10/10, always the same way.")
    return dataset_of_files("folder", captions, splits, captioned, notes, photos=photos)


def _splits_of_folders(image_ids: dict[str, Path]) -> dict[str, Split]:
    """Image -> split by its outermost folder; empty unless each image has one and one of them is train."""
    outermost = {image_id: image_id.partition("/")[0].lower() for image_id in image_ids}
    splits = {image_id: SPLIT_NAMES[name] for image_id, name in outermost.items() if name in SPLIT_NAMES}
    return splits if len(splits) == len(image_ids) and "train" in splits.values() else {}
