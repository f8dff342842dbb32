"""Augmentation: what is random follows from seeds, mirrored images have mirrored captions, and off means off."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from showtell.captioner import load as load_model
from showtell.data import load
from showtell.data.scenes import Scene
from showtell.errors import UsageError
from showtell.images.decode import Pixels, Preprocessing, prepare, resize
from showtell.training import trainer
from showtell.training.inputs.augmentation import Augmentation, mirrored, random_of, recoloured
from showtell.training.inputs.batches import Batch
from showtell.training.recipe import documented_keys, load_recipe
from showtell.training.stages.stage import Loss
from showtell.training.step import Seen

SEED = (0, 1, 2)
ALL = Augmentation(flip=0.5, crop=0.5, colour=0.3, cutout=0.25)
SMALL = Preprocessing(size=32)


def photo(height: int = 60, width: int = 90, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pictures(augmentation: Augmentation, image: Pixels, preprocessing: Preprocessing = SMALL) -> list[Pixels]:
    """One image as twenty rows would get it."""
    return [augmentation.picture(image, preprocessing, random_of(SEED, row)) for row in range(20)]


def test_off_is_what_validation_sees() -> None:
    image, seen = photo(), resize(photo(), SMALL)
    assert all(np.array_equal(picture, seen) for picture in pictures(Augmentation(), image))
    assert Augmentation().at_least(SMALL) == SMALL.shorter_side


def test_the_seed_decides_all() -> None:
    """Not the order in which threads ask; and stage, epoch and row each change it."""
    image = photo()
    forwards = pictures(ALL, image)
    backwards = [ALL.picture(image, SMALL, random_of(SEED, row)) for row in reversed(range(20))][::-1]
    assert all(map(np.array_equal, forwards, backwards))
    assert len({picture.tobytes() for picture in forwards}) == 20
    others = [random_of(seed, 7).random() for seed in (SEED, (1, 1, 2), (0, 2, 2), (0, 1, 3))]
    others += [random_of(SEED, 0).random(), np.random.default_rng(SEED).random()]
    assert len(set(others)) == 6, "row 0 must not draw what decides the epoch's order"


@settings(deadline=None, max_examples=60)
@given(
    st.builds(
        Augmentation,
        flip=st.sampled_from([0, 0.5, 1]),
        crop=st.sampled_from([1, 0.9, 0.01]),
        colour=st.sampled_from([0, 0.99]),
        cutout=st.sampled_from([0, 0.001, 0.4, 1]),
    ),
    st.tuples(st.integers(1, 80), st.integers(1, 80)),
    st.builds(
        Preprocessing,
        size=st.integers(1, 40),
        resize=st.sampled_from(["crop", "squash"]),
        crop_fraction=st.sampled_from([1, 0.875, 0.5]),
    ),
    st.integers(0, 1000),
)
def test_any_photo_becomes_the_encoders_square(
    augmentation: Augmentation, shape: tuple[int, int], preprocessing: Preprocessing, row: int
) -> None:
    image = photo(*shape)
    before = image.copy()
    picture = augmentation.picture(image, preprocessing, random_of(SEED, row))
    assert (picture.shape, picture.dtype) == ((preprocessing.size, preprocessing.size, 3), np.uint8)
    assert np.array_equal(image, before), "the photo itself is left alone"


def test_flip_mirrors_the_share_that_is_asked_for() -> None:
    image, seen = photo(), resize(photo(), SMALL)
    assert all(np.array_equal(picture, seen[:, ::-1]) for picture in pictures(Augmentation(flip=1), image))
    half = [picture.tobytes() for row in range(10) for picture in pictures(Augmentation(flip=0.5), image)]
    assert set(half) == {seen.tobytes(), seen[:, ::-1].tobytes()}
    flips = [Augmentation(flip=0.3).mirrors(random_of(SEED, row)) for row in range(2000)]
    assert 0.26 < np.mean(flips) < 0.34


@pytest.mark.parametrize(
    ("caption", "other"),
    [
        ("A dog left of a cat, right behind it.", "A dog right of a cat, left behind it."),
        ("Left and right and left-handed", "Right and left and right-handed"),
        ("a bright light, an upright leftover", "a bright light, an upright leftover"),
    ],
)
def test_left_and_right_change_places(caption: str, other: str) -> None:
    assert mirrored(caption) == other
    assert mirrored(other) == caption


def mirror_image(scene: Scene) -> Scene:
    """The same scene seen in a mirror."""
    return replace(scene, things=tuple(replace(thing, x=1 - thing.x, turn=-thing.turn) for thing in scene.things))


def test_captions_are_true_of_what_the_encoder_gets() -> None:
    """Whoever lays out captions and whoever reads photos must agree on which are mirrored."""
    examples = load("shapes:60,pixels=64").split("train")
    texts = [list(example.captions) for example in examples]
    half = Augmentation(flip=0.5)
    epoch = half.captions(texts, examples, lambda captions: list(captions), SEED)  # type: ignore[arg-type, return-value]
    square = Preprocessing(size=64)
    changed = 0
    for row, (example, captions) in enumerate(zip(examples, epoch, strict=True)):
        assert example.scene is not None
        picture = half.picture(example.read(), square, random_of(SEED, row))
        flipped = not np.array_equal(picture, example.read())
        scene = mirror_image(example.scene) if flipped else example.scene
        assert all(scene.is_true(caption) for caption in captions)  # type: ignore[arg-type]
        changed += captions != texts[row]
    assert 5 < changed < 35
    assert half.captions(texts, examples, list, (0, 1, 3)) != epoch  # type: ignore[arg-type]
    assert Augmentation(crop=0.5).captions(texts, examples, list, SEED) is texts  # type: ignore[arg-type, comparison-overlap]


def test_crop_shows_a_part_as_large_as_it_says() -> None:
    """On a photo whose colours are its coordinates, each crop tells where it was taken."""
    down, across = np.mgrid[0:200, 0:240].astype(np.uint8)
    image = np.stack([across, down, np.zeros_like(down)], 2)
    boxes = np.array(
        [
            (picture[:, -1, 0].mean() - picture[:, 0, 0].mean(), picture[-1, :, 1].mean() - picture[0, :, 1].mean())
            for picture in (Augmentation(crop=0.5).picture(image, SMALL, random_of(SEED, row)) for row in range(300))
        ]
    ) * (32 / 31)  # the outermost pixels' middles are a pixel's width less apart
    shares = boxes.prod(1) / 200**2
    assert 0.48 < shares.min() < 0.56
    assert 0.88 < shares.max() < 1.03
    shapes = boxes[:, 0] / boxes[:, 1]
    assert 0.70 < shapes.min() < 0.85
    assert 1.2 < shapes.max() < 1.4


def test_crop_asks_for_larger_decoding() -> None:
    """A JPEG that is decoded small for the whole photo would be blown up for a part of it."""
    assert Augmentation(crop=0.25).at_least(Preprocessing(size=100)) == 231  # 100 * 2 * sqrt(4/3)


def test_recoloured_is_what_its_factors_say() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    assert np.array_equal(recoloured(grey, 1.2, 1, 1), np.full_like(grey, 120))
    assert np.array_equal(recoloured(grey, 1, 1.5, 0.3), grey), "grey all over has no contrast and no saturation"
    assert recoloured(np.full_like(grey, 250), 2, 1, 1).max() == 255, "clipped, not wrapped around"
    image = photo(16, 16)
    assert np.array_equal(recoloured(image, 1, 1, 1), image)
    colourless = recoloured(image, 1, 1, 0)
    assert np.ptp(colourless, 2).max() == 0
    assert 0.78 < recoloured(image, 1, 0.8, 1).std(0).mean() / image.std(0).mean() < 0.82


def test_cutout_blanks_a_square_of_the_mean() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    blanks = [(picture == (124, 116, 104)).all(2) for picture in pictures(Augmentation(cutout=0.25), image)]
    assert max(blank.sum() for blank in blanks) == 8 * 8
    assert all(0 < blank.sum() <= 8 * 8 for blank in blanks)
    assert all(blank[np.ix_(blank.any(1), blank.any(0))].all() for blank in blanks)


@pytest.mark.parametrize("encoder_stages", [0, 1], ids=["cached grids", "live photos"])
def test_the_trainer_mirrors_photos_and_captions_together(
    encoder_stages: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that the model is shown in two epochs, checked against the scenes.

    Captions of shapes never say "right": the mirrored ones must have a word for it all the same.
    """
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "{name: x, encoder: {name: efficientnet_lite0, weights: random, size: 64, stages: 2}, "
        "tokenizer: {min_count: 1}, decoder: {name: show_and_tell, embedding_width: 8, hidden_width: 8}, "
        "validation_images: 1, "
        "stages: [{kind: cross_entropy, epochs: 2, batch_images: 8, augmentation: {flip: 0.5}}]}"
    )  # two stages: random weights make each stage's features smaller, down to what half precision can't hold
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))
    shown: list[tuple[Tensor, Batch]] = []

    def recorded_step(accelerator, stage, objective, model, optimizer, inputs, batch, done):  # type: ignore[no-untyped-def]
        shown.append((inputs, batch))
        return Seen.of(Loss({"words": torch.ones(())}, batch))

    monkeypatch.setattr(trainer, "step", recorded_step)
    dataset = load("shapes:40,pixels=64")
    trainer.train(load_recipe(recipe, [f"stages.0.encoder_stages={encoder_stages}"]), dataset, tmp_path / "run")
    captioner = load_model(tmp_path / "run")

    def difference(shown: Tensor, image: Pixels) -> float:
        """Between what the model was shown and this image: itself, or its grid, which was kept in half precision."""
        picture = torch.from_numpy(prepare([image], captioner.config.preprocessing))
        with torch.no_grad():
            seen = picture if encoder_stages else captioner.engine.model.encoder(picture)  # type: ignore[attr-defined]
        return float((shown - seen[0]).abs().max() / seen.abs().max())

    examples, flips = dataset.split("train"), Counter[bool]()
    for pictures, batch in shown:
        for picture, captions, row in zip(pictures, batch.tokens.tolist(), batch.rows, strict=True):
            scene, image = examples[row].scene, examples[row].read()
            assert scene is not None
            as_it_is, mirrored = difference(picture, image), difference(picture, image[:, ::-1])
            assert min(as_it_is, mirrored) < 2e-3 < max(as_it_is, mirrored)
            if mirrored < as_it_is:
                scene = mirror_image(scene)
            assert all(scene.is_true(captioner.tokenizer.decode(ids)) for ids in captions)
            flips[mirrored < as_it_is] += 1
    assert flips.total() == 2 * 32
    assert min(flips.values()) > 16


def test_recipes_name_it_and_grids_can_only_be_flipped(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "{name: x, encoder: {name: efficientnet_lite0}, decoder: {name: show_and_tell}, "
        "stages: [{kind: cross_entropy, augmentation: {flip: 0.5}}]}"
    )
    with pytest.raises(UsageError, match=r"augmentation changes live photos.*encoder_stages"):
        load_recipe(recipe, ["stages.0.augmentation.colour=0.2"])
    stage = load_recipe(recipe, ["stages.0.encoder_stages=1", "stages.0.augmentation.crop=0.6"]).stages[0]
    assert stage.augmentation == Augmentation(flip=0.5, crop=0.6)
    with pytest.raises(UsageError, match=r"augmentation\.flop.*nearest is 'flip'"):
        load_recipe(recipe, ["stages.0.augmentation.flop=1"])
    assert {key for key, _, _ in documented_keys() if ".augmentation." in key} == {
        f"stages.0.augmentation.{field}" for field in Augmentation.model_fields
    }
