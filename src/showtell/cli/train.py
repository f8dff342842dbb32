"""``showtell train``: a recipe and a data set in, a model folder and a report out."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from showtell.errors import MissingExtraError

if TYPE_CHECKING:
    from rich.progress import Progress

    from showtell.training.trainer import Event

app = typer.Typer()
NEEDED = ("torch", "safetensors", "accelerate", "tensorboard")
SCORES = ("CIDEr", "BLEU-4", "ROUGE_L")


@app.command(epilog="Ctrl-C saves the run; the same command with --resume goes on with it.")
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, YAML.", show_default=False)],
    data: Annotated[
        str, typer.Option("--data", "-d", metavar="SPEC", help="Data set: flickr8k:DIR, table:FILE, ...")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The run's folder.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change the recipe: stages.0.epochs=3; may be repeated."
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            "--features",
            metavar="DIR",
            help="Feature cache to use or build; by default in your cache folder.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, or start it.")
    ] = False,
) -> None:
    """Train a captioner: features are cached once, each epoch ends with captions of the dev images and their scores."""
    if any(find_spec(package) is None for package in NEEDED):
        raise MissingExtraError("Training", "train")
    from showtell.data import load
    from showtell.training.recipe import load_recipe
    from showtell.training.trainer import train

    plan = load_recipe(recipe, settings or ())
    dataset = load(data)
    for note in dataset.notes:
        print(note, file=sys.stderr)
    with _Screen() as screen:
        report = train(plan, dataset, out, resume=resume, cache=features, tell=screen.show)
    print(f"Model: {out / 'model'}\nReport: {report}")


class _Screen:
    """A bar for the epoch that runs, if someone is watching, and a line for each that has ended."""

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.header_shown = False

    def __enter__(self) -> "_Screen":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
                BarColumn(),
                TextColumn("loss {task.fields[loss]:.3f}  {task.fields[rate]:.0f} captions/s"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,
            )
            self.bar.start()
            self.bar.add_task("", total=None, epoch=0, epochs=0, loss=0.0, rate=0.0)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show(self, event: "Event") -> None:
        """One step or one epoch."""
        if event.line is not None:
            self._print_line(event)
        elif self.bar is not None:
            self.bar.update(
                self.bar.task_ids[0],
                completed=(event.epoch - 1) * event.all_captions + event.captions,
                total=event.epochs * event.all_captions,
                epoch=event.epoch,
                epochs=event.epochs,
                loss=event.loss,
                rate=event.captions_per_second,
            )

    def _print_line(self, event: "Event") -> None:
        assert event.line is not None
        scores = event.line["scores"]
        if not self.header_shown:
            self.header_shown = True
            print(
                " ".join(
                    [
                        "epoch",
                        "   loss",
                        "captions/s",
                        "padding",
                        "minutes",
                        *(f"{name:>8}" for name in SCORES),
                    ]
                )
            )
        print(
            f"{event.line['epoch']:5} {event.line['loss']:7.3f} {event.line['captions_per_second']:10.0f} "
            f"{event.line['padding']:7.1%} {event.line['minutes']:7.1f} "
            + " ".join(f"{scores[name]:8.4f}" for name in SCORES if name in scores),
            flush=True,
        )
