"""``showtell models``: the models that come with showtell, what a model folder holds, and how good a model is."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from showtell.bundle import Bundle, default_model, load_bundle, shipped_models

app = typer.Typer()


@app.command()
def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Model folders, training runs, or names of models that come with showtell; by default the latter.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole config, a JSON line for each model.")] = False,
) -> None:
    """Show what a model is: encoder, decoder, words, search options, scores; or the models that come with showtell."""
    if not names:
        default_model()  # raises if there is none
        names = [str(folder) for folder in shipped_models().values()]
    for name in names:
        bundle = load_bundle(name)
        if as_json:
            print(json.dumps(bundle.config.model_dump(mode="json"), ensure_ascii=False))
        else:
            print("\n".join(description(bundle)))


def description(bundle: Bundle) -> list[str]:
    config = bundle.config
    rows, columns = config.grid
    search = config.search
    how = "samples" if search.sample else f"beam {search.beam}"
    lines = [
        f"{config.name}  ({bundle.path})",
        *([f"  about     {config.about}"] if config.about else []),
        *([f"  licence   {config.licence}"] if config.licence else []),
        f"  encoder   {settings(config.encoder)}",
        f"  decoder   {settings(config.decoder)}",
        f"  image     {config.preprocessing.size} x {config.preprocessing.size} pixels, {rows} x {columns} cells",
        f"  words     {len(bundle.tokenizer):,}",
        f"  search    {how}, length penalty {search.length_penalty:g}, up to {search.max_words} words",
        f"  files     {file_sizes(bundle.path)}",
    ]
    if config.scores:
        scores = ", ".join(f"{name} {100 * value:.1f}" for name, value in config.scores.items())
        lines.append(f"  scores    {scores}")
    if config.training:
        lines.append(f"  training  {settings(config.training)}")
    return lines


def settings(values: dict[str, Any]) -> str:
    """A config on one line, without keys that are not set and without whole configs in it: --json has them."""
    return ", ".join(f"{key} {value}" for key, value in values.items() if value and not isinstance(value, dict))


def file_sizes(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return ", ".join(f"{path.name} {path.stat().st_size / 1e6:.2f} MB" for path in files)
