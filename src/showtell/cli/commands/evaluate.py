"""``showtell evaluate``: caption a split of a data set, and score the captions against people's."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from showtell.bundle import BundleConfig
from showtell.captioner import Caption, Captioner, load
from showtell.cli import options as shared
from showtell.cli.captioning import caption_examples, from_files
from showtell.cli.progress import meteor_progress, tell
from showtell.cli.scores import Language, calibration_lines, captions_table
from showtell.confidence import RIGHT
from showtell.data import Dataset, Example
from showtell.data import load as load_data
from showtell.data.features.cache import FeatureCache
from showtell.errors import DataError, ImageError, ShowtellError, UsageError
from showtell.files import check_writable, write_file
from showtell.languages import ENGLISH, language_of
from showtell.metrics.calibration import Calibration, calibration
from showtell.metrics.diversity import Diversity, diversity
from showtell.metrics.objects import Invented, invented
from showtell.metrics.report import Report, score
from showtell.metrics.table import RANKED_BY, metric_of
from showtell.metrics.tokens import tokens_of
from showtell.results.outputs import rounded

app = typer.Typer()


@app.command(epilog="Exit codes: 0 all done, 1 some images could not be read, 2 wrong usage.")
@shared.takes_search_options(but=("num", "prefix"))
def evaluate(
    data: Annotated[str, typer.Option("--data", "-d", metavar="SPEC", help="The data set, for example flickr8k:DIR.")],
    model: shared.Model = None,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="train, dev or test.")] = "test",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write scores and captions (COCO results format) as JSON."),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option("--features", metavar="DIR", help="Feature cache of the data set, by the model's encoder."),
    ] = None,
    language: Language = None,
    batch_size: shared.BatchSize = 16,
    engine: shared.Engine = "auto",
    **search: Any,
) -> None:
    """Caption a split of a data set and score the captions: BLEU, METEOR, ROUGE-L, CIDEr."""
    if output is not None:
        if output.suffix.lower() not in ("", ".json"):
            raise UsageError(f"{output}: evaluate writes JSON.", "Name a .json file.")
        check_writable(output)
    captioner = load(model, engine=engine)
    search_options = {**search, "num": 1}
    options = captioner.options(**search_options)
    dataset = load_data(data)
    tell(*dataset.notes)
    examples = dataset.split(split)
    references = {example.image_id: example.captions for example in examples}
    language = language or language_of([caption for said in references.values() for caption in said])
    tokens_of([], language)  # fails now, and not after hours of work, if they can't be scored
    if features is None:
        outcomes = from_files(captioner, examples, batch_size, search_options)
    else:
        outcomes = from_features(captioner, examples, batch_size, search_options, features)
    captions, bad = caption_examples(examples, outcomes)
    if not captions:
        raise DataError(f"No image of {data} could be captioned.")
    with meteor_progress() as progress:
        said = {i: caption.text for i, caption in captions.items()}
        scored = score(said, references, language=language, progress=progress)
    tell(*scored.doubts)
    training = None if split == "train" or "train" not in dataset.splits else training_tokens(dataset, scored.language)
    people = diversity([of_image[0] for of_image in scored.references], training)
    system = diversity(scored.candidates, training)
    objects = invented(scored.candidates, scored.references) if scored.language == ENGLISH else None
    sure = calibration_of(captions, scored)
    print_scores(scored, captioner.config.name, f"{data}, {split}")
    print_captions(system, people, objects, sure)
    if output is not None:
        results: dict[str, Any] = {
            "model": captioner.config.name,
            "data": data,
            "split": split,
            "engine": captioner.engine.arithmetic,
            "search": asdict(options),
            "images": len(scored.image_ids),
            "scores": scored.scores,
            "missing": scored.missing,
            "doubts": list(scored.doubts),
            "captions": {"system": asdict(system), "people": asdict(people)},
            "invented": None if objects is None else asdict(objects),
            "confidence": None if sure is None else asdict(sure),
            "predictions": predictions(captions, scored),
        }
        write_file(output, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    if bad:
        raise typer.Exit(1)


def from_features(
    captioner: Captioner,
    examples: Sequence[Example],
    batch_size: int,
    search_options: dict[str, Any],
    folder: Path,
) -> Iterator[list[Caption] | ShowtellError]:
    """As `from_files`, but from features that the encoder computed earlier.

    Raises:
        DataError: the cache comes from another encoder or lacks an image.
    """
    cache = open_features(folder, captioner.config, examples)
    options = captioner.options(**search_options)
    for first in range(0, len(examples), batch_size):
        batch = [(n, examples[n].image_id) for n in range(first, min(first + batch_size, len(examples)))]
        readable = [(n, image_id) for n, image_id in batch if image_id not in cache.unreadable]
        memory = captioner.engine.memory_from_grid(cache.rows([image_id for _, image_id in readable]))
        found = iter(captioner.caption_memory(memory, options, numbers=[n for n, _ in readable]))
        for _, image_id in batch:
            reason = cache.unreadable.get(image_id)
            yield ImageError(reason) if reason is not None else next(found)


def open_features(folder: Path, config: BundleConfig, examples: Sequence[Example]) -> FeatureCache:
    """The feature cache of the model's encoder.

    Raises:
        DataError: it comes from another encoder or other images, whose features would give confident nonsense, or it
            is damaged.
    """
    stamps = {example.image_id: example.stamp for example in examples}
    cache = FeatureCache.open(folder, config.training.get("feature_fingerprint"), stamps)
    if cache.shape[1] != config.grid[0] * config.grid[1]:
        raise DataError(
            f"The feature cache {folder} holds {cache.shape[1]} cells an image, not those of {config.name}.",
            "Leave out --features, or build the cache with 'showtell features'.",
        )
    return cache


def training_tokens(dataset: Dataset, language: str) -> frozenset[str]:
    """All captions of the train split, tokenised."""
    captions = [caption for example in dataset.split("train") for caption in example.captions]
    return frozenset(tokens_of(captions, language))


def predictions(captions: dict[str, Caption], scored: Report) -> list[dict[str, Any]]:
    """The COCO results format, with each image's own CIDEr beside its caption."""
    ciders = dict(zip(scored.image_ids, scored.per_image[RANKED_BY].tolist(), strict=True))
    return [
        {
            "image_id": int(image_id) if image_id.isdecimal() and image_id == str(int(image_id)) else image_id,
            "caption": caption.text,
            "log_prob": round(caption.log_prob, 4),
            "confidence": rounded(caption.confidence),
            RANKED_BY: round(ciders[image_id], 4),
        }
        for image_id, caption in captions.items()
    ]


def print_scores(scored: Report, model: str, data: str) -> None:
    """A line for each score, as in papers' tables."""
    print(f"{model} on {data}: {len(scored.image_ids):,} images")
    for name, value in scored.scores.items():
        print(f"  {name:<8} {metric_of(name).printed(value):>6}")
    for metric, reason in scored.missing.items():
        print(f"  {metric:<8} missing: {reason}")


def calibration_of(captions: dict[str, Caption], scored: Report) -> Calibration | None:
    """How well the captions' confidence matches their scores; None if the model gives no confidence."""
    chances = [captions[image_id].confidence for image_id in scored.image_ids]
    if None in chances or RANKED_BY not in scored.per_image:
        return None
    return calibration(np.array(chances, float), scored.per_image[RANKED_BY], RIGHT)


def print_captions(system: Diversity, people: Diversity, objects: Invented | None, sure: Calibration | None) -> None:
    """What the captions are like: how many break off, are in the train split already, or invent an object."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print()
    console.print(captions_table(system, people, objects))
    if sure is not None:
        console.print()
        console.print(calibration_lines(sure))
