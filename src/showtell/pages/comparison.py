"""The page of `showtell compare --html`: the table as a chart, and the photos where two systems differ most.

The page holds its style and photos itself and lets the browser make no request.
"""

from collections.abc import Sequence
from html import escape

from PIL import Image

from showtell.errors import ImageError
from showtell.images.decode import read_image
from showtell.metrics.comparison import Comparison, Contrast
from showtell.metrics.significance import Difference
from showtell.metrics.table import metric_of
from showtell.pages.overlay import jpeg_uri
from showtell.pages.shell import chart_figure, figures, lead, note, sections_page, table, true_minus

PHOTO = 480  # pixels of the longer side


def comparison_page(found: Comparison) -> str:
    """The comparison as one HTML document."""
    first, second = map(escape, found.names)
    return sections_page(
        " and ".join(found.names),
        "Comparison of two systems",
        _summary(found),
        {"Scores": _scores(found), "Images": _images(found), "Method": _method(found)},
        heading=f'<small>A</small> <span class="a">{first}</span> <small>and B</small> <span class="b">{second}</span>',
    )


def verdict(difference: Difference, confidence: float) -> str:
    """What the tests say about one metric, as a sentence."""
    if difference.difference == 0:
        return f"Both have the same {difference.metric}."
    better = "B" if difference.difference > 0 else "A"
    printed = metric_of(difference.metric).printed
    gap = f"{better}’s {difference.metric} is higher by {printed(abs(difference.difference))}"
    if clear(difference, confidence):
        return f"{gap}, which is more than the choice of images explains."
    return f"{gap}, but another choice of images could reverse it."


def clear(difference: Difference, confidence: float) -> bool:
    """Whether the interval and both tests say that the systems differ."""
    low, high = difference.interval
    return (low > 0 or high < 0) and max(difference.p_bootstrap, difference.p_randomisation) < 1 - confidence


def _summary(found: Comparison) -> str:
    main = next(d for d in found.differences if d.metric == found.ranked_by)
    a, b, same = found.wins
    printed = metric_of(found.ranked_by).printed
    values = {
        f"{found.ranked_by} of A": printed(main.first),
        f"{found.ranked_by} of B": printed(main.second),
        "images": f"{found.images:,}",
        "better by A": f"{a:,}",
        "better by B": f"{b:,}",
        "equal": f"{same:,}",
    }
    return f"{lead(verdict(main, found.confidence))}\n{figures(values)}"


def _scores(found: Comparison) -> str:
    """The intervals as a chart, and all numbers as a table."""
    percent = f"{100 * found.confidence:g} %"
    headings = ("metric", "A", "B", "B − A", f"{percent} interval", "p, bootstrap", "p, swaps")
    rows = (_row(difference, found.confidence) for difference in found.differences)
    missing = "".join(note(f"{name} is missing: {reason}") for name, reason in found.missing.items())
    missing += "".join(map(note, found.doubts))
    said = f"Dots are the difference, lines its {percent} interval; a line that crosses zero may be chance"
    chart = chart_figure("B − A, in percent of A", said, interval_chart(found.differences))
    return f"{chart}{table(headings, rows, 'scores-title')}\n{missing}"


def _row(difference: Difference, confidence: float) -> tuple[str, Sequence[str], str]:
    """A line of the table."""
    low, high = difference.interval
    printed = metric_of(difference.metric).printed
    cells = (
        printed(difference.first),
        printed(difference.second),
        true_minus(printed(difference.difference, "+")),
        true_minus(f"{printed(low, '+')} to {printed(high, '+')}"),
        f"{difference.p_bootstrap:.4f}",
        f"{difference.p_randomisation:.4f}",
    )
    return difference.metric, cells, "clear" * clear(difference, confidence)


def interval_chart(differences: list[Difference]) -> str:
    """A dot and a line for each metric, on one scale: percent of the first system's score."""
    drawn = [d for d in differences if d.first > 0]
    if not drawn:
        return note("A scores 0: there is no percentage to draw.")
    parts = {d.metric: [100 * x / d.first for x in (d.interval[0], d.difference, d.interval[1])] for d in drawn}
    most = max(1e-9, *(abs(x) for values in parts.values() for x in values))
    left, right, height = 72, 350, 26
    middle = (left + right) / 2

    def place(percent: float) -> float:
        return middle + percent / most * (right - left) / 2

    rows = []
    for n, (metric, (low, value, high)) in enumerate(parts.items()):
        y = height * n + 18
        kind = "line-1" if value > 0 else "line-0"
        rows.append(
            f'<text x="0" y="{y + 4}">{metric}</text><g class="{kind}">'
            f'<line x1="{place(low):.1f}" x2="{place(high):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{place(value):.1f}" cy="{y}" r="3.5"/></g>'
            f'<text x="{right + 66}" y="{y + 4}" text-anchor="end">{_signed(value)} %</text>'
        )
    bottom = height * len(parts) + 10
    told = "; ".join(
        f"{metric} {_signed(value)} % ({_signed(low)} to {_signed(high)})"
        for metric, (low, value, high) in parts.items()
    )
    ticks = "".join(
        f'<text x="{place(at):.1f}" y="{bottom + 18}" text-anchor="middle">{_signed(at) if at else "0"}</text>'
        for at in (-most, 0, most)
    )
    return (
        f'<svg class="intervals" viewBox="0 0 {right + 66} {bottom + 26}" role="img" aria-label="{escape(told)}">'
        f'<line class="best" x1="{middle}" x2="{middle}" y1="4" y2="{bottom}"/>{"".join(rows)}{ticks}</svg>'
    )


def _images(found: Comparison) -> str:
    if not found.contrasts:
        return note("There is no image to show.")
    said = f"Where the two differ most, by the {found.ranked_by} of the image."
    return note(said) + "\n".join(_article(contrast, found.ranked_by) for contrast in found.contrasts)


def _article(contrast: Contrast, ranked_by: str) -> str:
    metric = metric_of(ranked_by)
    gain = metric.gain(contrast.first_score, contrast.second_score)
    photo = photo_of(contrast)
    image = f'<img src="{photo}" alt="Photo {escape(contrast.image_id)}" loading="lazy">' if photo else ""
    references = "".join(f'<li dir="auto">{escape(reference)}</li>' for reference in contrast.references)
    return f"""<article class="sample told{"" if photo else " bare"}">{image}<div>
<h3 class="image-id">{escape(contrast.image_id)}</h3>
{_said("A", contrast.first, metric.printed(contrast.first_score), better=gain < 0)}
{_said("B", contrast.second, metric.printed(contrast.second_score), better=gain > 0)}
<p class="label">People say</p><ul class="references">{references}</ul>
</div></article>"""


def _said(letter: str, caption: str, score: str, *, better: bool) -> str:
    shown = escape(caption) or "<i>nothing</i>"
    mark = " <b>better</b>" if better else ""
    return (
        f'<div class="said {letter.lower()}"><p class="caption"><span>{letter}</span> <bdi>{shown}</bdi></p>'
        f'<p class="facts">{score}{mark}</p></div>'
    )


def photo_of(contrast: Contrast) -> str | None:
    """The photo as a data URL of a few KB; None if its file is missing or can't be read."""
    if contrast.path is None or not contrast.path.is_file():
        return None
    try:
        image = Image.fromarray(read_image(contrast.path, at_least=PHOTO))
    except ImageError:
        return None
    image.thumbnail((PHOTO, PHOTO))
    return jpeg_uri(image)


def _method(found: Comparison) -> str:
    """How the numbers were computed, and what was left out."""
    low, high = (1 - found.confidence) / 2, (1 + found.confidence) / 2
    left_out = "".join(
        note(f"{len(images):,} images {why}; they are not compared.") for why, images in found.left_out.items()
    )
    signatures = escape("\n".join(f"{letter} {mark}" for letter, mark in zip("AB", found.signatures, strict=True)))
    return f"""<p class="note">The interval: {found.draws:,} sets of {found.images:,} images are drawn with
replacement, both systems are scored on each (CIDEr’s n-grams keep their weights from the whole set), and the
interval holds the differences from the {100 * low:g} % to the {100 * high:g} % quantile.
p, bootstrap: how many of these sets lie as far from their mean as the observed difference lies from zero (Koehn 2004).
p, swaps: how many of {found.draws:,} random swaps of the two captions of each image give a difference as large
(approximate randomisation, Noreen 1989). Seed {found.seed}. There is no correction for looking at several metrics.</p>
{left_out}<pre tabindex="0"><code>{signatures}</code></pre>"""


def _signed(percent: float) -> str:
    """With its sign; the minus is a true one."""
    return true_minus(f"{percent:+.1f}")
