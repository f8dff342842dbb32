"""The options that `caption` and `evaluate` share: which model, and how to search."""

from typing import Annotated, Any

import typer

SEARCH, SAMPLING = "Search", "Sampling"

Model = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", metavar="DIR", help="Model or training run; repeated, models that caption as one."),
]
BatchSize = Annotated[
    int,
    typer.Option("--batch-size", min=1, metavar="N", help="Images captioned together; changes speed only."),
]

Beam = Annotated[
    int | None,
    typer.Option("--beam", metavar="K", help="Captions followed at a time; 1 is greedy.", rich_help_panel=SEARCH),
]
Groups = Annotated[
    int | None,
    typer.Option("--groups", metavar="G", help="Groups of the beam that say different things.", rich_help_panel=SEARCH),
]
Diversity = Annotated[
    float | None,
    typer.Option(
        "--diversity", metavar="D", help="How much groups avoid each other's words: 0.2 to 0.8.", rich_help_panel=SEARCH
    ),
]
Num = Annotated[
    int | None,
    typer.Option("--num", "-n", metavar="N", help="Captions for each image, best first.", rich_help_panel=SEARCH),
]
LengthPenalty = Annotated[
    float | None,
    typer.Option(
        "--length-penalty", metavar="P", help="0 favours short captions, 1 long ones.", rich_help_panel=SEARCH
    ),
]
MinWords = Annotated[
    int | None,
    typer.Option("--min-words", metavar="N", help="No caption is shorter.", rich_help_panel=SEARCH),
]
MaxWords = Annotated[
    int | None,
    typer.Option("--max-words", metavar="N", help="Longer captions are cut.", rich_help_panel=SEARCH),
]
NoRepeatNgram = Annotated[
    int | None,
    typer.Option("--no-repeat-ngram", metavar="N", help="No N words come twice in a caption.", rich_help_panel=SEARCH),
]
Ban = Annotated[
    list[str] | None,
    typer.Option("--ban", metavar="WORD", help="Never say WORD; may be repeated.", rich_help_panel=SEARCH),
]
Require = Annotated[
    list[str] | None,
    typer.Option("--require", metavar="WORD", help="Always say WORD; may be repeated.", rich_help_panel=SEARCH),
]
Prefix = Annotated[
    str | None,
    typer.Option("--prefix", metavar="TEXT", help="Words that each caption begins with.", rich_help_panel=SEARCH),
]
Sample = Annotated[
    bool | None,
    typer.Option("--sample", help="Draw words at random instead of searching.", rich_help_panel=SAMPLING),
]
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", metavar="T", help="Below 1: safer words; above: bolder.", rich_help_panel=SAMPLING),
]
TopK = Annotated[
    int | None,
    typer.Option("--top-k", metavar="K", help="Draw from the K likeliest words.", rich_help_panel=SAMPLING),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p", metavar="P", help="Draw from the likeliest words up to P in sum.", rich_help_panel=SAMPLING
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", help="The same seed draws the same captions.", rich_help_panel=SAMPLING),
]


def given(**options: Any) -> dict[str, Any]:
    """The options that the command line names; the others stay as the model has them."""
    return {name: value for name, value in options.items() if value is not None and value != []}
