"""How long scoring takes: each metric, the tokens, and the reward of self-critical training.

    python benchmarks/metrics.py FOLDER [--official]

FOLDER holds predictions.json (COCO results) and references.json (COCO annotations). `--official` runs the
official code beside ours: pycocoevalcap and Java must be installed. The reward is measured on 50 images x 5
samples beside the usual way, a loop over strings and dictionaries with given document frequencies (ours, and
leaner than most), and with `--official` beside pycocoevalcap's scorer. Each time is the best of a few runs;
METEOR's includes everything but building its index.
"""

import argparse
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from showtell.metrics import bleu, cider_d, meteor, rouge_l, score
from showtell.metrics.cider_reward import CiderReward
from showtell.metrics.official.meteor_data import load_meteor_data
from showtell.metrics.official.ptb import tokenise
from showtell.tokenizer import Tokenizer, TokenizerConfig

IMAGES, SAMPLES = 50, 5


def best(run: Callable[[], Any], times: int = 3) -> float:
    """The time of the fastest of several runs, in seconds."""
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def read(folder: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    predictions = {
        str(row["image_id"]): row["caption"] for row in json.loads((folder / "predictions.json").read_text("utf-8"))
    }
    annotations = json.loads((folder / "references.json").read_text("utf-8"))
    references: dict[str, list[str]] = {str(image["id"]): [] for image in annotations["images"]}
    for row in annotations["annotations"]:
        references[str(row["image_id"])].append(row["caption"])
    return predictions, {image: captions for image, captions in references.items() if image in predictions}


class PlainReward:
    """CIDEr-D of one caption at a time, on strings, with given document frequencies."""

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        self.frequency = Counter(g for of_image in references for g in {g for r in of_image for g in self.grams(r)})
        self.log_images = math.log(len(references))

    @staticmethod
    def grams(caption: str) -> Counter[tuple[str, ...]]:
        words = caption.split()
        return Counter(tuple(words[i : i + n]) for n in range(1, 5) for i in range(len(words) - n + 1))

    def vector(self, caption: str) -> tuple[list[dict[tuple[str, ...], float]], list[float], int]:
        vectors: list[dict[tuple[str, ...], float]] = [{} for _ in range(4)]
        norms, length = [0.0] * 4, 0
        for gram, times in self.grams(caption).items():
            weight = times * (self.log_images - math.log(max(1.0, self.frequency[gram])))
            vectors[len(gram) - 1][gram] = weight
            norms[len(gram) - 1] += weight**2
            length += times if len(gram) == 2 else 0
        return vectors, [math.sqrt(norm) for norm in norms], length

    def __call__(self, caption: str, references: Sequence[str]) -> float:
        ours, our_norms, our_length = self.vector(caption)
        total = 0.0
        for reference in references:
            theirs, norms, length = self.vector(reference)
            for n in range(4):
                dot = sum(min(w, theirs[n].get(g, 0.0)) * theirs[n].get(g, 0.0) for g, w in ours[n].items())
                if our_norms[n] and norms[n]:
                    dot /= our_norms[n] * norms[n]
                total += dot * math.exp(-((our_length - length) ** 2) / 72) / 4
        return 10 * total / len(references)


def print_reward(references: dict[str, list[str]], official: bool) -> None:
    """The times of our reward and of others for 50 x 5 samples."""
    tokenizer = Tokenizer.train([c for of in references.values() for c in of], TokenizerConfig(min_count=1))
    ids = [tokenizer.encode_batch(captions) for captions in references.values()]
    draw = random.Random(0)
    images = draw.sample(range(len(ids)), min(IMAGES, len(ids)))
    samples = [[draw.choice(ids[image])[1:] for _ in range(SAMPLES)] for image in images]
    for sample in (s for of_image in samples for s in of_image):
        for place in range(len(sample) - 1):
            if draw.random() < 1 / 3:
                sample[place] = draw.randrange(4, len(tokenizer))
    width = max(len(s) for of_image in samples for s in of_image)
    tokens = np.array([[s + [0] * (width - len(s)) for s in of_image] for of_image in samples])

    ours = CiderReward(ids)
    strings = [[" ".join(map(str, r[1:])) for r in of_image] for of_image in ids]
    plain = PlainReward(strings)

    def plain_way() -> list[list[float]]:
        return [
            [plain(" ".join(map(str, s)), strings[image]) for s in of_image]
            for image, of_image in zip(images, samples, strict=True)
        ]

    difference = float(np.abs(ours(images, tokens) - np.array(plain_way())).max())
    seconds = best(lambda: ours(images, tokens), 20)
    per_thousand = seconds * 1e6 / (len(images) * SAMPLES)
    print(f"{'reward':<12}{seconds * 1e3:8.2f} ms  {per_thousand:.1f} ms per 1,000 samples")
    plain_seconds = best(plain_way)
    ratio = f"{plain_seconds / seconds:.0f} x, largest difference {difference:.0e}"
    print(f"{'plain':<12}{plain_seconds * 1e3:8.2f} ms  {ratio}")
    if official:
        from pycocoevalcap.cider.cider_scorer import CiderScorer

        def official_way() -> None:
            scorer = CiderScorer(n=4, sigma=6.0)
            for image, of_image in zip(images, samples, strict=True):
                for sample in of_image:
                    scorer += (" ".join(map(str, sample)), strings[image])
            scorer.compute_score()

        official_time = best(official_way)
        print(f"{'official':<12}{official_time * 1e3:8.2f} ms  {official_time / seconds:.0f} x")


def official_seconds(predictions: dict[str, str], references: dict[str, list[str]]) -> float:
    """The official code, all but SPICE, on the same captions."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    begin = time.perf_counter()
    tokenizer = PTBTokenizer()
    gold = tokenizer.tokenize({i: [{"caption": c} for c in captions] for i, captions in references.items()})
    said = tokenizer.tokenize({i: [{"caption": predictions[i]}] for i in references})
    for metric in (Bleu(4), Meteor(), Rouge(), Cider()):
        metric.compute_score(gold, said)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--official", action="store_true")
    arguments = parser.parse_args()
    predictions, references = read(arguments.folder)
    load_meteor_data()
    captions = [c for of_image in references.values() for c in of_image]
    candidates = tokenise([predictions[i] for i in references])
    flat = iter(tokenise(captions))
    gold = [[next(flat) for _ in of_image] for of_image in references.values()]

    print(f"{len(references)} images, {len(captions)} references\n")
    seconds = best(lambda: tokenise(captions))
    print(f"{'tokens':<12}{seconds:8.3f} s   {len(captions) / seconds:,.0f} captions/s")
    for metric in (bleu, meteor, rouge_l, cider_d):
        print(f"{metric.__name__:<12}{best(lambda metric=metric: metric(candidates, gold)):8.3f} s")  # type: ignore[misc]
    whole = best(lambda: score(predictions, references))
    print(f"{'all of score':<12}{whole:8.3f} s")
    if arguments.official:
        official = official_seconds(predictions, references)
        print(f"{'official':<12}{official:8.3f} s   {official / whole:.1f} x")
    print_reward(references, arguments.official)


if __name__ == "__main__":
    main()
