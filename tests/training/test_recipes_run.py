"""Every shipped recipe trains an epoch, is saved, captions and shows where it looked: tiny photos, random weights."""

from pathlib import Path

import numpy as np
import pytest

import showtell
from showtell.data import load
from showtell.models.show_and_tell import ShowAndTellConfig
from showtell.training.recipe import load_recipe
from showtell.training.trainer import train

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
SMALL = [
    "encoder.weights=random", "encoder.size=64", "tokenizer.min_count=1", "search.max_words=8", "search.beam=2",
    "stages.0.epochs=1", "stages.0.batch_images=3",
]  # fmt: skip


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains_an_epoch(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))
    recipe = load_recipe(path, SMALL)
    if recipe.encoder.name == "resnet101":  # a random one doubles its activations 33 times: too large for the cache
        recipe = load_recipe(path, [*SMALL, "encoder.name=resnet50"])
    photos = load("shapes:12")
    train(recipe.model_copy(update={"stages": recipe.stages[:1]}), photos, tmp_path / "run")
    captioner = showtell.load(tmp_path / "run")
    caption = captioner(photos.examples[0].read(), attention=True)[0]
    assert 0 < len(caption.words) <= 8
    if isinstance(recipe.decoder, ShowAndTellConfig):
        assert caption.attention is None
    else:
        assert caption.attention is not None
        assert caption.attention.shape == (len(caption.words), *captioner.config.grid)
        np.testing.assert_allclose(caption.attention.sum((1, 2)), 1, atol=1e-4)
