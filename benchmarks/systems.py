"""Every lite recipe: its decoder's size, how fast it trains and how fast it searches, on grids computed beforehand.

    python benchmarks/systems.py

Training is a recipe's whole step (loss, gradients, clipping, AdamW) on a batch of its own size, with five captions an
image, as long as Flickr8k's. Search is the recipe's own beam, held to 12 steps a caption, 64 images at a time, with the
decoder as `TorchEngine.from_bundle` makes it. Weights are random. Times are medians of alternating runs.
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from search import RECIPES, VOCABULARY, D, N, V, parameters
from timing import median_seconds, product_speed
from torch import nn

from showtell.engines.torch import TorchEngine, with_packed_weights
from showtell.models.captioning_model import CaptioningModel, build_decoder
from showtell.search import search
from showtell.training.inputs.batches import batch_of
from showtell.training.recipe import Recipe, load_recipe
from showtell.training.stages.cross_entropy import CrossEntropy

LENGTHS = (16, 13, 12, 10, 8)  # words and <end> of Flickr8k's longest to shortest caption, on average
SEARCHED, STEPS = 64, 12


def training_step(recipe: Recipe) -> tuple[Callable[[], object], int]:
    """A step of the recipe's first stage, and how many captions it learns from."""
    stage = recipe.stages[0]
    assert isinstance(stage, CrossEntropy)
    decoder = build_decoder(recipe.decoder, D, V)
    model = CaptioningModel(nn.Identity(), decoder).train()  # type: ignore[arg-type]  # it never encodes
    random = np.random.default_rng(0)
    captions = [[[1, *random.integers(4, V, n - 1), 2] for n in LENGTHS] for _ in range(stage.batch_images)]
    batch = batch_of(np.arange(stage.batch_images), captions)
    grid = torch.randn(stage.batch_images, N, D)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(list(stage.terms(model, grid, batch, 0.5).values())).sum().backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), stage.clip)
        optimizer.step()

    return step, stage.batch_images * len(LENGTHS)


def whole_search(recipe: Recipe) -> Callable[[], object]:
    """The search for the captions of `SEARCHED` images."""
    decoder = with_packed_weights(copy.deepcopy(build_decoder(recipe.decoder, D, V).eval()))
    engine = TorchEngine(CaptioningModel(nn.Identity(), decoder))  # type: ignore[arg-type]
    options = replace(recipe.search, min_words=STEPS - 1, max_words=STEPS - 1)
    grid = torch.randn(SEARCHED, N, D).numpy()
    return lambda: search(engine, engine.memory_from_grid(grid), options, VOCABULARY)


def main() -> None:
    """Print one line for each recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"N={N} D={D} V={V}, {torch.get_num_threads()} threads, matrix products {product_speed() / 1e9:.0f} GFLOP/s")
    print("recipe                           millions   training, captions/s   search, images/s")
    for path in sorted(RECIPES.glob("*_lite.yaml")):
        recipe = load_recipe(path)
        step, captions = training_step(recipe)
        training, searching = median_seconds([step, whole_search(recipe)], options.repeats)
        size = parameters(build_decoder(recipe.decoder, D, V)) / 1e6
        print(f"{path.stem:32}{size:9.1f}{captions / training:23.0f}{SEARCHED / searching:19.0f}", flush=True)


if __name__ == "__main__":
    main()
