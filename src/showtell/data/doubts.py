"""Likely mistakes in a user's own captions: they are reported before hours of training, but never stop it."""

from collections import Counter
from collections.abc import Sequence

from showtell.data.dataset import Example
from showtell.languages import words_of

SAME = 0.2  # of the photos, with the same caption
SHORT, SHARE_SHORT = 2, 0.2  # words, and of the captions
LONG = 40  # words; recipes cut longer captions by default


def doubts(examples: Sequence[Example]) -> list[str]:
    """A sentence for each thing that users should check."""
    said = []
    texts = Counter(text for example in examples for text in dict.fromkeys(example.captions))
    text, photos = texts.most_common(1)[0]
    if photos > max(2, SAME * len(examples)):
        said.append(
            f"'{text}' is a caption of {photos:,} of {len(examples):,} photos: the model may give it to all of them."
        )
    captions = [caption for example in examples for caption in example.captions]
    lengths = [len(words_of(caption)) for caption in captions]
    if (short := sum(length <= SHORT for length in lengths)) > SHARE_SHORT * len(captions):
        said.append(f"Captions of one or two words: {short:,} of {len(captions):,}. The model will be as brief.")
    if long := sum(length > LONG for length in lengths):
        said.append(f"Captions of more than {LONG} words: {long:,}. Training cuts them (max_words in a recipe).")
    stamps: dict[str, list[Example]] = {}
    for example in examples:
        if example.path is not None:
            stamps.setdefault(example.stamp, []).append(example)
    alike = [group for stamp, group in stamps.items() if len(group) > 1 and stamp != "missing"]
    if alike:
        names = f"{alike[0][0].name} and {alike[0][1].name}"
        said.append(f"Photos that occur more than once: {len(alike):,}, such as {names}.")
    if apart := [group for group in alike if len({example.split for example in group}) > 1]:
        first = apart[0]
        said.append(
            f"Photos in more than one split: {len(apart):,}, such as {first[0].name}. Scores on them are too high."
        )
    return said
