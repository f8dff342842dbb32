"""Validation: caption the dev images as users would, and score the captions.

Teacher-forced scores choose the wrong model, so they are not used here.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from showtell.captioner import Caption, Captioner
from showtell.confidence import Confidence
from showtell.data.dataset import Example
from showtell.files import write_file
from showtell.metrics.report import Report, score
from showtell.metrics.table import METRICS, RANKED_BY
from showtell.pages.training import showcase
from showtell.training import processes
from showtell.training.inputs.images import Inputs
from showtell.training.recipe import Json

BATCH = 64
ALIKE = 0.8  # of the captions: if more are the same, they say nothing about their images


@dataclass(frozen=True)
class Validation:
    """The captions of the dev images, and their scores: a report for each data set by name."""

    examples: Sequence[Example]
    captions: Sequence[Caption]
    reports: Mapping[str, Report]
    confidence: Confidence | None
    """The confidence fitted to them."""

    @property
    def scores(self) -> dict[str, float]:
        """The scores of the first data set, which choose the model."""
        return next(iter(self.reports.values())).scores

    @property
    def scores_of(self) -> dict[str, dict[str, float]]:
        """The scores of each data set by name, if there are several."""
        return {name: report.scores for name, report in self.reports.items()} if len(self.reports) > 1 else {}

    def problem(self) -> str | None:
        """A sentence for people if the captions say nothing about their images, which scores alone don't show."""
        text, times = Counter(caption.text for caption in self.captions).most_common(1)[0]
        if times > ALIKE * len(self.captions) and times > 1:
            said = f"{times:,} of {len(self.captions):,} validation captions are '{text}'."
        elif self.scores[RANKED_BY] == 0:
            said = f"The {RANKED_BY} of the validation captions is 0."
        else:
            return None
        return f"{said} If that stays so, train for more epochs, on more photos, or from a trained model (start_from)."

    def samples(self) -> list[Json]:
        """One line of samples.jsonl per image."""
        score_of = ciders_of(self.reports.values())
        return [
            {
                "image_id": example.image_id,
                "caption": caption.text,
                "words": caption.words,
                "log_prob": caption.log_prob,
                "references": example.captions,
                "scores": {RANKED_BY: score_of[example.image_id]},
            }
            for example, caption in zip(self.examples, self.captions, strict=True)
        ]


def validate(
    captioner: Captioner,
    examples: Sequence[Example],
    inputs: Inputs,
    rarity: tuple[float, ...],
    language: str | None = None,
) -> Validation:
    """Caption the images with the model's own search options, and score the best caption of each.

    The model's confidence is fitted to these captions, with the `rarity` of words in training captions.

    Each process captions its share; the main one scores all captions, so that all processes use the same scores.
    """
    own = [caption for _, caption in inputs.captions(captioner, examples[processes.own_slice()], BATCH)]
    captions = processes.put_together(processes.everyones(own))
    reports: dict[str, Report] = {}
    confidence = None
    if processes.is_main():
        said = {example.image_id: caption.text for example, caption in zip(examples, captions, strict=True)}
        reports = {
            name: score(
                said,
                {example.image_id: example.captions for example in examples if example.dataset == name},
                metrics=[metric.name for metric in METRICS.values() if metric.quick],
                language=language,
            )
            for name in dict.fromkeys(example.dataset for example in examples)
        }
        caption_of = {example.image_id: caption for example, caption in zip(examples, captions, strict=True)}
        ids, ciders = zip(*((each.image_ids, each.per_image[RANKED_BY]) for each in reports.values()), strict=True)
        confidence = captioner.confidence_from(caption_of, ids, ciders, rarity)
    return Validation(examples, captions, processes.everyones(reports)[0], confidence)


def ciders_of(reports: Iterable[Report]) -> dict[str, float]:
    """The score that ranks epochs, for each image."""
    return {
        image_id: score
        for report in reports
        for image_id, score in zip(report.image_ids, report.per_image[RANKED_BY].tolist(), strict=True)
    }


def add_pictures(folder: Path, captioner: Captioner, examples: Mapping[str, Example]) -> None:
    """Keep the picture and the attention of the samples in the report, in `folder`/samples."""
    lines = (folder / "samples.jsonl").read_text(encoding="utf-8").split("\n")  # captions may hold U+2028
    samples = [json.loads(line) for line in lines if line]
    (folder / "samples").mkdir(exist_ok=True)
    for number, sample in enumerate(s for group in showcase(samples).values() for s in group):
        image = examples[sample["image_id"]].read()
        picture, attention = f"samples/{number}.jpg", f"samples/{number}.npy"
        Image.fromarray(captioner.picture(image)).save(folder / picture, quality=85)
        sample["image"] = picture
        caption = captioner(image)[0]
        if caption.attention is not None and caption.text == sample["caption"]:
            np.save(folder / attention, caption.attention.astype(np.float16))
            sample["attention"] = attention
    write_lines(folder / "samples.jsonl", samples)


def write_lines(path: Path, lines: Iterable[Json]) -> None:
    """Write JSON lines, completely or not at all."""
    write_file(path, (f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
