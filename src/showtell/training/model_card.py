"""The model card that is written beside a trained model: what it is, how good, and what it was trained on."""

from showtell.bundle import BundleConfig
from showtell.metrics.table import metric_of
from showtell.training.recipe import Recipe


def model_card(config: BundleConfig, recipe: Recipe, train_images: int, dev_images: int) -> str:
    """Markdown for people; the figures are the bundle's own."""
    rows = "\n".join(f"| {name} | {metric_of(name).in_papers(value)} |" for name, value in config.scores.items())
    return f"""# {config.name}

An image-captioning model trained with showtell: encoder `{recipe.encoder.name}`, decoder `{recipe.decoder.name}`.

    showtell caption photo.jpg --model PATH_OF_THIS_FOLDER

## Scores

Generated captions of the {dev_images:,} dev images (beam {recipe.search.beam}), x 100; CIDEr is CIDEr-D.

| metric | score |
|---|---|
{rows}

## Training data

{train_images:,} captioned images. The model says what these captions say, errors and prejudices included; it knows no
names, reads no text, and should not decide anything about people.
"""
