"""A shipped model, from a training run to the package's data: `showtell caption photo.jpg` captions with it.

    python -m shipping.ship RUN --name flickr8k --data flickr8k:DIR
    python -m shipping.ship RUN --name everyday --data table:everyday/photos.jsonl,caption=captions --data flickr8k:DIR

Exports the run's best model with rounded weights, fits its confidence to the dev photos of all data sets, captions
them with what was written, and puts the scores and the model card (NAME.md, filled in) beside it. Nothing is kept that
is too large for a package.
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
from showtell.captioner import EngineName
from showtell.cli import main as command_line
from showtell.cli.commands.export import COMPARED, calibration_photos, prepared
from showtell.confidence import FEWEST
from showtell.data import load as load_data
from showtell.errors import UsageError
from showtell.export.graphs import export
from showtell.export.weights import Weights

CARDS = Path(__file__).parent
ABOUT = {
    "flickr8k": (
        "It knows people, dogs and what they do outdoors; for other things it says what comes closest, often wrongly.",
        "Learnt from Flickr8k (for non-commercial research and education) and from ImageNet weights (Apache-2.0).",
    ),
    "everyday": (
        "It knows people, animals, meals, rooms, streets and vehicles; the rarer a thing, the more it guesses.",
        "Learnt from COCO captions (CC BY 4.0), from Flickr8k (for non-commercial research and education) and from "
        "ImageNet weights (Apache-2.0).",
    ),
}
"""Of each shipped model: what it is good at, and the licences of data and weights."""
GRAPHS = (ENCODER, DECODER_START, DECODER_STEP)
ENGINE: EngineName = "onnx"  # whose figures are the card's: the others round more
MAX_PARAMETERS = 16_000_000
MAX_BYTES = 20_000_000


def ship(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of the training run, or its model.")],
    data: Annotated[
        list[str], typer.Option("--data", "-d", metavar="SPEC", help="What it was trained on; the first one leads.")
    ],
    name: Annotated[str, typer.Option("--name", help="What it is called.")] = DEFAULT,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where the model goes.")] = None,
    weights: Annotated[Weights, typer.Option("--weights", help="How weights are stored.")] = "float16",
    int8: Annotated[bool, typer.Option("--int8", help="Compute in int8, measured on train photos.")] = False,
    beam: Annotated[int | None, typer.Option("--beam", help="The default search; the run's by default.")] = None,
) -> None:
    """Make a trained model a shipped one."""
    trained = load_bundle(run)
    search = trained.config.search if beam is None else replace(trained.config.search, beam=beam)
    about, licence = ABOUT[name]
    changes: dict[str, Any] = {
        "name": name,
        "about": about,
        "licence": licence,
        "scores": {},
        "confidence": None,
        "search": search,
    }
    named = replace(trained, config=trained.config.model_copy(update=changes))
    dataset = load_data(data[0])
    preprocessing = named.config.preprocessing
    calibration = calibration_photos(dataset, None, preprocessing) if int8 else None
    with TemporaryDirectory() as folder:
        model = Path(folder) / name
        differences = export(
            named, model, prepared(dataset.split("dev")[:COMPARED], preprocessing), weights, calibration
        )
        facts = {
            "parameters": parameters(model),
            "bytes": sum(path.stat().st_size for path in model.iterdir()),
        }
        refuse_too_large(**facts)
        calibrate(model, data)
        results = [dev_results(model, spec) for spec in data]
        card = Template((CARDS / f"{name}.md").read_text(encoding="utf-8")).substitute(
            scores=score_rows(results),
            photos=photo_rows(model),
            images=f"{results[0]['images']:,}",
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
        kept = (*GRAPHS, ONNX_WEIGHTS, TRAINABLE)
        files = {file: (model / file).read_bytes() for file in kept if (model / file).is_file()}
        config = load_bundle(model).config.model_copy(update={"scores": results[0]["scores"]})
        save_bundle(out or SHIPPED / name, config, named.tokenizer, {}, card, files)
    print(f"{name}: {facts['parameters']:,} parameters, {facts['bytes'] / 1e6:.1f} MB")


def recipe_of(training: Mapping[str, Any]) -> str:
    """The recipe that a model was trained by, or those of the models that it is the mean of."""
    if "mean_of" in training:
        return f"the mean of {', '.join(training['mean_of'])}"
    return str(training.get("recipe", "unknown"))


def calibrate(model: Path, data: list[str]) -> None:
    """Fit the confidence of the exported model, where there are photos enough."""
    if sum(len(load_data(spec).split("dev")) for spec in data) >= FEWEST:
        code = command_line(
            ["calibrate", str(model), "--engine", ENGINE, *(part for spec in data for part in ("--data", spec))]
        )
        if code:
            raise typer.Exit(code)


def score_rows(results: list[dict[str, Any]]) -> str:
    """A row for each score, invented object and figure of the confidence, with a column for each data set."""
    rows: dict[str, list[str]] = {}
    for of_data in results:
        for metric, value in of_data["scores"].items():
            rows.setdefault(metric, []).append(f"{100 * value:.1f}")
        for kind in ("person", "dog"):
            share = of_data["invented"][kind]
            rows.setdefault(f"{kind} invented, where none is", []).append("–" if share is None else f"{share:.1%}")
        if sure := of_data["confidence"]:
            rows.setdefault("confidence: rank correlation with CIDEr", []).append(f"{sure['correlation']:.2f}")
            rows.setdefault("confidence: expected calibration error", []).append(f"{sure['error']:.3f}")
            rows.setdefault("confidence: CIDEr of the surer half", []).append(f"{sure['surer_half']:.2f} x")
    return "\n".join(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())


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
            "Use --weights float16 or --weights int8.",
        )


def dev_results(model: Path, data: str) -> dict[str, Any]:
    """What `showtell evaluate` writes of the model's captions of the dev photos."""
    output = model.with_name("results.json")
    given = ["--model", str(model), "--data", data, "--split", "dev", "--engine", ENGINE, "-o", str(output)]
    code = command_line(["evaluate", *given])
    if code:
        raise typer.Exit(code)
    results: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return results


def photo_rows(model: Path) -> str:
    """A row of the card for each of the packaged photos; a test holds the installed model to them."""
    captioner = load(model, engine=ENGINE)
    captions = {photo.stem: captioner(photo)[0] for photo in packaged_photos()}
    return "\n".join(f"| `{name}` | {caption.text} | {caption.log_prob:.2f} |" for name, caption in captions.items())


if __name__ == "__main__":
    typer.run(ship)
