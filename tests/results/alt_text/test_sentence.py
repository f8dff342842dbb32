"""Captions as alternative text."""

import pytest

from showtell.results.alt_text import sentence


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("a dog runs on grass", "A dog runs on grass."),
        ("a picture of two dogs", "Two dogs."),
        ("this is an image of a cat .", "A cat."),
        ("a photo showing the sea", "The sea."),
        ("a man takes a picture of a dog", "A man takes a picture of a dog."),
        ("a picture of", "A picture of."),
        ("the boy 's dog , which does n't bark !", "The boy's dog, which doesn't bark!"),
        ("  élan\n vital, ", "Élan vital."),
        ("", ""),
        (" . ", ""),
    ],
)
def test_sentence(caption, text):
    assert sentence(caption) == text
    assert sentence(text) == text
