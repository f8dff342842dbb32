"""The shipped model, from a training run to the package's data: `showtell caption photo.jpg` captions with it.

    python -m shipping.ship RUN --data flickr8k:DIR

Exports the run's best model with rounded weights, captions the dev photos with what was written, and puts those scores
and the model card (flickr8k.md, filled in) beside it. Nothing is kept that is too large for a package.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer

from examples.demo import packaged_photos
from showtell import load
from showtell.bundle import (
    DECODER_START,
    DECODER_STEP,
    DEFAULT,
    ENCODER,
    ONNX_WEIGHTS,
    SHIPPED,
    TRAINABLE,
    load_bundle,
    save_bundle,
)
from showtell.cli import main as command_line
from showtell.cli.commands.export import COMPARED, calibration_photos, prepared
from showtell.data import load as load_data
from showtell.errors import UsageError
from showtell.export.graphs import export
from showtell.export.weights import Weights

CARD = Path(__file__).with_name("flickr8k.md")
GRAPHS = (ENCODER, DECODER_START, DECODER_STEP)
MAX_PARAMETERS = 16_000_000
MAX_BYTES = 40_000_000


def ship(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of the training run, or its model.")],
    data: Annotated[str, typer.Option("--data", "-d", metavar="SPEC", help="What it was trained on: flickr8k:DIR.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the model goes.")] = SHIPPED / DEFAULT,
    weights: Annotated[Weights, typer.Option("--weights", help="How weights are stored.")] = "float16",
    int8: Annotated[bool, typer.Option("--int8", help="Compute in int8, measured on train photos.")] = False,
    beam: Annotated[int | None, typer.Option("--beam", help="The default search; the run's by default.")] = None,
) -> None:
    """Make a trained model the shipped one."""
    trained = load_bundle(run)
    search = trained.config.search if beam is None else replace(trained.config.search, beam=beam)
    config = trained.config.model_copy(update={"name": DEFAULT, "scores": {}, "search": search})
    named = replace(trained, config=config)
    dataset = load_data(data)
    preprocessing = named.config.preprocessing
    calibration = calibration_photos(dataset, None, preprocessing) if int8 else None
    with TemporaryDirectory() as folder:
        model = Path(folder) / DEFAULT
        differences = export(
            named, model, prepared(dataset.split("dev")[:COMPARED], preprocessing), weights, calibration
        )
        facts = {
            "parameters": parameters(model),
            "bytes": sum(path.stat().st_size for path in model.iterdir()),
        }
        refuse_too_large(**facts)
        results = dev_results(model, data)
        card = Template(CARD.read_text(encoding="utf-8")).substitute(
            scores="\n".join(f"| {metric} | {100 * value:.1f} |" for metric, value in results["scores"].items()),
            photos=photo_rows(model),
            images=f"{results['images']:,}",
            search=f"beam {named.config.search.beam}",
            encoder=named.config.encoder["name"],
            decoder=named.config.decoder["name"],
            recipe=recipe_of(named.config.training),
            train_images=f"{named.config.training.get('images', 0):,}",
            pixels=named.config.preprocessing.size,
            words=f"{len(named.tokenizer):,}",
            parameters=f"{facts['parameters'] / 1e6:.1f}",
            megabytes=f"{facts['bytes'] / 1e6:.0f}",
            weights=weights,
            computing="float32" if differences.int8 is None else "int8",
            rounding=f"{differences.rounding:.2g}",
        )
        files = {
            name: (model / name).read_bytes() for name in (*GRAPHS, ONNX_WEIGHTS, TRAINABLE) if (model / name).is_file()
        }
        save_bundle(out, config.model_copy(update={"scores": results["scores"]}), named.tokenizer, {}, card, files)
    print(f"{out}: {facts['parameters']:,} parameters, {facts['bytes'] / 1e6:.1f} MB")


def recipe_of(training: Mapping[str, Any]) -> str:
    """The recipe that a model was trained by, or those of the models that it is the mean of."""
    if "mean_of" in training:
        return f"the mean of {', '.join(training['mean_of'])}"
    return str(training.get("recipe", "unknown"))


def parameters(model: Path) -> int:
    """How many numbers an exported model has learnt; those that its graphs share count once."""
    from onnx import load as load_graph

    sizes: dict[Any, int] = {}
    for name in GRAPHS:
        for tensor in load_graph(model / name, load_external_data=False).graph.initializer:
            place = next((entry.value for entry in tensor.external_data if entry.key == "offset"), (name, tensor.name))
            sizes[place] = int(np.prod(tensor.dims))
    return sum(sizes.values())


def refuse_too_large(parameters: int, bytes: int) -> None:
    """Keep the package one that anybody installs.

    Raises:
        UsageError: the model has more parameters or bytes than a shipped model may.
    """
    if parameters > MAX_PARAMETERS:
        raise UsageError(f"The model has {parameters:,} parameters; a shipped one has up to {MAX_PARAMETERS:,}.")
    if bytes > MAX_BYTES:
        raise UsageError(
            f"The model takes {bytes / 1e6:.1f} MB; a shipped one takes up to {MAX_BYTES / 1e6:.0f}.",
            "Say --weights float16 or --weights int8.",
        )


def dev_results(model: Path, data: str) -> dict[str, Any]:
    """What `showtell evaluate` writes of the model's captions of the dev photos."""
    output = model.with_name("results.json")
    code = command_line(["evaluate", "--model", str(model), "--data", data, "--split", "dev", "-o", str(output)])
    if code:
        raise typer.Exit(code)
    results: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return results


def photo_rows(model: Path) -> str:
    """A row of the card for each of the packaged photos; a test holds the installed model to them."""
    captioner = load(model)
    captions = {photo.stem: captioner(photo)[0] for photo in packaged_photos()}
    return "\n".join(f"| `{name}` | {caption.text} | {caption.log_prob:.2f} |" for name, caption in captions.items())


if __name__ == "__main__":
    typer.run(ship)
