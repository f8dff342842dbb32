"""`<img>` elements without alternative text in HTML.

The standard library's parser says where a tag begins and what its source is; a place is right after the tag's name,
or it is the alt attribute itself.
"""

import re
from contextlib import suppress
from html.parser import HTMLParser
from urllib.parse import urljoin

from showtell.results.alt_text.place import Place, Skipped

# Their content is text, whatever it looks like. The parser knows that of script and style; newer ones know more.
TEXT_ONLY = frozenset(("textarea", "title", "xmp", "iframe", "noembed", "noframes"))
# One attribute as browsers read it: name, value with its quotes.
ATTRIBUTE = re.compile(r"""[\s/]*(?P<name>[^\s/>][^\s/>=]*)(?:\s*=\s*(?:"[^"]*"|'[^']*'|[^\s>]*))?""")
TAG_NAME = len("<img")


def html_places(text: str, *, decorative: bool = False) -> tuple[list[Place], list[Skipped], int]:
    """Where the text of images is missing, in order, the images that are skipped, and how many images there are.

    Args:
        text: the document.
        decorative: whether `alt=""`, which marks an image as decoration, counts as missing text too.
    """
    finder = _Finder(text, decorative)
    finder.feed(text)
    finder.close()
    return finder.places, finder.skipped, finder.images


class _Finder(HTMLParser):
    def __init__(self, text: str, decorative: bool) -> None:
        super().__init__()
        self._decorative = decorative
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]  # as the parser counts lines
        self.places: list[Place] = []
        self.skipped: list[Skipped] = []
        self.images = 0
        self._base: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Handle a tag; if an attribute is repeated, the first one counts."""
        values = {name: value or "" for name, value in reversed(attrs)}
        if tag == "img":
            self._see_image(values)
        elif tag == "base" and self._base is None and "href" in values:
            self._base = values["href"].strip()
        elif tag in TEXT_ONLY:
            self.set_cdata_mode(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """`<img/>` is `<img>`. To browsers, `<textarea/>` is `<textarea>` too, but not to people who write XHTML."""
        if tag not in TEXT_ONLY:
            self.handle_starttag(tag, attrs)

    def parse_html_declaration(self, i: int) -> int:
        """`<![if IE]>` is a comment in HTML; the base class takes it for SGML, and some Pythons stumble over it."""
        if self.rawdata.startswith("<![", i):
            return self.parse_bogus_comment(i)
        return super().parse_html_declaration(i)

    def _see_image(self, values: dict[str, str]) -> None:
        self.images += 1
        if values.get("alt", "").strip() or ("alt" in values and not self._decorative) or is_named_or_hidden(values):
            return
        line, column = self.getpos()
        start = self._line_starts[line - 1] + column
        image = values.get("src", "").strip()
        if not image:
            reason = "has srcset and no src" if "srcset" in values else "has no src"
            self.skipped.append(Skipped(start, values.get("srcset", "<img>"), reason))
            return
        if self._base:
            with suppress(ValueError):
                image = urljoin(self._base, image)
        source = self.get_starttag_text() or ""
        begin, end = alt_attribute(source) if "alt" in values else (TAG_NAME, TAG_NAME)
        self.places.append(Place(start + begin, start + end, image, "attribute"))


def is_named_or_hidden(values: dict[str, str]) -> bool:
    """Whether screen readers have another name for the image, or skip it."""
    named = any(values.get(name, "").strip() for name in ("aria-label", "aria-labelledby"))
    hidden = values.get("aria-hidden", "").strip().lower() == "true"
    return named or hidden or values.get("role", "").strip().lower() in ("presentation", "none")


def alt_attribute(tag: str) -> tuple[int, int]:
    """Where the alt attribute is in a tag's source, including the white space before it.

    If none is found (parsers disagree about stray quotes), it is right after the tag's name: the first of two counts.
    """
    for attribute in ATTRIBUTE.finditer(tag, TAG_NAME):
        if attribute["name"].lower() == "alt":
            return attribute.start(), attribute.end()
    return TAG_NAME, TAG_NAME
