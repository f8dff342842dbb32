"""What models say of photos, as a table to learn from: sequence-level distillation (Kim and Rush 2016), self-training.

    python -m shipping.said said.jsonl --model flickr8k --data flickr8k:DIR
    python -m shipping.said agreed.jsonl --model A --model B --model C --photos LIST --agree 0.5

The first writes the training photos of a data set with people's captions and the model's, and its dev photos with
people's. The second writes photos without captions (LIST has one on each line) with what the models say: those half of
the photos on which the models agree most.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from showtell import load
from showtell.data import Example
from showtell.data import load as load_data

NUM = 5  # captions of each photo by the first model


def said(
    out: Annotated[Path, typer.Argument(metavar="TABLE", help="The table to write: JSON lines.")],
    models: Annotated[list[str], typer.Option("--model", "-m", metavar="MODEL", help="Who says it; the first leads.")],
    data: Annotated[str | None, typer.Option("--data", "-d", metavar="SPEC", help="Captioned photos.")] = None,
    photos: Annotated[Path | None, typer.Option("--photos", metavar="LIST", help="Or photos without captions.")] = None,
    agree: Annotated[float, typer.Option("--agree", metavar="X", help="The share of the photos to keep.")] = 1.0,
) -> None:
    """Write a table of photos and captions."""
    people: dict[str, tuple[str, ...]] = {}
    dev: list[Example] = []
    if data is not None:
        dataset = load_data(data)
        people = {str(photo.path): photo.captions for photo in dataset.split("train")}
        dev = dataset.split("dev")
    elif photos is not None:
        people = dict.fromkeys(photos.read_text(encoding="utf-8").splitlines(), ())
    first, *others = models
    theirs = list(captions(first, people, num=NUM))
    best = [[texts[0] for texts in theirs], *([texts[0] for texts in captions(other, people)] for other in others)]
    agreement = [np.mean([overlap(a, b) for a, b in combinations(of, 2)] or [1.0]) for of in zip(*best, strict=True)]
    kept = set(np.argsort(agreement, kind="stable")[::-1][: round(agree * len(people))].tolist())
    rows = [
        (photo, dict.fromkeys([*own, *(of_model[place] for of_model in best), *theirs[place]]), "train")
        for place, (photo, own) in enumerate(people.items())
        if place in kept
    ]
    rows += [(str(photo.path), dict.fromkeys(photo.captions), "dev") for photo in dev]
    lines = [
        json.dumps({"image": str(Path(photo).resolve()), "captions": list(texts), "split": split})
        for photo, texts, split in rows
    ]
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    typer.echo(f"{out}: {len(kept):,} of {len(people):,} photos, with {len(dev):,} dev photos")


def captions(model: str, photos: Iterable[str], **search: Any) -> Iterator[list[str]]:
    """What a model says of each photo, best first.

    Raises:
        ShowtellError: a photo can't be read.
    """
    for found in load(model, threads=1).stream(photos, **search):
        if isinstance(found, Exception):
            raise found
        yield [caption.text for caption in found]


def overlap(first: str, second: str) -> float:
    """The share of the n-grams (1 to 4) of the longer caption that both have, 0..1: the mean over n."""
    shares = []
    for n in range(1, 5):
        a, b = (Counter(zip(*(text.split()[k:] for k in range(n)), strict=False)) for text in (first, second))
        shares.append((a & b).total() / max(a.total(), b.total(), 1))
    return float(np.mean(shares))


if __name__ == "__main__":
    typer.run(said)
