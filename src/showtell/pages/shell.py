"""What all pages share: head, style, header and footer, and small pieces of HTML.

A page holds its style and pictures itself, follows the reader's dark mode and lets the browser make no request.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources

from showtell import __version__

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page_begin(
    name: str, kind: str, summary: str, *, heading: str = "", style: str = "", meta: str = "", policy: str = POLICY
) -> str:
    """A page up to its content.

    Args:
        name: what the page is about, plain text.
        kind: the kind of page, for the line above the heading: ``"Training report"``; plain text.
        summary: HTML below the heading.
        heading: HTML; the name by default.
        style: CSS, in addition to that of all pages.
        meta: a line of the head.
        policy: what the page may load and run, as a Content-Security-Policy.
    """
    css = resources.files("showtell.pages").joinpath("page.css").read_text("utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{meta}<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="color-scheme" content="light dark">
<title>{escape(name)}: {kind.lower()}</title>
<style>
{css}{style}</style>
</head>
<body>
<header>
<p class="eyebrow">{kind}</p>
<h1>{heading or escape(name)}</h1>
{summary}
</header>
<main>
"""


def page_end(made: str = "") -> str:
    """The page after its content; `made` begins the footer."""
    return f"""</main>
<footer><p>{made}Written by showtell {__version__}. This page is one file and loads nothing.</p></footer>
</body>
</html>
"""


def sections_page(name: str, kind: str, summary: str, sections: Mapping[str, str], *, heading: str = "") -> str:
    """A whole page of sections, by their titles, with links to them in its header."""
    links = "".join(f'<li><a href="#{title.lower()}">{title}</a></li>' for title in sections)
    body = "\n".join(
        f'<section id="{title.lower()}" aria-labelledby="{title.lower()}-title">\n'
        f'<h2 id="{title.lower()}-title">{title}</h2>\n{content}\n</section>'
        for title, content in sections.items()
    )
    summary += f'\n<nav aria-label="Sections"><ul>{links}</ul></nav>'
    return f"{page_begin(name, kind, summary, heading=heading)}{body}\n{page_end()}"


def lead(text: str) -> str:
    """The sentence below the heading."""
    return f'<p class="lead">{escape(text)}</p>'


def note(text: str) -> str:
    """A paragraph of plain text; nothing if it is empty."""
    return f'<p class="note">{escape(text)}</p>' if text else ""


def figures(values: Mapping[str, str]) -> str:
    """Large numbers by their labels."""
    items = "".join(f"<div><dt>{label}</dt><dd>{figure}</dd></div>" for label, figure in values.items())
    return f'<dl class="figures">{items}</dl>'


def chart_figure(title: str, subtitle: str, chart: str) -> str:
    """A chart with its caption."""
    return f'<figure class="chart"><figcaption>{title}<span>{subtitle}</span></figcaption>{chart}</figure>\n'


def table(columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str], str]], labelled_by: str) -> str:
    """A table that scrolls if it is too wide; each row is its heading, its other cells, and its mark, if any.

    Args:
        columns: headings, plain text.
        rows: headings and cells, plain text; a row with a mark stands out.
        labelled_by: the id of the title.
    """
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "\n".join(
        ('<tr class="best">' if mark else "<tr>")
        + f'<th scope="row">{head}{f"<span>{mark}</span>" if mark else ""}</th>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
        for head, cells, mark in rows
    )
    return f"""<div class="scroll" role="region" aria-labelledby="{labelled_by}" tabindex="0">
<table>
<thead><tr>{heads}</tr></thead>
<tbody>
{body}
</tbody>
</table>
</div>"""


def true_minus(number: str) -> str:
    """The written number with a typographic minus."""
    return number.replace("-", "−")
