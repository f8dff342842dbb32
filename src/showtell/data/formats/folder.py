"""A folder of images with captions beside them: `photo.txt` holds the captions of `photo.jpg`, one per line.

Folders inside are searched, too. If images are in folders named train, dev (val) and test, those are the splits;
otherwise we split the images.
"""

from collections.abc import Collection
from pathlib import Path
from unicodedata import normalize

from showtell.data.captions import captions_of
from showtell.data.dataset import SPLIT_NAMES, Dataset, Split, automatic_split, dataset_of_files
from showtell.data.formats.layout import caption_lines, not_found, settings_of
from showtell.errors import DataError
from showtell.images.names import is_image_name, writable
from showtell.images.sources import Finder

SYNTAX = "DIR[,encoding=NAME][,split=90/5/5]"

TOLD = 5  # texts that can't be read, with a sentence for each


def load(location: str, *, photos: bool = True) -> Dataset:
    """The data set in a folder. Raises DataError if no image has a text beside it."""
    where, settings = settings_of(f"folder:{location}", ("encoding",), shares_only=True)
    root = Path(where).expanduser()
    finder = Finder(lambda name: is_image_name(name) or name.lower().endswith(".txt"))
    files = sorted(map(Path, finder.files_in(str(root)))) if root.is_dir() else []
    texts: dict[str, list[Path]] = {}  # name without suffix -> its texts: a.txt and a.TXT may both exist
    for path in files:
        if not is_image_name(path.name):
            texts.setdefault(_stem(path), []).append(path)
    images = [path for path in files if is_image_name(path.name)]
    captioned = {writable(path.relative_to(root).as_posix()): path for path in images if _stem(path) in texts}
    if not captioned:
        raise not_found(root, "image with a text beside it", ["photo.jpg with photo.txt"])
    notes = []
    bare = len(images) - len(captioned)
    if bare:
        notes.append(f"Images left out because they have no text file: {bare:,}.")
    alone = sorted(text[0].name for stem, text in texts.items() if stem not in {*map(_stem, images)})
    if alone:
        notes.append(f"Text files that have no image: {len(alone):,}, such as {alone[0]}.")
    notes += finder.notes()
    lines: dict[str, list[str]] = {}
    problems = dict[Path, str]()
    for image_id, path in captioned.items():
        for text in texts[_stem(path)]:
            try:
                for line in filter(str.strip, caption_lines(text, settings)):
                    lines.setdefault(image_id, []).extend(captions_of(line, str(text)))
            except DataError as error:  # the others continue
                problems[text] = str(error)
            else:
                lines.setdefault(image_id, [])
    notes += list(problems.values())[:TOLD]
    if len(problems) > TOLD:
        notes.append(f"Further texts that can't be read: {len(problems) - TOLD:,}.")
    if not lines:
        raise DataError(f"{root}: no text can be read.", next(iter(problems.values())))
    splits = {} if "split" in settings else _splits_of_folders(lines, notes)
    if not splits:
        splits, note = automatic_split(lines, "There are no train, dev and test folders", settings)
        notes.append(note)
    return dataset_of_files("folder", lines, splits, captioned, notes, photos=photos)


def _stem(path: Path) -> str:
    """The name that an image and its text share, however a system writes é."""
    return normalize("NFC", str(path.with_suffix("")))


def _splits_of_folders(image_ids: Collection[str], notes: list[str]) -> dict[str, Split]:
    """Image -> split by its outermost folder; empty unless all are in train, or train and another split exist."""
    outermost = {image_id: image_id.partition("/")[0].lower() for image_id in image_ids}
    splits = {image_id: SPLIT_NAMES[name] for image_id, name in outermost.items() if name in SPLIT_NAMES}
    rest = len(image_ids) - len(splits)
    if "train" not in splits.values() or (rest and len({*splits.values()}) == 1):
        return {}
    if rest:
        notes.append(f"Images left out because they are not in a folder of a split: {rest:,}.")
    return splits
