"""A recipe for captions of one's own: what is right for so many photos, from a model that knows captions already.

Tried with 20, 80 and 320 photos of daily life and a start that knows Flickr8k: docs/your-own.md.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from showtell.bundle import load_bundle
from showtell.data.dataset import Dataset
from showtell.languages import words_of
from showtell.training.recipe import Recipe, parse_recipe

FROM_SCRATCH: dict[str, Any] = {
    "encoder": {"name": "efficientnet_lite2"},
    "decoder": {
        "name": "adaptive_attention",
        "embedding_width": 512,
        "hidden_width": 512,
        "attention_width": 512,
        "dropout": 0.5,
        "feature_dropout": 0.2,
        "normalise": True,
    },
    "search": {"beam": 5, "max_words": 20, "length_penalty": 1.0},
}
LONGEST, MOST_WORDS = 0.99, 50  # captions may be as long as 99 % of those to learn from; the server allows no more
STEPS, FEWEST_PASSES = 60, 10  # steps that few photos get at least, and passes that many photos get
NEW_WORDS = 5  # times as fast as the rest all words' rows learn: those that the start lacks stand in few captions
FEWEST_FOR_ENCODER = 3_000  # photos: with 850 nothing was won, with 7,500 seven points
# Seconds on two cores, per photo: an encoder's pass; a step on cached features; one on live photos; a validation.
ENCODED, STEPPED, LIVE, VALIDATED = 0.02, 0.05, 0.1, 0.02


@dataclass(frozen=True)
class Plan:
    """What a training will do."""

    recipe: Recipe
    minutes: float
    """About how long it takes on two cores."""
    said: str
    """The same for people."""


def plan_for(dataset: Dataset, start: str | None, name: str, minutes: float | None = None) -> Plan:
    """The plan for a data set.

    Args:
        dataset: with a train and a dev split.
        start: the model to start from; None trains from scratch.
        name: of the new model.
        minutes: that it may take, about.

    Raises:
        BundleError: there is no such model.
        DataError: the data set lacks a split.
    """
    train, dev = dataset.split("train"), dataset.split("dev")
    photos, captions = len(train), sum(len(example.captions) for example in train)
    words = sorted(len(words_of(caption)) for example in train for caption in example.captions)
    longest = min(words[int(LONGEST * (len(words) - 1))], MOST_WORDS)
    batch = min(20, max(4, photos // 4))
    steps = math.ceil(photos / batch)
    epochs = max(FEWEST_PASSES, math.ceil(STEPS / steps))
    epochs = epochs if start else max(2 * FEWEST_PASSES, math.ceil(10 * STEPS / steps))
    once = (photos * 2 + len(dev)) * ENCODED
    each = photos * STEPPED + len(dev) * VALIDATED
    if minutes is not None:
        epochs = max(1, min(epochs, int((60 * minutes - once) / each)))
    seconds = once + epochs * each
    model = FROM_SCRATCH
    if start is not None:
        config = load_bundle(start).config
        model = {
            "encoder": config.encoder,
            "decoder": config.decoder,
            "search": asdict(config.search),
            "start_from": start,
        }
    stage: dict[str, Any] = {
        "kind": "cross_entropy",
        "epochs": epochs,
        "batch_images": batch,
        "learning_rate": 5e-4 if start else 1.5e-3,
        "words_learning_rate": NEW_WORDS * 5e-4 if start else None,
        "weight_decay": 0.05,
        "augmentation": {"flip": 0.5},
    }
    stages = [stage]
    live = photos * LIVE + len(dev) * (ENCODED + VALIDATED)
    if photos >= FEWEST_FOR_ENCODER and (minutes is None or seconds + live <= 60 * minutes):
        passes = 4 if minutes is None else max(1, min(4, int((60 * minutes - seconds) / live)))
        changes = {"flip": 0.5, "crop": 0.6, "colour": 0.2}
        stages.append(
            {**stage, "epochs": passes, "encoder_stages": 9, "encoder_learning_rate": 1e-4, "augmentation": changes}
        )
        seconds += passes * live
    search = {**model["search"], "max_words": max(model["search"]["max_words"], longest)}
    settings = {"name": name, **model, "search": search, "stages": stages, "start_counts": start is not None}
    recipe = parse_recipe({**settings, "max_words": max(40, longest)}, f"The plan for {name}")
    begins = f"It starts from {Path(start).name}" if start else "It starts from nothing"
    then = ", then the encoder too" if len(stages) > 1 else ""
    about = max(1, round(seconds / 60))
    said = (
        f"{photos:,} photos with {captions:,} captions to learn from, {len(dev):,} to choose by. {begins}, and "
        f"learns for {epochs} passes{then}: about {about} minute{'s' * (about > 1)} on two cores."
    )
    return Plan(recipe, seconds / 60, said)
