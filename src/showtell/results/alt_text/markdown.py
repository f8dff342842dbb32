"""Images without alternative text in Markdown: `![](dog.jpg)`, `![][dog]`, and `<img>` in its HTML.

pyromark (pulldown-cmark) says where in the source there are images, code and HTML.
"""

import re
from itertools import accumulate
from typing import Any

from showtell.errors import needs
from showtell.results.alt_text.html import html_places
from showtell.results.alt_text.place import Place, Skipped

NO_TEXT = re.compile(r"!\[(\s*)\]")
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
NOT_LINE_BREAK = re.compile(r"[^\r\n]")


def markdown_places(text: str, *, decorative: bool = False) -> tuple[list[Place], list[Skipped], int]:
    """Where the text of images is missing, in order, the images that are skipped, and how many images there are.

    Args:
        text: the document.
        decorative: as in `html_places`, for HTML in the document.

    Raises:
        MissingExtraError: pyromark is not installed.
    """
    places: list[Place] = []
    html = list(NOT_LINE_BREAK.sub(" ", text))  # the document with everything but its HTML blanked out
    images = 0
    open_image: tuple[int, str] | None = None
    for event, start, end in _events(text):
        match event:
            case {"Html": _} | {"InlineHtml": _}:
                html[start:end] = text[start:end]
            case {"Start": {"Image": {"dest_url": image}}}:
                open_image = start, image
                images += 1
            case {"End": "Image"} if open_image is not None:
                start, image = open_image
                blank = NO_TEXT.match(text, start)
                if blank and image:
                    places.append(Place(*blank.span(1), image, "markdown"))
                open_image = None
    in_html, skipped, images_in_html = html_places("".join(html), decorative=decorative)
    return sorted((*places, *in_html), key=lambda place: place.start), skipped, images + images_in_html


def _events(text: str) -> list[tuple[Any, int, int]]:
    """What the parser sees, each with its start and end in `text`."""
    with needs("alt", "Reading Markdown"):
        from pyromark import Options, events_with_range
    options = (
        Options.ENABLE_TABLES
        | Options.ENABLE_FOOTNOTES
        | Options.ENABLE_MATH
        | Options.ENABLE_YAML_STYLE_METADATA_BLOCKS
        | Options.ENABLE_PLUSES_DELIMITED_METADATA_BLOCKS
    )
    whole = LONE_SURROGATE.sub("?", text)  # bytes that are not UTF-8 mean nothing to Markdown
    # The parser counts bytes: for each byte that begins a character, the character's number.
    ends = accumulate(len(character.encode()) for character in whole)
    character_at = {0: 0} | {byte: number for number, byte in enumerate(ends, 1)}
    return [
        (event, character_at[place["start"]], character_at[place["end"]])
        for event, place in events_with_range(whole, options=options)
    ]
