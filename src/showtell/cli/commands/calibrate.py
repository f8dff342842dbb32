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
from showtell.confidence import FEWEST, RIGHT, Confidence
from showtell.data import joined
from showtell.data import load as load_data
from showtell.errors import DataError
from showtell.metrics.calibration import calibration
from showtell.metrics.report import score
from showtell.metrics.table import RANKED_BY

app = typer.Typer()


@app.command(epilog="Training does this by itself; a mean of models (showtell average) needs it.")
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
    captioner = load(model, engine=engine)
    dataset = joined([load_data(spec) for spec in data])
    examples = dataset.split(split)
    captions, bad = caption_examples(examples, from_files(captioner, examples, batch_size, {"num": 1}))
    features, ciders = [], []
    for name in dict.fromkeys(example.dataset for example in examples):  # CIDEr weighs words within a data set
        references = {e.image_id: e.captions for e in examples if e.dataset == name and e.image_id in captions}
        report = score({i: captions[i].text for i in references}, references, metrics=[RANKED_BY])
        features += [captioner.features(captions[image_id]) for image_id in report.image_ids]
        ciders += report.per_image[RANKED_BY].tolist()
    found = Confidence.fit(np.stack(features), np.array(ciders)) if features else None
    if found is None:
        raise DataError(
            f"{len(ciders):,} captioned photos do not tell when a caption is right.",
            f"Give {FEWEST} or more, of which the model captions some well and some badly.",
        )
    save_config(bundle, bundle.config.model_copy(update={"confidence": found}))
    print(f"{bundle.path}: fitted on {len(ciders):,} captions.")
    print(calibration_lines(calibration(found.of(np.stack(features)), np.array(ciders), RIGHT)))
    if bad:
        tell(f"{bad:,} photos could not be read.")
        raise typer.Exit(1)
