"""Which images of a Markdown document lack text, and where exactly it goes."""

import functools
import operator
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.errors import MissingExtraError
from showtell.results.alt_text.markdown import markdown_places

pyromark = pytest.importorskip("pyromark", reason="the extra 'alt' is not installed")


def filled(text: str, alt: str = "T", **options) -> str:
    """The document with `alt` in every place."""
    for place in reversed(markdown_places(text, **options)[0]):
        text = text[: place.start] + place.filled(alt) + text[place.end :]
    return text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("![](a.jpg)", "![T](a.jpg)"),
        ('é€😀 ![ ](<a b.jpg> "title") x', 'é€😀 ![T](<a b.jpg> "title") x'),
        ("![][dog]\r\n\r\n[dog]: a.jpg\r\n", "![T][dog]\r\n\r\n[dog]: a.jpg\r\n"),
        ("[![](a.jpg)](b.html)", "[![T](a.jpg)](b.html)"),
        ("> - text\n>   ![](a.jpg)", "> - text\n>   ![T](a.jpg)"),
        ("|x|\n|-|\n|![](a.jpg)|\n", "|x|\n|-|\n|![T](a.jpg)|\n"),
        ("text <img src=a> text", 'text <img alt="T" src=a> text'),
        ("> <div>\n> <img\n>  src=a>\n> </div>", '> <div>\n> <img alt="T"\n>  src=a>\n> </div>'),
        ("---\ntitle: ![](x)\n---\n![](a)", "---\ntitle: ![](x)\n---\n![T](a)"),
        ("\udce9\udcff ![](a.jpg)", "\udce9\udcff ![T](a.jpg)"),  # Latin-1 read as UTF-8
        ("\ufeff![](a.jpg)\r![](b.jpg)", "\ufeff![T](a.jpg)\r![T](b.jpg)"),
    ],
)
def test_text_goes_where_it_belongs(before, after):
    assert filled(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "![dog](a.jpg)",
        "![dog][]\n\n[dog]: a.jpg",
        "![][nowhere]",
        "![]()",
        "`![](a)` and ``<img src=a>``",
        "```\n![](a)\n<img src=a>\n```",
        "    ![](a)\n    <img src=a>",
        "<!-- ![](a)\n<img src=a> -->",
        "<div>\n![](a)\n</div>",  # Markdown does not look into HTML
        "\\![](a)",
        "!\\[](a)",
        '<img src=a alt="">',
        "![*a*](b)",
        "$![](a)$",
    ],
)
def test_left_alone(text):
    assert markdown_places(text)[0] == []


def test_addresses():
    text = "![](a%20b.jpg) ![](<c d.jpg>) ![](e\\_f.jpg) ![][r]\n\n[R]: g&amp;h.jpg 'title'"
    assert [place.image for place in markdown_places(text)[0]] == ["a%20b.jpg", "c d.jpg", "e_f.jpg", "g&h.jpg"]


def test_pyromark_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyromark", None)
    with pytest.raises(MissingExtraError, match=r"Reading Markdown needs .* pip install 'showtell\[alt\]'"):
        markdown_places("")


IMAGES = ("![](a)", "![ ][r]", "\n\n[r]: b\n", "<img src=c>")
BLOCKS = ("```\n", "    ", "\n", "\r\n", "\n\n", "> ", "- ", "---\n", "|a|\n|-|\n|", "\t")
SPANS = ("`", "*", "[", "](x)", "\\", "$", "<", "&amp;", "é", "😀", "\0", "\udcff")
HTML = ("<!--", "-->", "<div>", "</div>")
PIECES = st.sampled_from((*IMAGES, *BLOCKS, *SPANS, *HTML))
ALT = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1, max_size=8)


@given(st.lists(PIECES, max_size=20).map("".join), ALT)
def test_twice_is_once_and_nothing_else_changes(text, alt):
    """On any document and with any text: no error, no place twice, and nothing is left to do."""
    places, _, images = markdown_places(text)
    assert images >= len(places)
    once = filled(text, alt)
    assert markdown_places(once)[0] == []
    assert len(once) == len(text) + sum(len(place.filled(alt)) - (place.end - place.start) for place in places)
    if not places:
        assert once == text


@given(st.lists(PIECES.filter("\udcff".__ne__), max_size=20).map("".join), ALT)
def test_the_rendered_page_differs_in_alt_only(text, alt):
    """Whatever the text holds, it opens no link, closes no code span and ends no table cell."""
    names = ("TABLES", "FOOTNOTES", "MATH", "YAML_STYLE_METADATA_BLOCKS", "PLUSES_DELIMITED_METADATA_BLOCKS")
    options = functools.reduce(operator.or_, (getattr(pyromark.Options, f"ENABLE_{name}") for name in names))
    before, after = (pyromark.html(document, options=options) for document in (text, filled(text, alt)))
    without_alt = re.compile(r' alt="[^"]*"')
    assert without_alt.sub("", after) == without_alt.sub("", before)
