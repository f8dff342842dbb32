"""A place in a document where an image's alternative text belongs."""

import html
import re
from dataclasses import dataclass
from typing import Literal

# What Markdown could read as something else than a letter; any ASCII punctuation may have a backslash before it.
MARKDOWN_SYNTAX = re.compile(r"([\\\[\]`*_<>&|~$!])")


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
        if self.syntax == "markdown":
            return MARKDOWN_SYNTAX.sub(r"\\\1", alt)
        # In a Markdown table a bar would end the cell, in quotes too.
        return f' alt="{html.escape(alt).replace("|", "&#124;")}"'


@dataclass(frozen=True)
class Skipped:
    """An image without alternative text that is left alone, and why."""

    start: int
    image: str
    reason: str
