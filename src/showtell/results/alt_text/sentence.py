"""A caption as alternative text: a sentence that does not say that the image is an image."""

import re

# Screen readers say "image" themselves.
IMAGE_OF = re.compile(
    r"^(?:(?:this|here|there) is )?(?:(?:an?|the) )?(?:image|picture|photo|photograph) (?:of|showing) (?=\S)",
    re.I,
)
SPACE_BEFORE_MARK = re.compile(r"\s+([.,;:!?]|'s\b|n't\b)")


def sentence(caption: str) -> str:
    """The caption with a capital letter first and a full stop last; empty if it says nothing."""
    text = IMAGE_OF.sub("", " ".join(caption.split()))
    text = SPACE_BEFORE_MARK.sub(r"\1", text)
    if not any(character.isalnum() for character in text):
        return ""
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else text.rstrip(",;:- ") + "."
