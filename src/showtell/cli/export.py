"""``showtell export``: a trained model for captioning without PyTorch, compared with PyTorch before it is kept."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from showtell.bundle import load_bundle
from showtell.data import load as load_data
from showtell.errors import MissingExtraError
from showtell.images import prepare
from showtell.onnx_weights import Weights

app = typer.Typer()

PHOTOS = 16  # that are compared


@app.command(epilog="The new folder is a model as any: showtell caption photos/ --model DIR")
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder, or folder of a training run.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The new model folder.")],
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", metavar="SPEC", help=f"Compare on {PHOTOS} photos of a data set, too."),
    ] = None,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="train, dev or test.")] = "dev",
    weights: Annotated[
        Weights,
        typer.Option(
            "--weights",
            metavar="TYPE",
            help="How weights are stored: float32, float16 (half the size) or int8 (a quarter). "
            "All compute in float32, as fast.",
        ),
    ] = "float32",
) -> None:
    """Write a model that captions without PyTorch (ONNX), once it gives what PyTorch gives."""
    bundle = load_bundle(model)
    photos = None
    if data is not None:
        examples = load_data(data).split(split)[:PHOTOS]
        preprocessing = bundle.config.preprocessing
        photos = prepare([example.read(at_least=preprocessing.shorter_side) for example in examples], preprocessing)
    try:
        from showtell.export import export as write_exported
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("showtell"):
            raise
        raise MissingExtraError("showtell export", "train,export") from None
    print(f"exporting {bundle.config.name}, which takes a minute or two", file=sys.stderr)
    differences = write_exported(bundle, out, photos, weights)
    on = "random images" if photos is None else f"random images and {len(photos)} photos"
    print(
        f"largest differences from PyTorch, on {on}: "
        f"log-probabilities {differences.log_probs:.1e}, attention {differences.attention:.1e}, "
        f"features {differences.grid:.1e} of the largest"
    )
    if weights != "float32":
        print(f"weights rounded to {weights}: log-probabilities differ by up to {differences.rounding:.1e}")
    print(f"{out}: {size_of(out) / 1e6:.1f} MB")


def size_of(folder: Path) -> int:
    """Bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.iterdir())
