"""What is likely a mistake in captions of one's own."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from showtell.data.dataset import Example
from showtell.data.doubts import doubts


def examples(*captions: str) -> list[Example]:
    return [Example(f"{n}.jpg", "train", (caption,)) for n, caption in enumerate(captions)]


def test_good_captions_raise_none() -> None:
    assert doubts(examples("a red ball on grass", "two cats on a sofa", "the sea at night", "a plate of soup")) == []


@pytest.mark.parametrize(
    ("captions", "said"),
    [
        (["a photo of it"] * 3 + ["a red ball on grass"] * 2, "'a photo of it' is a caption of 3 of 5 photos"),
        (["cat", "dog", "a red ball", "the blue sea"], "Captions of one or two words: 2 of 4."),
        (
            ["a ball", "word " * 41, "a red ball on grass", "the blue sea", "b c d"],
            "Captions of more than 40 words: 1.",
        ),
        (["猫", "狗狗", "一只猫在沙发上", "海边的日落很美"], "Captions of one or two words: 2 of 4."),
    ],
)
def test_captions(captions: list[str], said: str) -> None:
    assert [doubt for doubt in doubts(examples(*captions)) if doubt.startswith(said)]


def test_photos_that_are_there_twice(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), np.uint8)
    paths = []
    for number, which in enumerate((0, 1, 0, 2)):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels[which]).save(paths[-1])
    splits = ("train", "train", "dev", "dev")
    captions = ("a red ball", "two cats on a sofa", "the sea at night", "a plate of soup")
    photos = [
        Example(path.name, split, (caption,), path)  # type: ignore[arg-type]
        for path, split, caption in zip(paths, splits, captions, strict=True)
    ]
    assert doubts(photos) == [
        "Photos that occur more than once: 1, such as 0.png and 2.png.",
        "Photos in more than one split: 1, such as 0.png. Scores on them are too high.",
    ]
    assert len(doubts(photos[:2])) == 0
