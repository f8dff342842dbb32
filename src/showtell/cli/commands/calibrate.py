"""``showtell calibrate``: teach a model to tell how sure it is, on photos with captions that training has not seen."""

from typing import Annotated

import numpy as np
import typer

from showtell.bundle import load_bundle, save_config
from showtell.captioner import load
from showtell.cli import options as shared
from showtell.cli.captioning import caption_examples, from_files
from showtell.cli.progress import tell
from showtell.cli.scores import calibration_lines
from showtell.confidence import FEWEST, RIGHT, rarity_of
from showtell.data import joined
from showtell.data import load as load_data
from showtell.errors import DataError, UsageError
from showtell.metrics.calibration import calibration
from showtell.metrics.report import score
from showtell.metrics.table import RANKED_BY

app = typer.Typer()


@app.command(epilog="Training does this at its end. After showtell average you must do it yourself.")
def calibrate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder, or folder of a training run.")],
    data: Annotated[
        list[str],
        typer.Option("--data", "-d", metavar="SPEC", help="A data set, for example flickr8k:DIR; may be repeated."),
    ],
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="train, dev or test.")] = "dev",
    batch_size: shared.BatchSize = 16,
    engine: shared.Engine = "auto",
) -> None:
    """Fit the confidence of a model's captions to people's captions, and store it in the model's folder."""
    bundle = load_bundle(model)
    if bundle.converted is not None:
        raise UsageError(
            f"{model} is a transformers model, whose config.json has no place for a confidence.",
            "Calibrate an export of it: showtell export MODEL --out DIR.",
        )
    captioner = load(model, engine=engine)
    dataset = joined([load_data(spec) for spec in data])
    examples = dataset.split(split)
    captions, bad = caption_examples(examples, from_files(captioner, examples, batch_size, {"num": 1}))
    reports = []
    for name in dict.fromkeys(example.dataset for example in examples):  # CIDEr weighs words within a data set
        references = {e.image_id: e.captions for e in examples if e.dataset == name and e.image_id in captions}
        if references:
            said = {image_id: captions[image_id].text for image_id in references}
            reports.append(score(said, references, metrics=[RANKED_BY]))
    ids, ciders = [each.image_ids for each in reports], [each.per_image[RANKED_BY] for each in reports]
    learnt = [example for example in dataset.examples if example.split == "train"] or examples
    encoded = [bundle.tokenizer.encode_batch(example.captions) for example in learnt]
    rarity = rarity_of(encoded, len(bundle.tokenizer))
    found = captioner.confidence_from(captions, ids, ciders, rarity) if reports else None
    if found is None:
        raise DataError(
            f"{len(captions):,} captioned photos do not tell when a caption is right.",
            f"Give {FEWEST} or more, of which the model captions some well and some badly.",
        )
    save_config(bundle, bundle.config.model_copy(update={"confidence": found}))
    print(f"{bundle.path}: fitted to {len(captions):,} captions.")
    for of_dataset, scores in zip(ids, ciders, strict=True):
        features = np.stack([captioner.features(captions[image_id], rarity) for image_id in of_dataset])
        print(calibration_lines(calibration(found.of(features), scores, RIGHT)))
    if bad:
        tell(f"{bad:,} photos could not be read.")
        raise typer.Exit(1)
