"""A place in a document where an image's alternative text belongs."""

import re
from dataclasses import dataclass
from typing import Literal

# What HTML or Markdown could read as something other than text. In Markdown a backslash is not enough: code, formulas
# and tables still end at their mark. Both read a character reference as text.
SYNTAX = re.compile(r"[\\\[\]*_~`$|<>&\"]")


@dataclass(frozen=True)
class Place:
    """`text[start:end]` of a document, which `filled` replaces."""

    start: int
    end: int
    image: str
    """The image's address: the document's entities and backslashes are resolved, %20 is not."""
    syntax: Literal["attribute", "markdown"]

    def filled(self, alt: str) -> str:
        """What the document holds here if the image's text is `alt`."""
        escaped = SYNTAX.sub(lambda match: f"&#{ord(match[0])};", alt)
        return escaped if self.syntax == "markdown" else f' alt="{escaped}"'


@dataclass(frozen=True)
class Skipped:
    """An image without alternative text that is skipped, and why."""

    start: int
    image: str
    reason: str
