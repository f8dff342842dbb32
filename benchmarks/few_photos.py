"""Training on few photos of your own: `python benchmarks/few_photos.py SPEC START OUT.svg [COUNT ...]`.

Sets 100 photos of the train split that have 4 captions or more aside for evaluation, runs `showtell train` on 20, 80,
320 and 1,000 others, from START and from fresh weights, and draws the CIDEr on those 100. Takes hours on two cores.
"""

import csv
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from showtell import load
from showtell.cli import main as command_line
from showtell.data import Example
from showtell.data import load as load_data
from showtell.metrics import score

JUDGES, CAPTIONS = 100, 4
COUNTS = (20, 80, 320, 1_000)


def written(examples: Sequence[Example], table: Path) -> Path:
    with table.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        rows.writerows((Path(e.path).resolve(), caption) for e in examples if e.path for caption in e.captions)
    return table


def cider(model: str, examples: Sequence[Example]) -> float:
    captions = load(model)([example.read() for example in examples])
    said = {example.image_id: caption.text for example, [caption] in zip(examples, captions, strict=True)}
    return 100 * score(said, {e.image_id: e.captions for e in examples}, metrics=["CIDEr"]).scores["CIDEr"]


def measured(spec: str, start: str, counts: Sequence[int], folder: Path) -> tuple[float, list[tuple[float, float]]]:
    """The start's CIDEr; for each count, the CIDEr of the fine-tuned model and of the one from fresh weights."""
    examples = [example for example in load_data(spec).split("train") if example.path is not None]
    random.Random(0).shuffle(examples)
    judges = [example for example in examples if len(example.captions) >= CAPTIONS][:JUDGES]
    others = sorted((e for e in examples if e not in judges), key=lambda e: len(e.captions) < CAPTIONS)
    found = []
    for count in counts:
        table = written(others[:count], folder / f"own{count}.csv")
        runs = [folder / f"{name}-{count}" for name in ("tuned", "fresh")]
        for run, begun in zip(runs, (start, "none"), strict=True):
            if command_line(["train", str(table), "--from", begun, "--out", str(run)]):
                raise SystemExit(f"{run} failed.")
        found.append((cider(str(runs[0]), judges), cider(str(runs[1]), judges)))
    return cider(start, judges), found


def draw(begun: float, counts: Sequence[int], found: Sequence[tuple[float, float]], out: str) -> None:
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for label, values in zip(("fine-tuned", "from scratch"), zip(*found, strict=True), strict=True):
        axes.plot(counts, values, marker="o", label=label)
    axes.axhline(begun, color="grey", linestyle="--", label="the start")
    axes.set(xscale="log", xlabel="photos", ylabel="CIDEr on 100 others", xticks=counts, ylim=(0, None))
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    given, model, picture, *rest = sys.argv[1:]
    amounts = [int(number) for number in rest] or COUNTS
    with tempfile.TemporaryDirectory() as name:
        base, rows = measured(given, model, amounts, Path(name))
    print(f"{'photos':>8}{'start':>8}{'fine-tuned':>12}{'from scratch':>14}")
    for amount, (tuned, fresh) in zip(amounts, rows, strict=True):
        print(f"{amount:>8,}{base:>8.1f}{tuned:>12.1f}{fresh:>14.1f}")
    draw(base, amounts, rows, picture)
