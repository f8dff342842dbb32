"""What every loader returns: examples (an image and its captions), and a record of what was left out."""

import os
import random
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from showtell.data.captions import empty_captions, tidy
from showtell.data.scenes import Scene
from showtell.errors import DataError, UsageError
from showtell.images.decode import read_image
from showtell.images.names import as_on_disk
from showtell.images.storage import ContainedImage

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SHARES = "80/10/10"
"""The shares of train, dev and test by default."""
OWN_SHARES = "80/20/0"
"""The same for `without_test`."""

STAMPED_BYTES = 16_384  # at the beginning and the end of a file

# Other names of the three splits; "restval" is the part of COCO's val that Karpathy trains on.
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "restval": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class Example:
    """One image with its captions."""

    image_id: str
    split: Split
    captions: tuple[str, ...]
    path: Path | None = None
    """The image file; None when the image has no file of its own."""
    scene: Scene | None = None
    """What to draw, for `shapes`; it can tell whether a caption is true."""
    stored: ContainedImage | None = None
    """Where the image is, if it is in a file of many."""
    mirrored: bool = False
    """Whether the image is mirrored, left to right, when it is read."""
    dataset: str = ""
    """The name of its data set, if training has several."""
    times: float = 1.0
    """How often a pass over the training images shows it."""

    @property
    def name(self) -> str:
        """What messages and reports call the image."""
        return self.path.name if self.path is not None else self.image_id

    @property
    def container(self) -> str:
        """Where the image is kept: a folder, a shard; empty if it is drawn."""
        if self.stored is not None:
            return self.stored.container
        return str(self.path.resolve().parent) if self.path is not None else ""

    @property
    def stamp(self) -> str:
        """A text that changes with the image, but not when the image is copied.

        For a file, its size and a digest of its beginning and end (all of a small file); for an image in a file of
        many, its length or the like; else what is drawn. "missing" if the file does not exist any more.
        """
        if self.path is not None:
            try:
                with self.path.open("rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    digest = zlib.crc32(file.read(STAMPED_BYTES))
                    file.seek(max(file.tell(), size - STAMPED_BYTES))
                    return f"{size}-{zlib.crc32(file.read(), digest):08x}"
            except OSError:  # reading the image will say so
                return "missing"
        return self.stored.stamp if self.stored is not None else f"{zlib.crc32(repr(self.scene).encode()):08x}"

    def read(self, *, at_least: int | None = None) -> npt.NDArray[np.uint8]:
        """The image, uint8 `[H, W, 3]` RGB; `at_least` as in `read_image`.

        Raises:
            ImageError: it is missing, damaged, or not an image.
            DataError: its container can't be read now.
        """
        if self.path is not None:
            image = read_image(self.path, at_least=at_least)
        elif self.stored is not None:
            image = read_image(self.stored.source(), at_least=at_least)
        else:
            assert self.scene is not None, "an example has a path, a place in a file, or a scene"
            image = self.scene.draw()
        return image[:, ::-1] if self.mirrored else image


@dataclass(frozen=True, slots=True)
class Dataset:
    """Captioned images, in a fixed order, each image in one split."""

    name: str
    examples: tuple[Example, ...]
    missing: tuple[str, ...] = ()
    """Image files that have captions but don't exist."""
    notes: tuple[str, ...] = ()
    """What a user should know about how the files were read: one sentence each."""

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that have examples, in the order train, dev, test."""
        present = {example.split for example in self.examples}
        return tuple(split for split in SPLITS if split in present)

    def split(self, name: str) -> list[Example]:
        """The examples of one split ("val" means "dev"). Raises DataError if there are none."""
        wanted = SPLIT_NAMES.get(name.lower())
        chosen = [example for example in self.examples if example.split == wanted]
        if not chosen:
            raise DataError(f"{self.name} has no split '{name}'.", f"It has: {', '.join(self.splits)}.")
        return chosen


def joined(datasets: Sequence[Dataset]) -> Dataset:
    """Several data sets as one; each example has the name of its data set.

    Equal names get a number; if two images have the same id, all ids get the name in front. A photo in dev or test of
    one data set is left out of the training photos of the others.
    """
    if len(datasets) == 1:
        return datasets[0]
    names = [dataset.name for dataset in datasets]
    names = [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names, 1)]
    ids = Counter(example.image_id for dataset in datasets for example in dataset.examples)
    apart = ids.total() == len(ids)
    examples = [
        replace(example, image_id=example.image_id if apart else f"{name}/{example.image_id}", dataset=name)
        for name, dataset in zip(names, datasets, strict=True)
        for example in dataset.examples
    ]
    # The stamp of an image without a file of its own may be just its length, which others share.
    held_out = {example.stamp for example in examples if example.split != "train" and example.path} - {"missing"}
    kept = [each for each in examples if each.split != "train" or not each.path or each.stamp not in held_out]
    notes = [f"{name}: {note}" for name, dataset in zip(names, datasets, strict=True) for note in dataset.notes]
    if lost := len(examples) - len(kept):
        notes.append(f"Training photos left out because another data set has them in dev or test: {lost:,}.")
    missing = tuple(file for dataset in datasets for file in dataset.missing)
    return Dataset("+".join(names), tuple(kept), missing, tuple(notes))


def dataset_of_files(
    name: str,
    captions: Mapping[str, Sequence[str]],
    splits: Mapping[str, Split],
    paths: Mapping[str, Path],
    notes: Iterable[str] = (),
    *,
    photos: bool = True,
    way_out: str = "",
) -> Dataset:
    """The data set of the images in `splits` that have a caption and a file; all maps are by image id.

    If two ids name the same file, it is one image, with the captions of both, in the split of the first: otherwise it
    might be both in train and in test.

    Without `photos`, images without a file are kept. `way_out` says how to name another folder of images.

    Raises:
        DataError: no image is left.
    """
    told = list(notes)
    said = {image_id: list(captions.get(image_id, ())) for image_id in splits}
    for image_id, first in first_names({image_id: paths[image_id] for image_id in splits}).items():
        if first != image_id:
            said[first] += said.pop(image_id)
    if others := [image_id for image_id in splits if image_id not in said]:
        told.append(f"Further names of the same file, which count as one image: {len(others):,}, such as {others[0]}.")
    texts = {image_id: tuple(filter(None, map(tidy, of_image))) for image_id, of_image in said.items()}
    captioned = [image_id for image_id in said if texts[image_id]]
    if len(captioned) < len(said):
        told.append(f"Images left out because they have no caption: {len(said) - len(captioned):,}.")
    told += empty_captions(sum(len(said[image_id]) - len(texts[image_id]) for image_id in captioned))
    wanted = [paths[image_id] for image_id in captioned]
    there = dict(zip(captioned, as_on_disk(wanted) if photos else wanted, strict=True))
    missing = tuple(str(paths[image_id]) for image_id, file in there.items() if file is None)
    examples = tuple(
        Example(image_id, splits[image_id], texts[image_id], file)
        for image_id, file in there.items()
        if file is not None
    )
    if not examples:
        if missing:
            first = f"The first is {missing[0]}. {way_out}".strip()
            raise DataError(f"{name}: all {len(missing):,} image files are missing.", first)
        raise DataError(
            f"{name}: no image has a caption.",
            " ".join([*notes, *empty_captions(sum(map(len, captions.values())))]),
        )
    return Dataset(name, examples, missing, tuple(told))


def first_names(paths: Mapping[str, Path]) -> dict[str, str]:
    """For each image id the first one that names the same file: im/../a.jpg is a.jpg."""
    first_of: dict[str, str] = {}
    return {i: first_of.setdefault(os.path.abspath(path), i) for i, path in paths.items()}  # noqa: PTH100


def split_by_image(image_ids: Iterable[str], seed: int = 0, shares: str = SHARES) -> dict[str, Split]:
    """80 % train, 10 % dev, 10 % test, the same for the same images whatever their order.

    All captions of an image are in the same split: otherwise the decoder would be tested on images that it has seen.

    Args:
        image_ids: the images.
        seed: another seed gives another split.
        shares: those of train, dev and test, as `90/5/5`; with three images or more, each share gets at least one.

    Raises:
        UsageError: the shares are not three numbers.
    """
    if not is_shares(shares) or not any(parts := [int(part) for part in shares.split("/")]):
        raise UsageError(f"'{shares}' is not a split.", "Write the shares of train, dev and test, such as 90/5/5.")
    shuffled = sorted(set(image_ids))
    random.Random(seed).shuffle(shuffled)
    least = 1 if len(shuffled) >= 3 else 0
    dev, test = (max(round(len(shuffled) * part / sum(parts)), least) if part else 0 for part in parts[1:])
    held_out = dict.fromkeys(shuffled[:dev], "dev") | dict.fromkeys(shuffled[dev : dev + test], "test")
    return {image_id: cast("Split", held_out.get(image_id, "train")) for image_id in sorted(shuffled)}


def automatic_split(image_ids: Iterable[str], why: str, settings: Mapping[str, str]) -> tuple[dict[str, Split], str]:
    """`split_by_image` with the shares in `settings`, if there are any; and a sentence that says so, or `why`."""
    if is_shares(shares := settings.get("split", "")):
        return split_by_image(image_ids, shares=shares), f"Images are split {shares} as asked, the same way every time."
    return split_by_image(image_ids), f"{why}: images are split {SHARES}, the same way every time."


def without_test(dataset: Dataset) -> Dataset:
    """The data set; if showtell itself has split its photos, those for a test become dev photos, too.

    Then no split of the same file, by whatever command, tests on photos that this one trains on.
    """
    if not any(f"images are split {SHARES}," in note for note in dataset.notes):
        return dataset
    examples = (replace(each, split="dev") if each.split == "test" else each for each in dataset.examples)
    notes = tuple(note.replace(SHARES, OWN_SHARES) for note in dataset.notes)
    return replace(dataset, examples=tuple(examples), notes=notes)


def named_splits(*said: Mapping[str, Split | None]) -> tuple[dict[str, Split], list[str]]:
    """The splits from the source that names most; empty if none names train and another split. And notes.

    An image without a named split is left out, with a note: it may be a test image.
    """
    found = [{image_id: split for image_id, split in each.items() if split is not None} for each in said]
    best = max((s for s in found if "train" in s.values() and len({*s.values()}) > 1), key=len, default={})
    rest = len(said[0]) - len(best) if best else 0
    return best, [f"Images left out because nothing names their split: {rest:,}."] if rest else []


def is_shares(split: str) -> bool:
    """Whether it is written like shares: 90/5/5."""
    return re.fullmatch(r"\d+/\d+/\d+", split) is not None
