"""``showtell push``: a model on the Hugging Face Hub, where `--model hub:org/name` finds it."""

import re
import sys
from typing import Annotated

import typer

from showtell import model_hub as hub
from showtell.bundle import CARD, FILES, BundleConfig, load_bundle
from showtell.cli.progress import tell
from showtell.errors import UsageError
from showtell.files import read_text

app = typer.Typer()


@app.command(epilog="Needs the \\[hub] extra and a token with write access: hf auth login, or HF_TOKEN.")
def push(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder, or folder of a training run.")],
    repository: Annotated[
        str, typer.Argument(metavar="hub:ORG/NAME", help="The repository; created if it does not exist.")
    ],
    license: Annotated[
        str | None,
        typer.Option("--license", metavar="ID", help="The model's licence: apache-2.0, cc-by-4.0, ..."),
    ] = None,
    datasets: Annotated[
        list[str] | None,
        typer.Option("--dataset", metavar="NAME", help="A data set that it was trained on; may be repeated."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    message: Annotated[str, typer.Option("--message", metavar="TEXT", help="The commit message.")] = "Model",
) -> None:
    """Put a model folder on the Hugging Face Hub, with its card."""
    bundle = load_bundle(model)
    if bundle.converted is not None:
        raise UsageError(
            f"{model} is a transformers model, and showtell pushes only its own models.",
            "Push it with 'hf upload ORG/NAME DIR', or an export of it: showtell export MODEL --out DIR.",
        )
    card_file = bundle.path / CARD
    card = read_text(card_file) if card_file.exists() else f"# {bundle.config.name}\n"
    said = {name: value for name, value in (("license", license), ("datasets", datasets)) if value}
    card = hub.card_with_facts(card.replace("PATH_OF_THIS_FOLDER", repository), facts_of(bundle.config), said)
    if not sys.stderr.isatty():
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    pushed = hub.push_model(bundle.path, repository, FILES, card, private=private, message=message)
    if "\nlicense:" not in card:
        tell("the model has no license, so nobody else may use it. Add --license.")
    print(f"Pushed. To caption with it: showtell caption photo.jpg --model {pushed}")


def facts_of(config: BundleConfig) -> dict[str, object]:
    """The facts by which the Hub lists models, as far as the model's config has them."""
    facts: dict[str, object] = {
        "library_name": "showtell",
        "pipeline_tag": "image-to-text",
        "tags": ["image-captioning", "showtell"],
    }
    metrics = dict.fromkeys(
        re.split("[-_]", name)[0].lower() for name in config.scores
    )  # BLEU-1 to BLEU-4 are one: bleu
    return facts | ({"metrics": list(metrics)} if metrics else {})
