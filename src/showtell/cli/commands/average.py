"""``showtell average``: one model whose weights are the mean of several models'."""

from math import inf
from pathlib import Path
from typing import Annotated

import typer

from showtell.averaging import average as write_average
from showtell.bundle import load_bundle
from showtell.errors import UsageError

app = typer.Typer()


@app.command(
    epilog="If all were fine-tuned from one model, the mean is often better than each: showtell evaluate --model DIR"
)
def average(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Model folders, or training runs.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The new model folder.")],
    shares: Annotated[
        list[float] | None,
        typer.Option(
            "--share", metavar="X", help="The share of each model in turn: --share 2 --share 1; equal by default."
        ),
    ] = None,
) -> None:
    """Write the model whose weights are the mean of several models' weights."""
    shares = shares or [1.0] * len(models)
    if len(shares) != len(models) or not all(0 <= share < inf for share in shares) or sum(shares) == 0:
        raise UsageError(f"There are {len(models)} models and --share {shares}.", "Give a number, 0 or more, for each.")
    write_average([load_bundle(model) for model in models], shares, out.name, out)
    print(f"Model: {out}")
