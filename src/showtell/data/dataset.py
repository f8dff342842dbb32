"""What every loader returns: examples (an image and its captions), and a record of what was left out."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from showtell.data.scenes import Scene
from showtell.errors import DataError
from showtell.images.decode import read_image
from showtell.images.names import as_on_disk
from showtell.images.storage import ContainedImage

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

# What other data sets call the three splits; "restval" is the part of COCO's val that Karpathy trains on.
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
    """What to draw, in `shapes`; it can tell whether a caption is true."""
    stored: ContainedImage | None = None
    """Where the image is, if in a file that holds many."""
    mirrored: bool = False
    """Whether the image is read with its left and right in each other's place."""

    @property
    def name(self) -> str:
        """What messages and reports call the image."""
        return self.path.name if self.path is not None else self.image_id

    @property
    def container(self) -> str:
        """What the image is kept in: a folder, a shard; empty when it is drawn."""
        if self.stored is not None:
            return self.stored.container
        return str(self.path.resolve().parent) if self.path is not None else ""

    def read(self, *, at_least: int | None = None) -> npt.NDArray[np.uint8]:
        """The image, uint8 `[H, W, 3]` RGB; `at_least` as in `read_image`.

        Raises:
            ImageError: it is not there, damaged, or no image.
            DataError: what holds it can't be read now.
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
    """Image files that have captions and are not there."""
    notes: tuple[str, ...] = ()
    """What a user should know about how the files were read: one sentence each."""

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that have examples, in the order train, dev, test."""
        present = {example.split for example in self.examples}
        return tuple(split for split in SPLITS if split in present)

    def split(self, name: str) -> list[Example]:
        """The examples of one split ("val" means "dev"). Raises DataError when there are none."""
        wanted = SPLIT_NAMES.get(name.lower())
        chosen = [example for example in self.examples if example.split == wanted]
        if not chosen:
            raise DataError(f"{self.name} has no split '{name}'.", f"It has: {', '.join(self.splits)}.")
        return chosen


def dataset_of_files(
    name: str,
    captions: Mapping[str, Iterable[str]],
    splits: Mapping[str, Split],
    paths: Mapping[str, Path],
    notes: Iterable[str] = (),
    *,
    photos: bool = True,
) -> Dataset:
    """The data set of the images in `splits`, less those without caption or file; all maps are by image id.

    Without `photos`, images without a file are kept.

    Raises:
        DataError: no image is left.
    """
    told = list(notes)
    texts = {image_id: tuple(filter(None, map(tidy, captions.get(image_id, ())))) for image_id in splits}
    captionless = sum(not texts[image_id] for image_id in splits)
    if captionless:
        told.append(f"Images left out because they have no caption: {captionless:,}.")
    captioned = [image_id for image_id in splits if texts[image_id]]
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
            raise DataError(f"{name}: all {len(missing):,} image files are missing.", f"The first is {missing[0]}.")
        raise DataError(f"{name}: no image has a caption.")
    return Dataset(name, examples, missing, tuple(told))


def split_by_image(image_ids: Iterable[str], seed: int = 0) -> dict[str, Split]:
    """80 % train, 10 % dev, 10 % test, the same for the same images whatever their order.

    Captions of one image never part: the decoder would be tested on images that it has seen.
    """
    shuffled = sorted(set(image_ids))
    random.Random(seed).shuffle(shuffled)
    held_out = max(round(len(shuffled) / 10), 1 if len(shuffled) >= 3 else 0)
    dev, test = set(shuffled[:held_out]), set(shuffled[held_out : 2 * held_out])
    return {
        image_id: "dev" if image_id in dev else "test" if image_id in test else "train" for image_id in sorted(shuffled)
    }


def tidy(caption: str) -> str:
    """The caption with single blanks between its words and none around."""
    return " ".join(caption.split())
