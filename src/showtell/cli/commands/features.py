"""``showtell features``: a frozen encoder's features of a data set's images, computed once."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from showtell.cli.progress import progress_bar, tell
from showtell.data import load
from showtell.data.features.cache import FeatureCache, images_done, megabytes, part_name
from showtell.errors import Interrupted, UsageError, needs

app = typer.Typer(add_completion=False)


@app.command(epilog="If it is stopped or killed, the same command continues where it stopped.")
def features(
    data: Annotated[
        str, typer.Option("--data", "-d", metavar="SPEC", help="Data set: flickr8k:DIR, table:FILE, ... or a path.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The cache's folder.")],
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            "-e",
            metavar="NAME",
            help="efficientnet_lite0 to 2, resnet50, a transformers hub name or folder, or timm:NAME.",
        ),
    ] = "efficientnet_lite2",
    size: Annotated[
        int | None, typer.Option("--size", metavar="S", help="Pixels a side; by default the encoder's own.")
    ] = None,
    grid: Annotated[int | None, typer.Option("--grid", metavar="N", help="Pool the features to N x N cells.")] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="FILE", help="A .pth or .safetensors file; or 'random'."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, metavar="N", help="Images encoded together.")] = 16,
    processes: Annotated[
        int, typer.Option("--processes", min=1, metavar="N", help="How many parts to build at the same time.")
    ] = 1,
    part: Annotated[
        str | None,
        typer.Option(
            "--part", metavar="I/N", help="Build only part I of N, so that several machines can share one folder."
        ),
    ] = None,
) -> None:
    """Build the feature cache of a data set, for `train` and `evaluate` to use."""
    with needs("train", "showtell features"):
        from accelerate.utils import set_seed

        from showtell.models.encoders import build_encoder
        from showtell.training.inputs.feature_builders import fill_in_processes
        from showtell.training.inputs.features import examples_of_part, fill, writer_for

    given = {"name": encoder, "size": size, "grid": grid, "weights": weights}
    settings = {key: value for key, value in given.items() if value is not None}
    number, parts = part_of(part)
    dataset = load(data)
    for note in dataset.notes:
        print(note, file=sys.stderr)
    begun = time.monotonic()
    try:
        if processes > 1:
            if part is not None or weights == "random":
                raise UsageError(f"--processes does not go with {'--part' if part else '--weights random'}.")
            to_do = len(dataset.examples) - (before := images_done(out))
            print(f"{len(dataset.examples):,} images, {before:,} of them done before, in {out}", file=sys.stderr)
            with progress_bar("encoding", to_do) as advance:
                fill_in_processes(data, settings, out, processes, batch_size, catching_up(advance, before))
        else:
            set_seed(0)  # random weights are those of a recipe's default seed, and the same when this continues
            network = build_encoder(settings)
            examples = examples_of_part(dataset.examples, number, parts)
            with writer_for(examples, network, out, part_name(number, parts) if part else "") as writer:
                to_do = len(writer.to_do)
                shown = announcement(len(examples), to_do, writer.new_bytes, network.grid, network.width, out)
                print(shown, file=sys.stderr)
                begun = time.monotonic()
                with progress_bar("encoding", to_do) as advance:
                    fill(writer, examples, network, batch_size=batch_size, advance=advance)
    except KeyboardInterrupt:
        raise Interrupted("Stopped by Ctrl-C. The same command continues where it stopped.") from None
    seconds = time.monotonic() - begun
    cache = FeatureCache.open(out)
    tell(*cache.unreadable.values())
    speed = f", {to_do:,} tried in {seconds:,.0f} s, {to_do / seconds:.1f} images/s" if to_do else ""
    print(f"{out}: {len(cache):,} images{speed}, {len(cache.unreadable):,} unreadable")
    print(f"made by {cache.fingerprint}")
    if cache.unreadable:
        raise typer.Exit(1)


def part_of(text: str | None) -> tuple[int, int]:
    """The numbers in `--part 2/4`; 1 and 1 if it isn't given. Raises UsageError."""
    if text is None:
        return 1, 1
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise UsageError(f"--part {text} is not understood.", "Write --part 1/4, --part 2/4, ... --part 4/4.")
    return int(number), int(parts)


def catching_up(advance: Callable[[], None], before: int) -> Callable[[int], None]:
    """A function that moves a bar to a number of images, `before` of which were done when it began."""
    shown = before

    def move(done: int) -> None:
        nonlocal shown
        for _ in range(shown, done):
            advance()
        shown = max(shown, done)

    return move


def announcement(images: int, to_do: int, size: int, grid: tuple[int, int], width: int, out: Path) -> str:
    """A line on what will be written."""
    before = f", {images - to_do:,} of them done before" if to_do < images else ""
    shape = f"{grid[0]} x {grid[1]} cells x {width:,} numbers of 16 bits"
    return f"{images:,} images{before}; {shape}: {megabytes(size)} to write in {out}"
