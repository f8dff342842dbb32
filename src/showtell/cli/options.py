"""The options that `caption` and `evaluate` share: which model, and how to search."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, TypedDict, get_type_hints

import typer

from showtell.captioner import EngineName

SEARCH, SAMPLING = "Search", "Sampling"

Model = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Folder of a model or training run, a shipped model's name, or hub:ORG/NAME[@REVISION]; "
        "repeated, models that caption as one.",
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
        help="What runs an exported model: onnx, openvino, openvino-float32; auto: openvino where it is installed "
        "and the processor has bfloat16.",
    ),
]


class SearchFlags(TypedDict, total=False):
    """What a command line says of the search, by the names of `SearchOptions`; the model's own options hold else."""

    beam: Annotated[
        int,
        typer.Option("--beam", metavar="K", help="Captions followed at a time; 1 is greedy.", rich_help_panel=SEARCH),
    ]
    groups: Annotated[
        int,
        typer.Option(
            "--groups", metavar="G", help="Groups of the beam that say different things.", rich_help_panel=SEARCH
        ),
    ]
    diversity: Annotated[
        float,
        typer.Option(
            "--diversity",
            metavar="D",
            help="How much groups avoid each other's words: 0.2 to 0.8.",
            rich_help_panel=SEARCH,
        ),
    ]
    length_penalty: Annotated[
        float,
        typer.Option(
            "--length-penalty", metavar="P", help="0 favours short captions, 1 long ones.", rich_help_panel=SEARCH
        ),
    ]
    min_words: Annotated[
        int, typer.Option("--min-words", metavar="N", help="No caption is shorter.", rich_help_panel=SEARCH)
    ]
    max_words: Annotated[
        int, typer.Option("--max-words", metavar="N", help="Longer captions are cut.", rich_help_panel=SEARCH)
    ]
    no_repeat_ngram: Annotated[
        int,
        typer.Option(
            "--no-repeat-ngram", metavar="N", help="No N words come twice in a caption.", rich_help_panel=SEARCH
        ),
    ]
    banned_words: Annotated[
        list[str],
        typer.Option("--ban", metavar="WORD", help="Never say WORD; may be repeated.", rich_help_panel=SEARCH),
    ]
    require: Annotated[
        list[str],
        typer.Option("--require", metavar="WORD", help="Always say WORD; may be repeated.", rich_help_panel=SEARCH),
    ]
    sample: Annotated[
        bool, typer.Option("--sample", help="Draw words at random instead of searching.", rich_help_panel=SAMPLING)
    ]
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature", metavar="T", help="Below 1: safer words; above: bolder.", rich_help_panel=SAMPLING
        ),
    ]
    top_k: Annotated[
        int, typer.Option("--top-k", metavar="K", help="Draw from the K likeliest words.", rich_help_panel=SAMPLING)
    ]
    top_p: Annotated[
        float,
        typer.Option(
            "--top-p", metavar="P", help="Draw from the likeliest words up to P in sum.", rich_help_panel=SAMPLING
        ),
    ]
    seed: Annotated[
        int,
        typer.Option("--seed", metavar="N", help="The same seed draws the same captions.", rich_help_panel=SAMPLING),
    ]


class CaptionFlags(SearchFlags, total=False):
    """As `SearchFlags`, with what only makes sense where captions are not scored."""

    num: Annotated[
        int,
        typer.Option("--num", "-n", metavar="N", help="Captions for each image, best first.", rich_help_panel=SEARCH),
    ]
    prefix: Annotated[
        str,
        typer.Option("--prefix", metavar="TEXT", help="Words that each caption begins with.", rich_help_panel=SEARCH),
    ]


def takes(flags: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, whose last parameter is `**search: Unpack[flags]`, an option for each field of `flags`.

    Typer reads a command's options from its signature: that gets the fields in place of `**search`. What the
    command line leaves out does not reach the command.
    """
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for name, hint in get_type_hints(flags, include_extras=True).items()
    ]
    names = {option.name for option in options}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        *own, _ = signature.parameters.values()

        @wraps(command)
        def with_what_is_said(**values: Any) -> None:
            command(**{name: value for name, value in values.items() if name not in names or value not in (None, [])})

        with_what_is_said.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
        return with_what_is_said

    return decorate
