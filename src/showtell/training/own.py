"""A recipe for a user's own captions: suited to the number of photos, starting from a trained model.

Tried with 20, 80 and 320 photos of daily life, starting from a model trained on Flickr8k: docs/your-own.md.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from showtell.bundle import Bundle, load_bundle
from showtell.data.dataset import Dataset
from showtell.languages import words_of
from showtell.tokenizer import TokenizerConfig
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
LONGEST, MOST_WORDS = 0.99, 50  # captions may be as long as 99 % of the training captions; the server's limit
STEPS, FEWEST_PASSES = 60, 10  # at least so many steps, and at least so many passes
NEW_WORDS = 5  # factor on the learning rate of word rows: new words occur in few captions
FEWEST_FOR_ENCODER = 3_000  # photos: 850 gained nothing, 7,500 gained seven points
RANK, LAST_LAYERS = 16, 4  # what learns in a captioner of transformers: adapters of this rank, or this many layers
POSITIONS = 150  # about how many positions such a decoder computes per photo: words of five captions, and cells
PRODUCTS = 4e10  # multiplications a second on two cores


class Seconds(NamedTuple):
    """Seconds per photo on two cores."""

    encoded: float
    stepped: float
    """On cached features."""
    live: float
    """With a step of the encoder, too."""
    validated: float


USUAL = Seconds(encoded=0.02, stepped=0.05, live=0.1, validated=0.02)


@dataclass(frozen=True)
class Plan:
    """What training will do."""

    recipe: Recipe
    minutes: float
    """Roughly how long it takes on two cores."""
    said: str
    """The plan in words, for people."""


def plan_for(dataset: Dataset, start: str | None, name: str, minutes: float | None = None) -> Plan:
    """The plan for a data set.

    Args:
        dataset: with a train and a dev split.
        start: the model to start from; None trains from scratch.
        name: of the new model.
        minutes: roughly how long it may take.

    Raises:
        BundleError: there is no such model.
        DataError: the data set lacks a split.
    """
    train, dev = dataset.split("train"), dataset.split("dev")
    bundle = None if start is None else load_bundle(start)
    captions = [caption for example in train for caption in example.captions]
    photos, lengths = len(train), sorted(lengths_of(captions, bundle))
    longest = min(lengths[int(LONGEST * (len(lengths) - 1))], MOST_WORDS)
    batch = min(20, max(4, photos // 4))
    steps = math.ceil(photos / batch)
    epochs = max(FEWEST_PASSES, math.ceil(STEPS / steps))
    epochs = epochs if start else max(2 * FEWEST_PASSES, math.ceil(10 * STEPS / steps))
    seconds_of = seconds_with(bundle)
    once = (photos * 2 + len(dev)) * seconds_of.encoded
    each = photos * seconds_of.stepped + len(dev) * seconds_of.validated
    if minutes is not None:
        epochs = max(1, min(epochs, int((60 * minutes - once) / each)))
    seconds = once + epochs * each
    model, most = FROM_SCRATCH, math.inf
    if bundle is not None:
        config = bundle.config
        model = {
            "encoder": config.encoder,
            "decoder": config.decoder,
            "search": asdict(config.search),
            "start_from": start,
        }
        most = config.decoder.get("max_positions", math.inf) - 1  # <start> takes a position, too
    stage: dict[str, Any] = {
        "kind": "cross_entropy",
        "epochs": epochs,
        "batch_images": batch,
        **learning(bundle),
        "weight_decay": 0.05,
        "augmentation": {"flip": 0.5},
    }
    stages = [stage]
    live = photos * seconds_of.live + len(dev) * (seconds_of.encoded + seconds_of.validated)
    enough = photos >= FEWEST_FOR_ENCODER and not is_from_elsewhere(bundle)
    if enough and (minutes is None or seconds + live <= 60 * minutes):
        passes = 4 if minutes is None else max(1, min(4, int((60 * minutes - seconds) / live)))
        changes = {"flip": 0.5, "crop": 0.6, "colour": 0.2}
        stages.append(
            {**stage, "epochs": passes, "encoder_stages": 9, "encoder_learning_rate": 1e-4, "augmentation": changes}
        )
        seconds += passes * live
    search = {**model["search"], "max_words": min(most, max(model["search"]["max_words"], longest))}
    settings = {"name": name, **model, "search": search, "stages": stages, "start_counts": start is not None}
    recipe = parse_recipe({**settings, "max_words": min(most, max(40, longest))}, f"The plan for {name}")
    begins = f"It starts from {Path(start).name}" if start else "It starts from scratch"
    then = ", then the encoder too" if len(stages) > 1 else ""
    how = " with LoRA" if "lora" in stage else " in its last layers" if "decoder_layers" in stage else ""
    about = max(1, round(seconds / 60))
    said = (
        f"{photos:,} photos with {len(captions):,} captions to train on, {len(dev):,} for validation. {begins}, and "
        f"learns for {epochs} passes{how}{then}: about {about} minute{'s' * (about > 1)} on two cores."
    )
    return Plan(recipe, seconds / 60, said)


def is_from_elsewhere(bundle: Bundle | None) -> bool:
    """Whether it is a captioner of transformers, or was one before fine-tuning."""
    return bundle is not None and bundle.config.decoder.get("name") == "pretrained"


def lengths_of(captions: Sequence[str], bundle: Bundle | None) -> list[int]:
    """The number of words in each caption, or of the start's pieces."""
    if bundle is None:
        return [len(words_of(caption)) for caption in captions]
    tokenizer = bundle.tokenizer.grown(captions, TokenizerConfig())
    return [len(ids) - 2 for ids in tokenizer.encode_batch(captions)]


def learning(bundle: Bundle | None) -> dict[str, Any]:
    """What learns, and how fast, as keys of a stage."""
    if bundle is None:
        return {"learning_rate": 1.5e-3}
    if not is_from_elsewhere(bundle):
        return {"learning_rate": 5e-4, "words_learning_rate": NEW_WORDS * 5e-4}
    if find_spec("peft") is not None:
        return {"learning_rate": 1e-4, "lora": RANK}
    return {"learning_rate": 3e-5, "decoder_layers": min(LAST_LAYERS, bundle.config.decoder["layers"])}


def seconds_with(bundle: Bundle | None) -> Seconds:
    """Seconds per photo: the usual ones, or, for large models, by the number of weights."""
    if bundle is None or not is_from_elsewhere(bundle):
        return USUAL
    sizes = {"encoder": 0, "decoder": 0}
    for name, weight in bundle.weights().items():
        sizes[name.partition(".")[0]] += weight.size
    encoded = sizes["encoder"] * math.prod(bundle.config.grid) / PRODUCTS
    forward = sizes["decoder"] * POSITIONS / PRODUCTS
    return Seconds(encoded, 2 * forward, 3 * encoded + 2 * forward, 2 * forward)
