"""The run's `model` folder, which holds the best model so far: weights, config, and a card for people."""

from showtell.bundle import BundleConfig, save_bundle
from showtell.metrics.report import Report
from showtell.metrics.table import metric_of
from showtell.models.captioning_model import CaptioningModel
from showtell.training.inputs.features import fingerprint
from showtell.training.recipe import Recipe
from showtell.training.run import Run


def save_model(run: Run, model: CaptioningModel, report: Report) -> None:
    """Write the bundle of the best model so far."""
    weights = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    config = bundle_config(run, model, report.scores)
    card = model_card(config, run.recipe, len(run.train_examples), len(run.dev_examples))
    save_bundle(run.folder / "model", config, run.tokenizer, weights, card)


def bundle_config(run: Run, model: CaptioningModel, scores: dict[str, float]) -> BundleConfig:
    encoder = model.encoder
    return BundleConfig(
        name=run.recipe.name,
        preprocessing=encoder.preprocessing,
        encoder=encoder.config.model_dump(mode="json"),
        decoder=run.recipe.decoder.model_dump(mode="json"),
        search=run.recipe.search,
        grid=encoder.grid,
        scores=scores,
        training={
            "recipe": run.recipe.name,
            "epochs": len(run.state.log),
            "images": len(run.train_examples),
            "feature_fingerprint": fingerprint(encoder),
        },
    )


def model_card(config: BundleConfig, recipe: Recipe, train_images: int, dev_images: int) -> str:
    """Markdown for people; the figures are the bundle's own."""
    rows = "\n".join(f"| {name} | {metric_of(name).printed(value)} |" for name, value in config.scores.items())
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
