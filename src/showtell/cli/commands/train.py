"""``showtell train``: captioned photos in, by a recipe or without one; a model folder and a report out."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import showtell
from showtell.bundle import DEFAULT
from showtell.cli.progress import LogLines, tell
from showtell.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

    from showtell.data import Dataset
    from showtell.training.events import Event
    from showtell.training.recipe import Json, Recipe

app = typer.Typer()
NEEDED = ("torch", "safetensors", "accelerate", "tensorboard", "yaml")


def print_keys(wanted: bool) -> None:
    """Answer ``--keys`` before a recipe is asked for."""
    if not wanted:
        return
    from showtell.training.recipe import documented_keys

    for key, default, meaning in documented_keys():
        print(f"{key:34} {default:22} {meaning}")
    raise typer.Exit


def print_recipes(wanted: bool) -> None:
    """Answer ``--recipes``: what comes with showtell, by name."""
    if not wanted:
        return
    for name, path in recipes().items():
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        print(f"{name:34} {first}")
    raise typer.Exit


def recipes() -> dict[str, Path]:
    """The recipes that come with showtell, by name; they are in the package, or in a checkout beside it."""
    package = Path(showtell.__file__).parent
    folder = next((place for place in (package / "recipes", package.parents[1] / "recipes") if place.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))} if folder else {}


@app.command(
    epilog="Ctrl-C saves the run; the same command with --resume continues it. "
    "On several GPUs: torchrun --nproc-per-node 4 -m showtell train ..."
)
def train(
    what: Annotated[
        str,
        typer.Argument(
            metavar="PHOTOS|RECIPE",
            help="Captioned photos of your own: a table, a folder, COCO JSON, any SPEC. Or a recipe: a YAML file, "
            "or the name of one that comes with showtell.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="The run's folder; runs/NAME by default.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            "-d",
            metavar="SPEC",
            help="Data set: flickr8k:DIR, table:FILE, ... or a path; in place of the recipe's. May be repeated: the "
            "first one's dev images choose the model. ',times=3' at its end shows its photos three times an epoch.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", metavar="RECIPE", help="Train on PHOTOS with this recipe: a file, or a name from --recipes."
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="With PHOTOS: the model to start from; by default the one that ships. none: fresh weights.",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes", min=1, metavar="M", help="With PHOTOS: about how long training may take on two cores."
        ),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option("--language", metavar="CODE", help="Language of the captions: de, zh, ...; detected by default."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a key of the recipe: stages.0.epochs=3; may be repeated."
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
    keys: Annotated[
        bool,
        typer.Option("--keys", callback=print_keys, is_eager=True, help="List every key of a recipe, and stop."),
    ] = False,
    list_recipes: Annotated[
        bool,
        typer.Option("--recipes", callback=print_recipes, is_eager=True, help="List the recipes, and stop."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out, or start it.")] = False,
) -> None:
    """Train a captioner on photos of your own, or by a recipe.

    With nothing but PHOTOS it starts from the model that comes with showtell, and chooses the rest by the number of
    photos. Features are cached once; each epoch ends with captions of the dev images and their scores.
    """
    if any(find_spec(package) is None for package in NEEDED):
        raise MissingExtraError("Training", "train")
    from showtell.training import processes
    from showtell.training.trainer import train

    processes.join()
    with processes.agreed():
        changes = [*([f"tokenizer.language={language}"] if language else []), *(settings or [])]
        plan, dataset, said = planned(what, data or [], recipe, start, minutes, changes)
    out = out or Path("runs") / plan.name
    if not processes.is_main():
        train(plan, dataset, out, resume=resume, cache=features)
    else:
        tell(*dataset.notes, *said)
        with _Screen() as screen:
            report = train(plan, dataset, out, resume=resume, cache=features, tell=screen.show)
        print(f"Model: {out / 'model'}\nReport: {report}")
    processes.leave()


def planned(
    what: str, data: list[str], recipe: str | None, start: str | None, minutes: float | None, settings: list[str]
) -> "tuple[Recipe, Dataset, list[str]]":
    """The recipe, the data set, and what the user should know about them.

    Raises:
        ShowtellError: something is missing, can't be read, or contradicts something else.
    """
    from showtell.data import joined, load
    from showtell.data.dataset import without_test
    from showtell.data.doubts import doubts
    from showtell.training.own import plan_for
    from showtell.training.recipe import load_recipe, parse_recipe, with_settings

    if Path(what).suffix in (".yaml", ".yml") or (what in recipes() and not Path(what).exists()):
        if recipe is not None:
            raise UsageError(f"{what} is a recipe, and --recipe names another.", "Give photos, or leave out --recipe.")
        recipe = what
    else:
        data = [what, *data]
    if recipe is not None:
        if start is not None or minutes is not None:
            raise UsageError("--from and --minutes are for photos without a recipe.", "Leave them out, or --recipe.")
        plan = load_recipe(recipes().get(recipe, Path(recipe)), settings)
        plan = plan.model_copy(update={"data": tuple(data)}) if data else plan
        if not plan.data:
            raise UsageError("No data set is named.", "Give --data SPEC, or put data: [SPEC] into the recipe.")
        return plan, joined([load(spec) for spec in plan.data]), []
    dataset = joined([without_test(load(spec)) for spec in data])
    chosen = None if start == "none" else start or DEFAULT
    made = plan_for(dataset, chosen, re.sub(r"[^\w-]+", "-", Path(dataset.name).stem).strip("-") or "own", minutes)
    values = with_settings(made.recipe.model_dump(mode="json"), settings)
    return parse_recipe({**values, "data": data}, "The plan"), dataset, [*doubts(dataset.examples), made.said]


class _Screen:
    """A bar for what is running, or a line a minute in a log file; and a line for each epoch that has ended."""

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.lines = LogLines()
        self.header_shown = False

    def __enter__(self) -> "_Screen":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,
            )
            self.bar.start()
            self.bar.add_task("", total=None, rate="")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show(self, event: "Event") -> None:
        from showtell.data.features.cache import megabytes
        from showtell.training.events import Encoding, Note

        if isinstance(event, Note):
            tell(event.text)
        elif isinstance(event, Encoding):
            if event.images and not event.done:
                print(f"Features of {event.images:,} images: {megabytes(event.size)} to write.", file=sys.stderr)
            self._advance("encoding images", event.done, event.images)
        elif event.line is None:
            done = (event.epoch - 1) * event.all_captions + event.captions
            rate = f"loss {event.loss:.3f}  {event.captions_per_second:,.0f} captions/s"
            self._advance(f"epoch {event.epoch}/{event.epochs}", done, event.epochs * event.all_captions, rate)
        else:
            self._print_line(event.line)

    def _advance(self, what: str, done: int, total: int, rate: str = "") -> None:
        if self.bar is None:
            self.lines.tell(what, done, total, rate)
            return
        task = self.bar.tasks[0]
        if task.total != total:  # another kind of work: its speed starts anew
            self.bar.reset(task.id, total=total)
        if not rate and task.speed:
            rate = f"{task.speed:.0f} images/s"
        self.bar.update(task.id, description=what, completed=done, rate=rate)

    def _print_line(self, line: "Json") -> None:
        from showtell.metrics.table import METRICS, RANKED_BY, metric_of

        main = dict.fromkeys((RANKED_BY, *(metric.names[-1] for metric in METRICS.values() if metric.quick)))
        if not self.header_shown:
            self.header_shown = True
            print("epoch    loss captions/s padding minutes", *(f"{name:>8}" for name in main))
        facts = (
            f"{'mean of ' + ', '.join(map(str, line['mean_of'])):26}"
            if "mean_of" in line
            else f"{'what training starts from':26}"
            if "start" in line
            else f"{line['loss']:7.3f} {line['captions_per_second']:10.0f} {line['padding']:7.1%}"
        )
        others = [
            f" {name}: {RANKED_BY} {metric_of(RANKED_BY).printed(scores[RANKED_BY])}"
            for name, scores in list(line.get("scores_of", {}).items())[1:]
        ]
        print(
            f"{line['epoch']:5} {facts} {line['minutes']:7.1f}",
            *(f"{metric_of(name).printed(line['scores'][name]):>8}" for name in main),
            *others,
            flush=True,
        )
