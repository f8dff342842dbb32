"""``showtell export``: a trained model for captioning without PyTorch, compared with PyTorch before it is kept."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import typer
from numpy.typing import NDArray

from showtell.bundle import load_bundle
from showtell.captioner import Captioner, load
from showtell.cli.progress import progress_bar, tell
from showtell.data import Dataset, Example
from showtell.data import load as load_data
from showtell.errors import ShowtellError, UsageError, needs
from showtell.export.weights import Weights
from showtell.images.decode import Pixels, Preprocessing, prepare, read_image
from showtell.images.sources import find_images
from showtell.images.tables import in_order
from showtell.metrics.report import score

app = typer.Typer()

Item = TypeVar("Item")

COMPARED = 16  # photos
MEASURED = 64  # photos on which int8's scales are measured


@app.command(epilog="Use the new folder like any other model: showtell caption photos/ --model DIR")
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder, or folder of a training run.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The new model folder.")],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="SPEC",
            help=f"Compare on {COMPARED} photos of a data set, too; "
            "with --int8, measure on its train photos, and score the whole split.",
        ),
    ] = None,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="train, dev or test.")] = "dev",
    weights: Annotated[
        Weights,
        typer.Option(
            "--weights",
            metavar="TYPE",
            help="How weights are stored: float32, float16 (half the size) or int8 (a quarter to a third). "
            "All compute in float32, equally fast.",
        ),
    ] = "float32",
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Compute in int8: faster, but captions change a little. Needs --data or --photos."),
    ] = False,
    photos: Annotated[
        Path | None,
        typer.Option("--photos", metavar="DIR", help=f"With --int8: a folder of photos; {MEASURED} are measured."),
    ] = None,
) -> None:
    """Write a model that captions without PyTorch (ONNX), after a check that it agrees with PyTorch."""
    bundle = load_bundle(model)
    refuse_contradictions(data, int8, photos)
    preprocessing = bundle.config.preprocessing
    dataset = None if data is None else load_data(data)
    examples = [] if dataset is None else dataset.split(split)
    compared = prepared(examples[:COMPARED], preprocessing) if examples else None
    calibration = calibration_photos(dataset, photos, preprocessing) if int8 else None
    with needs("train,export", "showtell export"):
        from showtell.export.graphs import export as write_exported
    print(f"exporting {bundle.config.name}, which takes a minute or two", file=sys.stderr)
    differences = write_exported(bundle, out, compared, weights, calibration)
    on = "random images" if compared is None else f"random images and {len(compared)} photos"
    print(
        f"largest differences from PyTorch, on {on}: "
        f"log-probabilities {differences.log_probs:.1e}, attention {differences.attention:.1e}, "
        f"features {differences.grid:.1e} of the largest"
    )
    if differences.int8 is not None:
        print(
            f"int8 arithmetic: {differences.int8:.1%} of the next word's probability goes to other words, "
            f"log-probabilities differ by up to {differences.rounding:.1e}"
        )
    elif weights != "float32":
        print(f"weights rounded to {weights}: log-probabilities differ by up to {differences.rounding:.1e}")
    print(f"{out}: {size_of(out) / 1e6:.1f} MB")
    if int8 and examples:
        print(cider_change(load(bundle.path), load(out), examples, split))


def refuse_contradictions(data: str | None, int8: bool, photos: Path | None) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: int8 arithmetic without photos, or --photos without int8 arithmetic.
    """
    if int8 and data is None and photos is None:
        raise UsageError(
            "--int8 needs photos to measure the encoder's arrays on.",
            "Give --data SPEC, which also measures the change in CIDEr, or a folder: --photos DIR.",
        )
    if photos is not None and not int8:
        raise UsageError("--photos is for --int8 only.", "Add --int8, or leave --photos out.")


def calibration_photos(
    dataset: Dataset | None, folder: Path | None, preprocessing: Preprocessing
) -> NDArray[np.float32]:
    """Photos spread over a folder, or over the data set's train split: `[B, 3, S, S]`.

    Raises:
        UsageError: the folder has none.
        DataError: the data set has no train split.
        ImageError: one can't be read.
    """
    if folder is None:
        assert dataset is not None
        return prepared(spread(dataset.split("train")), preprocessing)
    images, finder = find_images([str(folder)])
    tell(*finder.notes())
    if not images:
        raise UsageError(f"--photos {folder} holds no image.", "Give a folder of photos like those to be captioned.")
    side = preprocessing.shorter_side
    return prepare([read_image(image.source(), at_least=side) for image in in_order(spread(images))], preprocessing)


def spread(items: Sequence[Item]) -> list[Item]:
    """Some of the items, evenly spaced: folders and data sets often hold similar photos side by side."""
    step = max(1, len(items) // MEASURED)
    return list(items[::step][:MEASURED])


def prepared(examples: Sequence[Example], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """The examples' photos as the model sees them, `[B, 3, S, S]`."""
    return prepare([example.read(at_least=preprocessing.shorter_side) for example in examples], preprocessing)


def cider_change(before: Captioner, after: Captioner, examples: Sequence[Example], split: str) -> str:
    """A line on what int8 does to the captions of a split."""
    side = before.config.preprocessing.shorter_side
    reads: list[Callable[[], Pixels]] = [partial(example.read, at_least=side) for example in examples]
    captions: list[dict[str, str]] = [{}, {}]
    with progress_bar("captioning before and after", 2 * len(examples)) as advance:
        for captioner, texts in zip((before, after), captions, strict=True):
            for example, outcome in zip(examples, captioner.stream(reads, num=1), strict=True):
                if not isinstance(outcome, ShowtellError):
                    texts[example.image_id] = outcome[0].text
                advance()
    references = {example.image_id: example.captions for example in examples}
    first, second = (100 * score(texts, references, metrics={"CIDEr"}).scores["CIDEr"] for texts in captions)
    changed = sum(captions[1][image_id] != text for image_id, text in captions[0].items())
    return (
        f"CIDEr on {len(captions[0]):,} {split} photos: {first:.1f} in float32, {second:.1f} in int8 "
        f"({second - first:+.1f}); {changed:,} captions differ"
    )


def size_of(folder: Path) -> int:
    """Bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.iterdir())
