"""The page that a training run leaves behind: curves, scores, captions good and bad, and the recipe.

`write_report(run_folder)` reads

- `recipe.yaml`: shown as it is;
- `log.jsonl`: a JSON object for each validation, with any of epoch, step, loss, learning_rate, captions_per_second,
  padding (share of the tokens, 0 to 1), minutes (since the start) and scores {"CIDEr": ...};
- `samples.jsonl`: a JSON object for each validation image, with image_id, caption, words, log_prob, references,
  scores {"CIDEr": ...}, image (a small JPEG of what the model saw) and attention (an .npy file `[T, h, w]`);
  the two files are named relative to the run folder;

and writes `report.html`, which holds its style, charts and pictures itself and lets the browser make no request.
What is missing or unreadable is left out, with a sentence in its place.
"""

import html
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from showtell.errors import DataError
from showtell.files import write_file
from showtell.metrics.official.bleu import BLEU
from showtell.metrics.table import METRICS, RANKED_BY
from showtell.pages.charts import histogram, line_chart, short
from showtell.pages.records import (
    Record,
    best_of,
    column,
    items,
    number,
    read_records,
    score,
    scores,
)
from showtell.pages.sample import sample_article
from showtell.pages.shell import chart_figure, figures, lead, note, sections_page, table

SHOWN = 6  # samples in each of: best, middle, worst
DRAWN = (RANKED_BY, *BLEU.names)
COLUMNS = (
    "step",
    "loss",
    "learning_rate",
    *dict.fromkeys((RANKED_BY, *(name for metric in METRICS.values() for name in metric.names))),
    "captions_per_second",
    "padding",
    "minutes",
)
COLUMN_NAMES = {"learning_rate": "learning rate", "captions_per_second": "captions/s"}
GROUPS = {
    "best": ("The best", f"Captions with the highest {RANKED_BY}, each against its own references."),
    "middle": ("The middle", "What to expect for a new photo: the captions around the median."),
    "worst": (
        "The worst",
        "Where to look first: captions that are wrong, or right in words nobody else chose.",
    ),
}


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a training run's folder, whole or not at all, and return its path.

    Raises:
        DataError: when there is no such folder. Nothing inside it is required.
    """
    if not run_folder.is_dir():
        raise DataError(f"There is no run folder {run_folder}.", "Name the folder that training wrote to.")
    write_file(run_folder / "report.html", report_page(run_folder))
    return run_folder / "report.html"


def report_page(run_folder: Path) -> str:
    """The report as one HTML document."""
    log, log_note = read_records(run_folder / "log.jsonl")
    samples, samples_note = read_records(run_folder / "samples.jsonl")
    sections = {
        "Charts": note(log_note) + _charts(log, samples),
        "Scores": _scores_table(log),
        "Captions": note(samples_note) + _captions(run_folder, samples),
        "Recipe": _recipe(run_folder / "recipe.yaml"),
    }
    return sections_page(run_folder.resolve().name, "Training report", _summary(log), sections)


def showcase(samples: Iterable[Record]) -> dict[str, list[Record]]:
    """The samples that the report shows, none twice: `{"best": [...], "middle": [...], "worst": [...]}`.

    Training needs to keep only their pictures and attention. Samples without a score are left out.
    """
    scored = [(value, sample) for sample in samples if (value := score(sample, RANKED_BY)) is not None]
    ranked = [sample for _, sample in sorted(scored, key=lambda pair: -pair[0])]
    shown = min(SHOWN, math.ceil(len(ranked) / 3))
    best, rest = ranked[:shown], ranked[shown:]
    middle, worst = rest[: max(0, len(rest) - shown)], rest[::-1][:shown]
    start = max(0, (len(middle) - shown) // 2)
    return {"best": best, "middle": middle[start : start + shown], "worst": worst}


def _summary(log: Sequence[Record]) -> str:
    """One sentence and the run's main figures."""
    best = best_of(log)
    if best is None:
        return lead("This run has logged no scores." if log else "This run has logged nothing.")
    values = {name: f"{found:.1f}" for name in (RANKED_BY, BLEU.names[-1]) if (found := score(best, name)) is not None}
    if speeds := column(log, "captions_per_second"):
        values["captions a second"] = f"{np.median(speeds):,.0f}"
    if padding := column(log, "padding"):
        values["of the tokens are padding"] = _cell("padding", float(np.mean(padding)))
    if minutes := column(log, "minutes"):
        values["minutes"] = f"{max(minutes):,.0f}" if max(minutes) >= 10 else f"{max(minutes):.1f}"
    epoch = number(best.get("epoch"))
    at = f": epoch {epoch:.0f}" if epoch is not None else ""
    chosen = f"The best of {len(log)} validations{at}" if len(log) > 1 else "Validated once"
    said = f"{chosen}, by the {RANKED_BY} of captions generated for the validation images."
    return f"{lead(said)}\n{figures(values)}"


def _charts(log: Sequence[Record], samples: Sequence[Record]) -> str:
    """The loss, rewards, scores and the learning rate over the run, and the captions' lengths."""
    axis, places = _axis(log)
    best = best_of(log)
    # Self-critical training's loss says nothing: its mean stays near zero, whatever the model learns.
    said = [{**record, "loss": None} if "reward" in record else record for record in log]
    best_at = next((place for place, record in zip(places, log, strict=True) if record is best), None)

    def over_run(title: str, subtitle: str, names: Sequence[str], *, zero: bool, mark: float | None = None) -> str:
        lines = {}
        for name in names:
            values = [number({**record, **scores(record)}.get(name)) for record in said]
            if line := [(x, y) for x, y in zip(places, values, strict=True) if y is not None]:
                lines[name] = line
        if not lines:
            return ""
        return chart_figure(title, subtitle, line_chart(lines, title=title, below=axis, from_zero=zero, best=mark))

    validated = "For captions that the model wrote for the validation images"
    charts = [
        over_run("Training loss", "Mean over an epoch’s words", ["loss"], zero=False),
        over_run("Reward", "Of the model’s own samples, mean over an epoch", ["reward"], zero=False),
        over_run("Scores", validated, (*DRAWN, *_others(log)), zero=True, mark=best_at),
        over_run("Learning rate", "When the epoch ended", ["learning_rate"], zero=True),
        _lengths(samples),
    ]
    if not any(charts):
        return note("There is nothing to draw.")
    return f'<div class="charts">\n{"".join(charts)}\n</div>'


def _others(log: Sequence[Record]) -> list[str]:
    """Scores of no metric in this version: other data sets', or a newer showtell's."""
    return sorted({name for record in log for name in scores(record)} - {*COLUMNS})


def _axis(log: Sequence[Record]) -> tuple[str, Sequence[float]]:
    """A run's x axis: epochs, or steps if epochs start again with each stage, or else the order of the records."""
    for name in ("epoch", "step"):
        places = column(log, name)
        if len(places) == len(log) and all(a < b for a, b in itertools.pairwise(places)):
            return name, places
    return "validation", range(1, len(log) + 1)


def _lengths(samples: Sequence[Record]) -> str:
    """How long the captions are, beside people's."""
    counts = {
        "the model": Counter(_length(sample["caption"]) for sample in samples if sample.get("caption")),
        "people": Counter(_length(text) for sample in samples for text in items(sample, "references")),
    }
    if not counts["the model"]:
        return ""
    shares = [{n: count / of.total() for n, count in sorted(of.items())} for of in counts.values()]
    means = [
        f"{sum(n * share for n, share in of.items()):.1f} by {who}"
        for who, of in zip(counts, shares, strict=True)
        if of
    ]
    chart = histogram(*shares, names=("the model", "people"), below="words in a caption")
    return chart_figure("Caption lengths", f"Words, on average: {', '.join(means)}", chart)


def _length(caption: object) -> int:
    """The number of words in a caption; punctuation that stands alone is not a word."""
    return sum(any(map(str.isalnum, word)) for word in str(caption).split())


def _scores_table(log: Sequence[Record]) -> str:
    """A row for each validation; the best one is marked."""
    rows = [{name: number(value) for name, value in {**record, **scores(record)}.items()} for record in log]
    present = {name for row in rows for name, value in row.items() if value is not None}
    columns = [name for name in (*COLUMNS, *_others(log)) if name in present]
    if not columns:
        return note("There is no table without a log.")
    best = best_of(log)
    names = ["epoch", *(COLUMN_NAMES.get(name, name) for name in columns)]
    lines = (
        (_cell("epoch", row.get("epoch")), [_cell(name, row.get(name)) for name in columns], "best" * (record is best))
        for record, row in zip(log, rows, strict=True)
    )
    return table(names, lines, "scores-title")


def _cell(column: str, value: float | None) -> str:
    """A number as its column shows it."""
    if value is None:
        return "–"
    if column in ("epoch", "step", "captions_per_second"):
        return f"{value:,.0f}"
    if column == "padding":
        return f"{value * 100:.1f} %"
    if column == "learning_rate":
        return short(value)
    return f"{value:.{3 if column == 'loss' else 1}f}"


def _captions(run_folder: Path, samples: Sequence[Record]) -> str:
    """The best, the middling and the worst captions with their references and attention."""
    groups = [(*GROUPS[group], chosen, group == "best") for group, chosen in showcase(samples).items() if chosen]
    if not groups:
        return note(f"There are no captions with a {RANKED_BY} of their own to show.")
    return "\n".join(
        f"<h3>{title}</h3>\n{note(subtitle)}\n"
        + "\n".join(sample_article(run_folder, sample, unfolded=unfolded) for sample in chosen)
        for title, subtitle, chosen, unfolded in groups
    )


def _recipe(path: Path) -> str:
    try:
        text = html.escape(path.read_text("utf-8", errors="replace").strip())
    except OSError:
        return note(f"There is no {path.name} in the run folder.")
    return f'<pre tabindex="0"><code>{text}</code></pre>'
