"""Example photos for the page. showtell comes with none, so they are photos that this machine has.

They come from a folder of the user's choice, else from scikit-image, scikit-learn and matplotlib, whose packages hold
free photos, where those are installed. A model of drawn scenes (`shapes`) gets drawn scenes.
"""

import importlib.util
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image

from showtell.captioner import Captioner
from showtell.data.formats.shapes import example as drawn
from showtell.errors import ImageError, UsageError
from showtell.images.decode import Pixels, read_image
from showtell.images.sources import Finder

MOST = 6
LONGER_SIDE = 1024  # pixels
QUALITY = 88
SCENES = (8, 18, 28, 38)  # dev scenes: training has not seen them
# Name, package, file: public domain or CC0 (scikit-image, matplotlib), CC BY 2.0 (scikit-learn).
INSTALLED = (
    ("Photographer", "skimage", "data/camera.png"),
    ("Cat", "skimage", "data/chelsea.png"),
    ("Astronaut", "skimage", "data/astronaut.png"),
    ("Coffee", "skimage", "data/coffee.png"),
    ("Motorcycle", "skimage", "data/motorcycle_left.png"),
    ("Temple", "sklearn", "datasets/images/china.jpg"),
    ("Flower", "sklearn", "datasets/images/flower.jpg"),
    ("Officer", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)


@dataclass(frozen=True)
class Example:
    """One photo of the page."""

    name: str
    jpeg: bytes


def find_examples(captioners: Iterable[Captioner], folder: Path | None) -> tuple[Example, ...]:
    """Examples that suit the models.

    Raises:
        UsageError: the folder holds no photo.
    """
    if folder is not None:
        found = tuple(islice(_of_folder(folder), MOST))
        if not found:
            raise UsageError(f"{folder} holds no photo for --examples.", "Name a folder with photos in it.")
        return found
    if all(map(_knows_shapes_only, captioners)):
        return tuple(Example(f"Scene {n}", _jpeg(drawn(i, pixels=448).read())) for n, i in enumerate(SCENES, 1))
    return tuple(islice(_installed(), MOST))


def _of_folder(folder: Path) -> Iterator[Example]:
    for file in Finder().files_in(str(folder)):
        try:
            yield Example(Path(file).stem, _jpeg(read_image(file, at_least=LONGER_SIDE)))
        except ImageError:
            continue


def _installed() -> Iterator[Example]:
    for name, package, file in INSTALLED:
        spec = importlib.util.find_spec(package)  # finds it without importing it
        if spec and spec.origin and (path := Path(spec.origin).parent / file).is_file():
            try:
                yield Example(name, _jpeg(read_image(path)))
            except ImageError:
                continue


def _knows_shapes_only(captioner: Captioner) -> bool:
    """Whether a model was trained on drawn scenes, whose captions use about thirty words."""
    return len(captioner.tokenizer) < 64 and captioner.tokenizer.id_of("triangle") is not None


def _jpeg(pixels: Pixels) -> bytes:
    image, file = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((LONGER_SIDE, LONGER_SIDE))
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
