"""A place in a document where an image's alternative text belongs."""

import re
from dataclasses import dataclass
from typing import Literal

# What HTML or Markdown could read as something else than text. A backslash before it is not enough in Markdown: code,
# formulas and tables end at their mark all the same. A character reference is read as text in both.
SYNTAX = re.compile(r"[\\\[\]*_~`$|<>&\"]")


@dataclass(frozen=True)
class Place:
    """`text[start:end]` of a document, which `filled` replaces."""

    start: int
    end: int
    image: str
    """The image's address, as the document means it: entities and backslashes are resolved, %20 is not."""
    syntax: Literal["attribute", "markdown"]

    def filled(self, alt: str) -> str:
        """What the document says here when the image's text is `alt`."""
        escaped = SYNTAX.sub(lambda match: f"&#{ord(match[0])};", alt)
        return escaped if self.syntax == "markdown" else f' alt="{escaped}"'


@dataclass(frozen=True)
class Skipped:
    """An image without alternative text that is left alone, and why."""

    start: int
    image: str
    reason: str
