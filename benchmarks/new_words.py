"""How many words a model has learnt that its start lacked.

    python benchmarks/new_words.py START MODEL SPEC JUDGED SPLIT


Takes the 200 words that START lacks and that are most frequent in the training captions of SPEC, and counts where
MODEL's captions of other photos (the SPLIT of the data set JUDGED) use them: where most people did, and where nobody
did.
"""

import sys
from collections import Counter

from showtell import load
from showtell.bundle import load_bundle
from showtell.data import load as load_data

MOST = 200


def new_words(start: str, spec: str) -> list[str]:
    """The words of the training captions that the start lacks, most frequent first."""
    known = load_bundle(start).tokenizer
    captions = [caption for example in load_data(spec).split("train") for caption in example.captions]
    counts = Counter(word for caption in captions for word in known.words(caption) if known.id_of(word) is None)
    return [word for word, _ in counts.most_common(MOST)]


def main(start: str, model: str, spec: str, judged: str, split: str) -> None:
    words = set(new_words(start, spec))
    captioner, examples = load(model), load_data(judged).split(split)
    meant, said, invented, used = 0, 0, 0, Counter[str]()
    for example, [caption] in zip(examples, captioner([example.read() for example in examples]), strict=True):
        people = [set(captioner.tokenizer.words(text)) & words for text in example.captions]
        own = set(caption.words) & words
        agreed = {word for word in set().union(*people) if sum(word in of_one for of_one in people) > len(people) / 2}
        meant, said = meant + len(agreed), said + len(agreed & own)
        invented += len(own - set().union(*people))
        used.update(own)
    print(f"{len(words)} words that {start} lacks; {len(examples)} photos")
    print(f"said, of those that most people said of a photo: {said} of {meant} ({said / max(1, meant):.0%})")
    wrong = invented / max(1, used.total())
    print(f"said of a photo of which nobody said them: {invented} of {used.total()} ({wrong:.0%})")
    print(f"different ones said: {len(used)}: {', '.join(word for word, _ in used.most_common(12))}")


if __name__ == "__main__":
    main(*sys.argv[1:6])
