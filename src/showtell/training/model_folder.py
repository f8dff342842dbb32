"""The run's `model` folder, which holds the best model so far: weights, config, and a card for people."""

from collections import Counter

from showtell.bundle import BundleConfig, save_bundle
from showtell.metrics.table import metric_of
from showtell.models.captioning_model import CaptioningModel
from showtell.training.inputs.features import fingerprint
from showtell.training.run import Run
from showtell.training.validation import Validation


def save_model(run: Run, model: CaptioningModel, validation: Validation) -> None:
    """Write the bundle of the best model so far."""
    weights = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    config = bundle_config(run, model, validation.scores)
    config = config.model_copy(update={"confidence": validation.confidence})
    card = model_card(config, run, validation)
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
            "images": images_of(run),
            "feature_fingerprint": fingerprint(encoder),
        },
    )


def images_of(run: Run) -> int:
    """The number of training images; one that a pass shows several times counts once."""
    return len({example.image_id for example in run.train_examples})


def model_card(config: BundleConfig, run: Run, validation: Validation) -> str:
    """Markdown for people, with the scores on each data set's dev images."""
    recipe, images = run.recipe, Counter(example.dataset for example in validation.examples)
    columns = [f"{name or 'score'}" for name in validation.reports]
    rows = "\n".join(
        f"| {name} | {' | '.join(metric_of(name).printed(r.scores[name]) for r in validation.reports.values())} |"
        for name in config.scores
    )
    dev_images = " and ".join(f"{count:,} dev images{f' of {name}' if name else ''}" for name, count in images.items())
    return f"""# {config.name}

An image-captioning model trained with showtell: encoder `{recipe.encoder.name}`, decoder `{recipe.decoder.name}`.

    showtell caption photo.jpg --model PATH_OF_THIS_FOLDER

## Scores

Generated captions of the {dev_images} (beam {recipe.search.beam}), x 100; CIDEr is CIDEr-D.

| metric | {" | ".join(columns)} |
|---|{"---|" * len(columns)}
{rows}

## Training data

{images_of(run):,} captioned images. The model says what these captions say, errors and prejudices included; it knows no
names, reads no text, and should not decide anything about people.
"""
