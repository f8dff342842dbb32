"""Small charts as inline SVG: a line chart and a histogram, coloured by the page's CSS variables.

They are drawn for a column of about 400 pixels, so that a phone shows them one below the other at nearly
their own size. Each has an `aria-label` that says in words what it shows.
"""

import html
import math
from collections.abc import Callable, Mapping, Sequence

WIDTH, HEIGHT = 440, 250
TOP, BOTTOM, LEFT = 14, 38, 48
LABEL_APART = 15  # pixels between the labels at the lines' ends
MOST_DOTS = 40  # above that many points a line is drawn without dots
FLAT = 1e-10  # a range below that, in shares of its values or of 1, is rounding

Point = tuple[float, float]


def line_chart(
    lines: Mapping[str, Sequence[Point]],
    *,
    title: str,
    below: str,
    from_zero: bool = False,
    best: float | None = None,
) -> str:
    """Draw lines over a common axis, each labelled with its name and last value at its right end.

    Args:
        lines: name -> points (x, y), finite, by rising x; at least one point in all.
        title: what the chart shows, for screen readers.
        below: what the x axis counts.
        from_zero: whether the y axis starts at 0.
        best: the x to mark with a vertical rule.
    """
    points = [point for line in lines.values() for point in line]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    ticks = nice_ticks(min([y for _, y in points] + [0.0] * from_zero), max(y for _, y in points))
    plot_right = WIDTH - (108 if len(lines) > 1 else 56)

    def across(x: float) -> float:
        return LEFT + (plot_right - LEFT) * ((x - left) / (right - left) if right > left else 0.5)

    up = _vertical(ticks)
    parts = [_y_axis(ticks, up, plot_right)]
    parts += [
        _text(across(x), HEIGHT - BOTTOM + 18, short(x), "middle")
        for x in nice_ticks(left, right)
        if left <= x <= right
    ]
    parts.append(_text((LEFT + plot_right) / 2, HEIGHT - 3, below, "middle"))
    if best is not None:
        x = across(best)
        parts.append(f'<line class="best" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(_text(x - 5, TOP + 5, "best", "end"))
    heights = apart([up(line[-1][1]) for line in lines.values()], TOP, HEIGHT - BOTTOM)
    for number, ((name, line), height) in enumerate(zip(lines.items(), heights, strict=True)):
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line)
        label = f"{name} {short(line[-1][1])}" if len(lines) > 1 else short(line[-1][1])
        parts.append(f'<g class="line-{number}"><polyline points="{path}"/>')
        if len(line) <= MOST_DOTS:
            parts += [
                f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.6">'
                f"<title>{html.escape(name)} {short(y)} at {html.escape(below)} {short(x)}</title></circle>"
                for x, y in line
            ]
        parts.append(_text(across(line[-1][0]) + 9, height + 4, label, "start") + "</g>")
    summary = "; ".join(f"{name} from {short(line[0][1])} to {short(line[-1][1])}" for name, line in lines.items())
    return _svg(f"{title}, by {below}: {summary}.", parts)


def histogram(bars: Mapping[int, float], outline: Mapping[int, float], *, names: tuple[str, str], below: str) -> str:
    """Draw one distribution as bars and another as an outline over them.

    Args:
        bars: whole number -> share of the first distribution, 0 to 1; not empty.
        outline: the same of the second; may be empty.
        names: what the two are.
        below: what the x axis counts.
    """
    left, right = min([*bars, *outline]), max([*bars, *outline])
    ticks = nice_ticks(0.0, max([*bars.values(), *outline.values()]))
    plot_right = WIDTH - 12
    step = (plot_right - LEFT) / (right - left + 1)
    up = _vertical(ticks)
    floor = HEIGHT - BOTTOM
    parts = [_y_axis(ticks, up, plot_right, label=lambda share: f"{share * 100:g} %")]
    for n, share in bars.items():
        x, y = LEFT + (n - left + 0.12) * step, up(share)
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{step * 0.76:.1f}" height="{floor - y:.1f}" rx="1.5">'
            f"<title>{n}: {share * 100:.1f} %</title></rect>"
        )
    if outline:
        path = [f"M{LEFT},{floor}"]
        for n in range(left, right + 1):
            path.append(f"V{up(outline.get(n, 0.0)):.1f}H{LEFT + (n - left + 1) * step:.1f}")
        parts.append(f'<path class="outline" d="{"".join(path)}V{floor}"/>')
    parts += [
        _text(LEFT + (n - left + 0.5) * step, floor + 18, str(n), "middle")
        for n in range(left, right + 1)
        if n % max(1, math.ceil((right - left + 1) / 14)) == 0
    ]
    parts.append(_text((LEFT + plot_right) / 2, HEIGHT - 3, below, "middle"))
    x, y = plot_right - 118, TOP + 4
    parts.append(f'<rect x="{x}" y="{y - 5}" width="14" height="10" rx="1.5"/>')
    parts.append(_text(x + 21, y + 4, names[0], "start"))
    if outline:
        parts.append(f'<path class="outline" d="M{x},{y + 19}h14"/>')
        parts.append(_text(x + 21, y + 23, names[1], "start"))
    modes = [
        f"{name} peak at {max(of, key=lambda n: of[n])}" for name, of in zip(names, (bars, outline), strict=True) if of
    ]
    return _svg(f"Histogram by {below}: {'; '.join(modes)}.", parts)


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers at even distances, at most about `most` of them; the outer two enclose [low, high]."""
    if high - low < FLAT * max(1, abs(low), abs(high)):
        room = max(abs(low), abs(high)) / 2
        room = room if room > FLAT else 0.5
        low, high = low - room, high + room
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def short(value: float) -> str:
    """A number in as few characters as a chart needs: `0.563`, `12`, `3e−4`."""
    if value and abs(value) < 0.01:
        digits, power = f"{value:.2g}".split("e") if "e" in f"{value:.2g}" else f"{value:.1e}".split("e")
        return f"{digits.removesuffix('.0')}e{int(power)}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−") if abs(value) < 1000 else f"{value:,.0f}".replace("-", "−")


def apart(heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """Push labels away from one another, in their order, until none overlap; they stay within the plot."""
    order = sorted(range(len(heights)), key=lambda n: heights[n])
    placed = list(heights)
    limit = top
    for n in order:
        placed[n] = max(placed[n], limit)
        limit = placed[n] + LABEL_APART
    limit = bottom
    for n in reversed(order):
        placed[n] = min(placed[n], limit)
        limit = placed[n] - LABEL_APART
    return placed


def _vertical(ticks: Sequence[float]) -> Callable[[float], float]:
    low, high = ticks[0], ticks[-1]
    return lambda y: HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (y - low) / (high - low)


def _y_axis(
    ticks: Sequence[float], up: Callable[[float], float], right: float, label: Callable[[float], str] = short
) -> str:
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>'
        + _text(LEFT - 8, up(y) + 4, label(y), "end")
        for y in ticks
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _svg(label: str, parts: Sequence[str]) -> str:
    start = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(label)}">'
    return start + "".join(parts) + "</svg>"
