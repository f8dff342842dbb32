"""The page that a training run leaves behind: curves, scores, captions good and bad, and the recipe.

`write_report(run_folder)` reads

- `recipe.yaml`: shown as it is;
- `log.jsonl`: a JSON object a validation, with any of epoch, step, loss, learning_rate, captions_per_second,
  padding (share of the tokens, 0 to 1), minutes (since the start) and scores {"CIDEr": ...};
- `samples.jsonl`: a JSON object a validation image, with image_id, caption, words, log_prob, references,
  scores {"CIDEr": ...}, image (a small JPEG of what the model saw) and attention (an .npy file `[T, h, w]`);
  the two files are named relative to the run folder;

and writes `report.html`, which holds its style, charts and pictures itself and forbids the browser requests.
What is missing or unreadable is left out, with a sentence in its place.
"""

import html
import importlib.metadata
import importlib.resources
import itertools
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from showtell.errors import DataError
from showtell.metrics.bleu import BLEU
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
    "middle": ("The middle", "What to expect of a new photo: the captions around the median."),
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
    page = report_page(run_folder)
    descriptor, unfinished = tempfile.mkstemp(dir=run_folder, prefix=".report-", suffix=".html")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(page)
        Path(unfinished).chmod(0o644)  # mkstemp's 0600 is for secrets; a report is there to be shared
        Path(unfinished).replace(run_folder / "report.html")
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
    return run_folder / "report.html"


def report_page(run_folder: Path) -> str:
    """The report as one HTML document."""
    log, log_note = read_records(run_folder / "log.jsonl")
    samples, samples_note = read_records(run_folder / "samples.jsonl")
    sections = {
        "Charts": _note(log_note) + _charts(log, samples),
        "Scores": _scores_table(log),
        "Captions": _note(samples_note) + _captions(run_folder, samples),
        "Recipe": _recipe(run_folder / "recipe.yaml"),
    }
    links = "".join(f'<li><a href="#{title.lower()}">{title}</a></li>' for title in sections)
    body = "\n".join(
        f'<section id="{title.lower()}" aria-labelledby="{title.lower()}-title">\n'
        f'<h2 id="{title.lower()}-title">{title}</h2>\n{content}\n</section>'
        for title, content in sections.items()
    )
    name = html.escape(run_folder.resolve().name)
    version = html.escape(importlib.metadata.version("showtell"))
    style = importlib.resources.files("showtell.pages").joinpath("page.css").read_text("utf-8")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="color-scheme" content="light dark">
<title>{name}: training report</title>
<style>
{style}</style>
</head>
<body>
<header>
<p class="eyebrow">Training report</p>
<h1>{name}</h1>
{_summary(log)}
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{body}
</main>
<footer><p>Written by showtell {version}. This page holds all that it shows and loads nothing.</p></footer>
</body>
</html>
"""


def showcase(samples: Iterable[Record]) -> dict[str, list[Record]]:
    """The samples that the report shows, none twice: `{"best": [...], "middle": [...], "worst": [...]}`.

    Training needs to keep pictures and attention of these only. Samples without that score are left out.
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
        return _lead("This run has logged no scores." if log else "This run has logged nothing.")
    figures = {name: f"{found:.3f}" for name in (RANKED_BY, BLEU.names[-1]) if (found := score(best, name)) is not None}
    if speeds := column(log, "captions_per_second"):
        figures["captions a second"] = f"{np.median(speeds):,.0f}"
    if padding := column(log, "padding"):
        figures["of the tokens are padding"] = _cell("padding", float(np.mean(padding)))
    if minutes := column(log, "minutes"):
        figures["minutes"] = f"{max(minutes):,.0f}" if max(minutes) >= 10 else f"{max(minutes):.1f}"
    epoch = number(best.get("epoch"))
    at = f": epoch {epoch:.0f}" if epoch is not None else ""
    chosen = f"The best of {len(log)} validations{at}" if len(log) > 1 else "Validated once"
    lead = f"{chosen}, by the {RANKED_BY} of captions generated for the validation images."
    items = "".join(f"<div><dt>{label}</dt><dd>{figure}</dd></div>" for label, figure in figures.items())
    return f'{_lead(lead)}\n<dl class="figures">{items}</dl>'


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
        return _figure(title, subtitle, line_chart(lines, title=title, below=axis, from_zero=zero, best=mark))

    validated = "Of captions that the model wrote for the validation images"
    charts = [
        over_run("Training loss", "Mean over an epoch’s words", ["loss"], zero=False),
        over_run("Reward", "Of the model’s own samples, mean over an epoch", ["reward"], zero=False),
        over_run("Scores", validated, DRAWN, zero=True, mark=best_at),
        over_run("Learning rate", "When the epoch ended", ["learning_rate"], zero=True),
        _lengths(samples),
    ]
    if not any(charts):
        return _note("There is nothing to draw.")
    return f'<div class="charts">\n{"".join(charts)}\n</div>'


def _axis(log: Sequence[Record]) -> tuple[str, Sequence[float]]:
    """What to draw a run over: epochs, or steps where epochs start again with each stage, or mere order."""
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
    return _figure("Caption lengths", f"Words, on average: {', '.join(means)}", chart)


def _length(caption: object) -> int:
    """Words of a caption; punctuation that stands alone is none."""
    return sum(any(map(str.isalnum, word)) for word in str(caption).split())


def _scores_table(log: Sequence[Record]) -> str:
    """A row a validation; the best one is marked."""
    rows = [{name: number(value) for name, value in {**record, **scores(record)}.items()} for record in log]
    present = {name for row in rows for name, value in row.items() if value is not None}
    others = sorted({name for record in log for name in scores(record)} & present - {*COLUMNS})
    columns = [name for name in (*COLUMNS, *others) if name in present]
    if not columns:
        return _note("There is no table without a log.")
    heads = "".join(f'<th scope="col">{html.escape(COLUMN_NAMES.get(name, name))}</th>' for name in ("epoch", *columns))
    best = best_of(log)
    body = "\n".join(_table_row(row, columns, best=record is best) for record, row in zip(log, rows, strict=True))
    return f"""<div class="scroll" role="region" aria-labelledby="scores-title" tabindex="0">
<table>
<thead><tr>{heads}</tr></thead>
<tbody>
{body}
</tbody>
</table>
</div>"""


def _table_row(row: Mapping[str, float | None], columns: Sequence[str], *, best: bool) -> str:
    start, mark = ('<tr class="best">', "<span>best</span>") if best else ("<tr>", "")
    cells = "".join(f"<td>{_cell(name, row.get(name))}</td>" for name in columns)
    return f'{start}<th scope="row">{_cell("epoch", row.get("epoch"))}{mark}</th>{cells}</tr>'


def _cell(column: str, value: float | None) -> str:
    """A number as its column shows it."""
    if value is None:
        return "–"
    if column in ("epoch", "step", "captions_per_second"):
        return f"{value:,.0f}"
    if column == "padding":
        return f"{value * 100:.1f} %"
    return {"learning_rate": short(value), "minutes": f"{value:.1f}"}.get(column, f"{value:.3f}")


def _captions(run_folder: Path, samples: Sequence[Record]) -> str:
    """The best, the middling and the worst captions with their references and attention."""
    groups = [(*GROUPS[group], chosen, group == "best") for group, chosen in showcase(samples).items() if chosen]
    if not groups:
        return _note(f"There are no captions with a {RANKED_BY} of their own to show.")
    return "\n".join(
        f"<h3>{title}</h3>\n{_note(subtitle)}\n"
        + "\n".join(sample_article(run_folder, sample, unfolded=unfolded) for sample in chosen)
        for title, subtitle, chosen, unfolded in groups
    )


def _recipe(path: Path) -> str:
    try:
        text = html.escape(path.read_text("utf-8", errors="replace").strip())
    except OSError:
        return _note(f"There is no {path.name} in the run folder.")
    return f'<pre tabindex="0"><code>{text}</code></pre>'


def _figure(title: str, subtitle: str, chart: str) -> str:
    return f'<figure class="chart"><figcaption>{title}<span>{subtitle}</span></figcaption>{chart}</figure>\n'


def _lead(text: str) -> str:
    return f'<p class="lead">{html.escape(text)}</p>'


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>' if text else ""
