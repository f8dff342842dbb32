"""Random changes of live photos while an encoder learns from them, and of their captions.

All randomness of an image in an epoch comes from the image's own generator, so neither the order of the reading threads
nor resuming a run changes it. Its first number decides whether the image is mirrored: the code that lays out captions
and the code that reads photos each make the same generator.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from math import ceil, exp, log, sqrt

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from showtell.data.dataset import Example
from showtell.images.decode import RESAMPLING, Pixels, Preprocessing, resize
from showtell.languages import ENGLISH, lowered
from showtell.training.inputs.batches import Ids

STRETCH = 4 / 3
"""A crop is at most this many times wider or higher than the encoder's usual part of the photo."""
GREY = np.array([0.299, 0.587, 0.114])
"""Shares of red, green and blue in a pixel's brightness (ITU-R BT.601)."""
LEFT_AND_RIGHT = {
    "en": (("left", "right"),),
    "de": (
        ("links", "rechts"), ("linke", "rechte"), ("linken", "rechten"), ("linker", "rechter"), ("linkes", "rechtes"),
    ),
    "nl": (("links", "rechts"), ("linker", "rechter")),
    "fr": (("gauche", "droite"),),
    "es": (("izquierda", "derecha"), ("izquierdo", "derecho")),
    "it": (("sinistra", "destra"),),
    "pt": (("esquerda", "direita"), ("esquerdo", "direito")),
    "tr": (("sol", "sağ"), ("solunda", "sağında"), ("solda", "sağda"), ("soldaki", "sağdaki")),
    "ru": (("слева", "справа"), ("левее", "правее"), ("левой", "правой"), ("левом", "правом")),
    "hi": (("बाएँ", "दाएँ"), ("बाईं", "दाईं")),
    "ar": (("يسار", "يمين"), ("اليسار", "اليمين")),
    "zh": (("左", "右"),),
    "ja": (("左", "右"),),
    "th": (("ซ้าย", "ขวา"),),
}  # fmt: skip
"""The words for the sides in each language. If letters are words, 左右 (about) and ขวาน (an axe) are not sides."""
LETTERS_FOR_SIDES = re.compile("(?<!左)右|左(?!右)|ซ้าย|ขวา(?!น)")


class Augmentation(BaseModel):
    """How photos change from epoch to epoch; by default not at all. Validation sees every photo as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the photos that are mirrored; 'left' and 'right' change places in their captions, in the "
        "languages of docs/your-own.md",
    )
    crop: float = Field(
        1.0,
        gt=0,
        le=1,
        description="smallest area of a random crop, as a share of what the encoder usually sees; 1 crops nothing",
    )
    colour: float = Field(
        0.0, ge=0, lt=1, description="largest change of brightness, contrast and saturation; 0.2 means 0.8 to 1.2 times"
    )
    cutout: float = Field(
        0.0,
        ge=0,
        le=1,
        description="side of a square that is blanked at a random place, as a share of the photo's side",
    )

    def mirrors(self, random: np.random.Generator) -> bool:
        """Whether the image is mirrored; `random` is its generator, still unused."""
        return random.random() < self.flip

    def at_least(self, preprocessing: Preprocessing) -> int:
        """The shorter side in pixels from which no crop must enlarge: `at_least` of `read_image`."""
        return ceil(preprocessing.shorter_side * (sqrt(STRETCH / self.crop) if self.crop < 1 else 1))

    def picture(self, image: Pixels, preprocessing: Preprocessing, random: np.random.Generator) -> Pixels:
        """A photo `[H, W, 3]` as the encoder gets it in training, uint8 `[S, S, 3]`; `random` as in `mirrors`."""
        flipped = self.mirrors(random)
        if self.crop < 1:
            picture = random_crop(image, self.crop, preprocessing, random)
        else:
            picture = resize(image, preprocessing)
        if self.colour:
            picture = recoloured(picture, *random.uniform(1 - self.colour, 1 + self.colour, 3))
        if self.cutout:
            picture = with_blank_square(picture, self.cutout, preprocessing, random)
        return picture[:, ::-1] if flipped else picture

    def captions(
        self,
        captions: Sequence[Sequence[Ids]],
        examples: Sequence[Example],
        encode: Callable[[Sequence[str]], Sequence[Ids]],
        seed: Sequence[int],
        language: str = ENGLISH,
    ) -> Sequence[Sequence[Ids]]:
        """The captions of all images for one epoch: those of mirrored images name the other side.

        Args:
            captions: token ids of the examples' captions.
            examples: the images, in the order of their rows.
            encode: turns captions into token ids.
            seed: the epoch's seed, as in `random_of`.
            language: of the captions.
        """
        if not self.flip:
            return captions
        true_captions = list(captions)
        for row, example in enumerate(examples):
            others = [mirrored(caption, language) for caption in example.captions]
            if others != list(example.captions) and self.mirrors(random_of(seed, row)):
                true_captions[row] = encode(others)
        return true_captions


def random_of(seed: Sequence[int], row: int) -> np.random.Generator:
    """The generator of one image in one epoch.

    Args:
        seed: the recipe's seed, the number of the stage, the number of the epoch.
        row: the image's place in the data set.
    """
    # A spawn key: NumPy treats seed [1, 2, 3, 0] like [1, 2, 3], which decides the order of the epoch.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(row,)))


def mirror_image(example: Example) -> Example:
    """The example with its image mirrored, under its own id; its captions are still those of the original."""
    return replace(example, image_id=f"{example.image_id}, mirrored", mirrored=True)


def mirrored(caption: str, language: str = ENGLISH) -> str:
    """The caption with left and right swapped, as is true of the mirrored photo.

    In a language that is not in `LEFT_AND_RIGHT` it stays as it is.
    """
    side, others = _sides(language)

    def other(found: re.Match[str]) -> str:
        word = others.get(lowered(found[0], language), found[0])
        return word.upper() if found[0].isupper() else word.capitalize() if found[0][0].isupper() else word

    return side.sub(other, caption) if others else caption


@cache
def _sides(language: str) -> tuple[re.Pattern[str], dict[str, str]]:
    """An expression that finds sides in a caption, and the opposite of each side."""
    pairs = LEFT_AND_RIGHT.get(language, ())
    others = {side: other for pair in pairs for side, other in (pair, pair[::-1])}
    if language in ("zh", "ja", "th"):
        return LETTERS_FOR_SIDES, others
    return re.compile(rf"(?<!\w)(?:{'|'.join(others)})(?!\w)", re.IGNORECASE), others


def random_crop(image: Pixels, least: float, preprocessing: Preprocessing, random: np.random.Generator) -> Pixels:
    """A random part of the photo as uint8 `[S, S, 3]`.

    Its area is `least` to 1 times that of the part that `resize` takes, and its shape differs by up to `STRETCH`; it
    may be anywhere in the photo, also at the ends that `resize` cuts off.
    """
    height, width = image.shape[:2]
    across, down = (min(width, height),) * 2 if preprocessing.resize == "crop" else (width, height)
    scale = preprocessing.crop_fraction * sqrt(random.uniform(least, 1))
    stretch = exp(random.uniform(-log(STRETCH), log(STRETCH)) / 2)
    across, down = min(width, across * scale * stretch), min(height, down * scale / stretch)
    left, top = random.uniform(0, width - across), random.uniform(0, height - down)
    size, resampling = (preprocessing.size,) * 2, RESAMPLING[preprocessing.interpolation]
    return np.array(Image.fromarray(image).resize(size, resampling, box=(left, top, left + across, top + down)))


def recoloured(picture: Pixels, brightness: float, contrast: float, saturation: float) -> Pixels:
    """The picture `[S, S, 3]` with brightness, contrast (around its mean grey) and saturation scaled so."""
    # All three are linear in a pixel's colour, so they are one matrix and one clipping to 0..255.
    saturated = saturation * np.eye(3) + (1 - saturation) * GREY
    image = Image.fromarray(picture)
    mean_grey = np.asarray(image.convert("L")).mean()
    colours, shift = brightness * contrast * saturated, brightness * (1 - contrast) * mean_grey
    rows = np.column_stack([colours, np.full(3, shift)])  # [3, 4]
    return np.array(image.convert("RGB", tuple(rows.ravel().tolist())))


def with_blank_square(
    picture: Pixels, side: float, preprocessing: Preprocessing, random: np.random.Generator
) -> Pixels:
    """The picture with the encoder's mean colour in a square (DeVries and Taylor 2017).

    Its middle is anywhere in the picture, so part of it may fall outside.
    """
    pixels = round(side * len(picture))
    top, left = random.integers(0, len(picture), 2) - pixels // 2
    blanked = picture.copy()
    blanked[max(0, top) : top + pixels, max(0, left) : left + pixels] = np.round(255 * np.array(preprocessing.mean))
    return blanked
