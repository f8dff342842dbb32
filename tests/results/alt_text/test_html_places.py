"""Which `<img>` elements lack alternative text, and where exactly it goes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.results.alt_text.html import html_places


def filled(text: str, alt: str = "T", **options) -> str:
    """The document with `alt` in every place."""
    for place in reversed(html_places(text, **options)[0]):
        text = text[: place.start] + place.filled(alt) + text[place.end :]
    return text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<img src=a.jpg>", '<img alt="T" src=a.jpg>'),
        ("<IMG\r\n  SRC='a.jpg'/>", "<IMG alt=\"T\"\r\n  SRC='a.jpg'/>"),
        ("<img src=a.jpg/>", '<img alt="T" src=a.jpg/>'),  # behind an unquoted value the slash is part of it
        ("<img title='an alt=\"x\" > here' src=a>", '<img alt="T" title=\'an alt="x" > here\' src=a>'),
        ("<img data-alt='x' src=a>", "<img alt=\"T\" data-alt='x' src=a>"),
        ("é\n\u2028<p>\x0b\x0c\n€ <img src=a>", 'é\n\u2028<p>\x0b\x0c\n€ <img alt="T" src=a>'),  # lines end in \n only
        ("<picture><source srcset=x.webp><img src=a></picture>", None),
        ("<script>if (1<2) '<img>'</script><img src=a>", "<script>if (1<2) '<img>'</script><img alt=\"T\" src=a>"),
        ("<![if IE]><img src=a><![endif]>", '<![if IE]><img alt="T" src=a><![endif]>'),
        ("<![CDATA x <img src=a>", "<![CDATA x <img src=a>"),  # a comment up to >, and the img is in it
        ("<textarea/><img src=a>", '<textarea/><img alt="T" src=a>'),
        ("a < b <img src=a> & c", 'a < b <img alt="T" src=a> & c'),
    ],
)
def test_the_place_is_behind_the_name(before, after):
    """Wherever the attribute went but there, an unquoted value or a slash could swallow it."""
    assert filled(before) == (after or before.replace("<img", '<img alt="T"'))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<img src=a alt=dog>",
        "<img src=a ALT='dog'>",
        '<img src=a alt="">',
        "<img src=a alt>",
        "<img alt=x src=a alt=''>",  # of two attributes the first counts
        "<img src=a role=presentation>",
        "<img src=a aria-hidden=true>",
        "<img src=a aria-label='a dog'>",
        "<!-- <img src=a> -->",
        "<script><img src=a></script>",
        "<style><img src=a></style>",
        "<textarea><img src=a></textarea>",
        "<title><img src=a></title>",
        "<noframes><img src=a></noframes>",
        "&lt;img src=a&gt;",
        "<image src=a>",
        "<p title='<img src=a>'>",
        "<img src=a",  # cut off
    ],
)
def test_left_alone(text):
    assert html_places(text)[0] == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('<img src=a alt="">', '<img src=a alt="T">'),
        ("<img alt src=a>", '<img alt="T" src=a>'),
        ("<img title=' alt ' alt = '' src=a>", "<img title=' alt ' alt=\"T\" src=a>"),
        ("<img src='a'alt=''>", "<img src='a' alt=\"T\">"),
        ('<img src=a alt=" "/>', '<img src=a alt="T"/>'),
    ],
)
def test_decorative_images_when_told(before, after):
    assert filled(before) == before
    assert filled(before, decorative=True) == after


def test_addresses_are_what_they_mean():
    """`&amp;` in an address is `&`, and a base changes where it leads."""
    text = '<base href="img/"><img src=" a&amp;b%20c.jpg "><img src=../d.jpg>'
    assert [place.image for place in html_places(text)[0]] == ["img/a&b%20c.jpg", "d.jpg"]


def test_images_without_an_address():
    _, skipped, images = html_places("<img><img srcset='a.jpg 2x'><img src=a alt=b>")
    assert images == 3
    assert [(place.image, place.reason) for place in skipped] == [
        ("<img>", "has no src"),
        ("a.jpg 2x", "has srcset and no src"),
    ]


TAGS = ("<img src=a>", "<img src='b' alt=''>", "<img alt=x src=c>", "<p>")
TEXT_TAGS = ("<script>", "</script>", "<textarea>", "</textarea>", "<textarea/>")
SOUP = ("<!--", "-->", "<![", "<!", "]]>", "<?", "<", ">", "'", '"', "/", "=", "alt", "&amp;", "é", "\0")
PIECES = st.sampled_from((*TAGS, *TEXT_TAGS, *SOUP, " ", "\n", "\r\n"))


@given(st.lists(PIECES, max_size=25).map("".join), st.booleans(), st.text(min_size=1).filter(str.strip))
def test_twice_is_once_and_nothing_else_changes(text, decorative, alt):
    """On any tag soup: no error, what is taken out again leaves the document, and nothing is left to do."""
    places, _, _ = html_places(text, decorative=decorative)
    once = filled(text, alt, decorative=decorative)
    assert html_places(once, decorative=decorative)[0] == []
    assert len(once) == len(text) + sum(len(place.filled(alt)) - (place.end - place.start) for place in places)
    if not places:
        assert once == text
