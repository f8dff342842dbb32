"""The options that commands share: which photos, which model, and how to search."""

import inspect
from collections.abc import Callable, Collection
from functools import wraps
from typing import Annotated, Any

import typer

from showtell.captioner import EngineName
from showtell.confidence import GUESS
from showtell.search.options import Option, declared

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        help="Files, folders (with everything below them), globs ('photos/**/*.jpg'), http(s) URLs, "
        "tar shards, Parquet tables, or - for one image from stdin.",
        show_default=False,
    ),
]
Listed = Annotated[
    str | None,
    typer.Option("--list", metavar="FILE", help="A file that names an input on each line; - is stdin."),
]
Column = Annotated[
    str | None,
    typer.Option("--column", metavar="NAME", help="The column of a Parquet table that holds the images."),
]
Model = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Folder of a model or training run, a shipped model's name, hub:ORG/NAME\\[@REVISION], or "
        "hf:ORG/NAME for a captioner of transformers; "
        "repeat it for several models that caption as one.",
    ),
]
MinConfidence = Annotated[
    float | None,
    typer.Option(
        "--min-confidence",
        min=0,
        max=1,
        metavar="X",
        help=f"Leave out captions with lower confidence. By default {GUESS} when texts are put into files, else 0.",
    ),
]
BatchSize = Annotated[
    int,
    typer.Option("--batch-size", min=1, metavar="N", help="Images captioned together; changes speed only."),
]
Engine = Annotated[
    EngineName,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        help="What runs an exported model: onnx, openvino, openvino-float32, torch; auto: openvino where it is "
        "installed and the processor has bfloat16.",
    ),
]


def takes_search_options(*, but: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, whose last parameter is `**search`, a flag for each search option except those in `but`.

    Typer reads a command's flags from its signature, where they replace `**search`. The command does not get options
    that the command line leaves out: there, the model's own hold.
    """
    flags = [_flag(name, kind, option) for name, kind, option in declared() if name not in but]
    names = {flag.name for flag in flags}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        *own, _ = signature.parameters.values()

        @wraps(command)
        def with_what_is_said(**values: Any) -> None:
            command(**{name: value for name, value in values.items() if name not in names or value not in (None, [])})

        with_what_is_said.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
        return with_what_is_said

    return decorate


def _flag(name: str, kind: type, option: Option) -> inspect.Parameter:
    """A search option as typer reads it from a signature."""
    repeated = kind is str and not option.text
    own = name.replace("_", "-")
    flag = typer.Option(
        None,
        # A model may have a switch on by default.
        *(option.flags or (f"--{own}/--no-{own}" if kind is bool else f"--{own}",)),
        metavar=option.metavar,
        help=f"{option.help} Repeat the flag for more." if repeated else option.help,
        rich_help_panel="Sampling" if option.mode == "sample" else "Search",
    )
    annotation = list[str] if repeated else kind
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=flag, annotation=annotation)
