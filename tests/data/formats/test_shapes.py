"""Drawn scenes: captions are true, false ones are found out, and no held-out scene is one of training's."""

from concurrent.futures import ProcessPoolExecutor
from copy import copy
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell import data
from showtell.data.formats.shapes import example
from showtell.data.scenes import COLOURS, RADII, SHAPES, Scene, Thing
from showtell.errors import UsageError


def thing(shape: str, colour: str, size: str, x: float, y: float) -> Thing:
    return Thing(shape, colour, size, x, y, RADII[size], 0.0, COLOURS[colour])


SCENE = Scene(
    (
        thing("circle", "red", "big", 0.25, 0.25),
        thing("square", "blue", "small", 0.75, 0.30),
        thing("circle", "green", "small", 0.80, 0.85),
    ),
    (255, 255, 255),
    96,
)


@pytest.mark.parametrize(
    "caption",
    [
        "a red circle",
        "A big red circle .",
        "there is a circle that is red",
        "a circle that is small",
        "the picture shows a big shape",
        "a red circle and a blue square and a small green circle",
        "a circle and a circle",
        "a red circle left of a blue square",
        "a red circle that is to the left of a blue square",
        "a blue square to the right of a circle that is red",
        "a green circle below a blue square",
        "there is a blue square over a shape and a red circle",
        "a red circle above a green circle and a blue square",
    ],
)
def test_true_captions(caption: str) -> None:
    assert SCENE.is_true(caption)


@pytest.mark.parametrize(
    "caption",
    [
        "a green square",  # both words occur, not together
        "a small red circle",
        "a red circle that is small",
        "a red circle and a red circle",  # there is only one
        "a circle and a circle and a circle",
        "a red circle right of a blue square",
        "a red circle above a blue square",  # level
        "a blue square under a green circle",
        "a red circle left of a red circle",
        "a red circle above a green circle and a red square",
    ],
)
def test_false_captions(caption: str) -> None:
    assert not SCENE.is_true(caption)


@pytest.mark.parametrize(
    "caption",
    [
        "",
        ".",
        "red circle",
        "a red",
        "a red circle a blue square",
        "a red circle and",
        "a red circle left of",
        "left of a red circle",
        "a red circle left of a blue square left of a green circle",
        "a circle red",
        "a red red circle",
        "a red circle <unk>",
        "there is there is a red circle",
        "the picture shows there is a red circle",
        "there is the picture shows a red circle",
    ],
)
def test_captions_outside_the_grammar_are_not_true(caption: str) -> None:
    assert not SCENE.is_true(caption)


@given(st.integers(0, 10**6), st.integers(0, 5))
def test_captions_of_every_scene_are_true_and_different(index: int, seed: int) -> None:
    drawn = example(index, seed, pixels=64)
    assert drawn.scene is not None
    assert len(set(drawn.captions)) == len(drawn.captions) == 5
    assert all(drawn.scene.is_true(caption) for caption in drawn.captions)


@given(st.integers(0, 10**6))
def test_the_opposite_of_a_true_relation_is_false(index: int) -> None:
    """Truth is exact: things of a scene are never almost level, so no relation holds both ways."""
    drawn = example(index)
    assert drawn.scene is not None
    swap = {
        "left": "right",
        "right": "left",
        "above": "below",
        "below": "above",
        "over": "under",
        "under": "over",
    }
    for caption in drawn.captions:
        words = caption.split()
        if not swap.keys() & set(words):
            continue
        mirrored = " ".join(swap.get(word, word) for word in words)
        assert not drawn.scene.is_true(mirrored)


def test_captions_can_tell_scenes_apart() -> None:
    """A check that nearly any caption passes would measure nothing."""
    examples = data.load("shapes:300,pixels=64").examples
    claims = [(a, caption) for a, b in pairwise(examples) for caption in b.captions]
    assert sum(a.scene.is_true(caption) for a, caption in claims if a.scene) / len(claims) < 0.05


def test_splits() -> None:
    dataset = data.load("shapes:1000")
    assert [len(dataset.split(name)) for name in ("train", "dev", "test")] == [800, 100, 100]
    layouts = {name: {it.scene.layout() for it in dataset.split(name) if it.scene} for name in dataset.splits}
    assert not layouts["train"] & layouts["dev"]
    assert not layouts["train"] & layouts["test"]
    assert not layouts["dev"] & layouts["test"]
    assert len({it.image_id for it in dataset.examples}) == 1000


def test_scene_does_not_depend_on_what_else_is_drawn() -> None:
    few, many = data.load("shapes:5"), data.load("shapes:50")
    assert few.examples == many.examples[:5]
    assert data.load("shapes:5,seed=1").examples != few.examples
    assert few.examples[0].name == "shapes-000000"


def test_vocabulary_is_small() -> None:
    words = {word for it in data.load("shapes:500").examples for caption in it.captions for word in caption.split()}
    assert len(words) <= 30
    assert set(COLOURS) | set(SHAPES) | set(RADII) < words


def test_drawing() -> None:
    """Colours are where the scene says, and edges are smooth."""
    pixels = SCENE.draw()
    assert pixels.shape == (96, 96, 3)
    assert pixels.dtype == np.uint8
    for it in SCENE.things:
        assert pixels[int(it.y * 96), int(it.x * 96)].tolist() == list(it.rgb)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10
    assert data.load("shapes:1,pixels=64").examples[0].read().shape == (64, 64, 3)
    assert data.load("shapes:1").examples[0].read().shape == (224, 224, 3)


def test_every_shape_stays_on_the_canvas_and_off_the_others() -> None:
    for it in data.load("shapes:200,pixels=64").examples:
        pixels = it.read().astype(int)
        assert it.scene is not None
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (border == it.scene.ground).all()


def test_examples_cross_process_boundaries() -> None:
    drawn = example(3)
    with ProcessPoolExecutor(1) as other:
        assert other.submit(copy, drawn).result() == drawn


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("many", r"shapes:many can't be read\. Write shapes:2000,seed=1"),
        ("10,seed=x", "shapes:10,seed=x can't be read"),
        ("10,colour=red", r"unknown setting 'colour=red'\. Choose from: seed=N, pixels=N, language=CODE"),
        ("0", r"shapes:0 is too small"),
        ("10,pixels=32", "of 64 pixels or more"),
    ],
)
def test_specs_that_are_wrong(options: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        data.load(f"shapes:{options}")
