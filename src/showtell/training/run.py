"""The parts of a training run, and everything before its first step: `set_up`."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from showtell import __version__
from showtell.bundle import load_bundle
from showtell.data.dataset import Dataset, Example
from showtell.data.features.cache import FeatureCache
from showtell.engines.torch import weights_of
from showtell.errors import DataError, UsageError
from showtell.files import write_file
from showtell.languages import language_of
from showtell.metrics.tokens import tokens_of
from showtell.models.captioning_model import CaptioningModel, build_model
from showtell.tokenizer import Tokenizer
from showtell.training import checkpoint, processes
from showtell.training.adapters import check_installed
from showtell.training.events import Encoding, Event, Note
from showtell.training.inputs.augmentation import mirror_image, mirrored
from showtell.training.inputs.batches import Ids
from showtell.training.inputs.features import cached_features, fingerprint
from showtell.training.inputs.images import CachedGrids, Inputs, live_pictures, refuse_stream, unreadable_of
from showtell.training.recipe import Recipe, parse_recipe
from showtell.training.stages.stage import Stage
from showtell.training.state import TrainerState

MANY_UNKNOWN = 0.05  # share of the words; a vocabulary usually lacks 2 to 3 % of its own captions
NOISE = 0.1  # share of the spread of a table's rows: new words begin nearly equal, but can separate


@dataclass
class Run:
    recipe: Recipe
    folder: Path
    train_examples: Sequence[Example]
    """An image that a pass shows several times is here as often, each time with its own random changes."""
    dev_examples: Sequence[Example]
    tokenizer: Tokenizer
    captions: Sequence[Sequence[Ids]]
    """Token ids of each training image's captions."""
    language: str
    """The language of those captions."""
    model: CaptioningModel
    cache: FeatureCache | None
    """The feature cache, if a stage needs it."""
    accelerator: Accelerator
    state: TrainerState
    tell: Callable[[Event], None]

    @property
    def times(self) -> list[float]:
        """How often passes show each training image, 0..1."""
        return [example.times for example in self.train_examples]

    @property
    def stage(self) -> Stage:
        return self.recipe.stages[self.state.stage]

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    def inputs(self) -> AbstractContextManager[Inputs]:
        if self.stage.encoder_stages:
            return live_pictures(self.train_examples, self.model.encoder.preprocessing, self.stage.augmentation)
        assert self.cache is not None
        return nullcontext(CachedGrids(self.train_examples, self.cache, self.stage.augmentation))


def set_up(
    recipe: Recipe,
    dataset: Dataset,
    folder: Path,
    resume: bool,
    cache: Path | None,
    tell: Callable[[Event], None],
) -> Run:
    """Everything before the first step, the same whether the run starts or continues."""
    with processes.agreed():
        state = state_of(recipe, folder, resume)
    with processes.agreed():
        accelerator = processes.accelerator(recipe.precision)
        set_seed(recipe.seed)
        train_examples = dataset.split("train")
        dev_examples = [
            example
            for _, of_dataset in groupby(dataset.split("dev"), attrgetter("dataset"))
            for example in islice(of_dataset, recipe.validation_images)
        ]
        for _, of_dataset in groupby(dev_examples, attrgetter("dataset")):  # before hours of work: can they be scored?
            tokens_of([], recipe.tokenizer.language or language_of(captions_of(of_dataset)))
        if any(stage.encoder_stages for stage in recipe.stages):
            refuse_stream(train_examples)
        if any(stage.lora for stage in recipe.stages):
            check_installed()
        language = recipe.tokenizer.language or language_of(captions_of(train_examples))
        tokenizer, model, known = starting_point(recipe, train_examples, language)
        made_of = {
            "version": __version__,
            "words": digest_of([tokenizer.to_json()]),
            "training captions": digest_of((each.image_id, each.captions) for each in train_examples),
            "validation captions": digest_of((each.image_id, each.captions) for each in dev_examples),
            "photos": digest_of(each.stamp for each in (*train_examples, *dev_examples)),
            "times of data sets": digest_of(each.times for each in train_examples),
        }
        if not recipe.stages[0].encoder_stages:  # a checkpoint need not hold the encoder's weights
            made_of["encoder weights"] = fingerprint(model.encoder)
        refuse_others(made_of, state.made_of, folder, tell)
        state.made_of = made_of
        if processes.is_main():
            folder.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            write_file(folder / "recipe.yaml", text)
    with processes.agreed():
        processes.refuse_another_disk(folder / "recipe.yaml", "--out")
    model.to(accelerator.device)
    processes.same_weights(model)
    features = None
    if frozen := [stage for stage in recipe.stages if not stage.encoder_stages]:
        flips = any(stage.augmentation.flip for stage in frozen)
        features = cached_features(
            dataset.name,
            [*train_examples, *dev_examples, *(map(mirror_image, train_examples) if flips else ())],
            model.encoder,
            cache,
            lambda done, images, size: tell(Encoding(done, images, size)),
        )
    unreadable = features.unreadable if features else unreadable_of([*train_examples, *dev_examples])
    for reason in dict.fromkeys(unreadable.values()):  # a mirror image has its original's reason
        tell(Note(reason))
    train_examples, dev_examples = (
        readable(examples, unreadable, kind)
        for kind, examples in (("training", train_examples), ("validation", dev_examples))
    )
    train_examples = [copy for example in train_examples for copy in copies(example)]
    captions = [tokenizer.encode_batch(example.captions, recipe.max_words) for example in train_examples]
    if recipe.start_from is not None:
        tell(Note(words_note(captions, tokenizer, known, recipe.start_from)))
    return Run(
        recipe=recipe,
        folder=folder,
        train_examples=train_examples,
        dev_examples=dev_examples,
        tokenizer=tokenizer,
        captions=captions,
        language=language,
        model=model,
        cache=features,
        accelerator=accelerator,
        state=state,
        tell=tell,
    )


def state_of(recipe: Recipe, folder: Path, resume: bool) -> TrainerState:
    """The progress of the run in `folder`; that of a new run if there is none.

    Raises:
        UsageError: there is one, but `resume` is False, or its recipe is different.
        DataError: its checkpoint is damaged.
    """
    settings = recipe.model_dump(mode="json")
    state = checkpoint.read_state(folder / "checkpoint")
    if state is None:
        return TrainerState(settings)
    if not resume:
        raise UsageError(f"{folder} holds a run already.", "Add --resume to continue it, or choose another --out.")
    # Parse it again: in a recipe from before a key existed, the key gets its default.
    begun = parse_recipe(state.recipe, f"The recipe of the run in {folder}").model_dump(mode="json")
    # Weights are float32 in every precision, so a run may continue in another one. `refuse_others` checks the data.
    if keys := [key for key in settings if settings[key] != begun[key] and key not in ("precision", "data")]:
        raise UsageError(
            f"The run in {folder} was started with another recipe: {', '.join(keys)} differ.",
            f"Use its own, {folder / 'recipe.yaml'}, or choose another --out.",
        )
    return state


def digest_of(values: Iterable[object]) -> str:
    """A digest of JSON values, in this order."""
    found = hashlib.sha256()
    for value in values:
        found.update(json.dumps(value).encode())
    return found.hexdigest()


def refuse_others(
    made_of: Mapping[str, str], begun_with: Mapping[str, str], folder: Path, tell: Callable[[Event], None]
) -> None:
    """Let a run continue only with its own words, captions, photos and encoder; a note reports another showtell.

    Raises:
        UsageError: it names what differs.
    """
    changed = [name for name, value in begun_with.items() if made_of.get(name) != value]
    if others := [name for name in changed if name != "version"]:
        raise UsageError(
            f"The run in {folder} was started with different {', '.join(others)}.",
            "Use those that it was started with, or choose another --out.",
        )
    if changed:
        tell(Note(f"The run was started by showtell {begun_with['version']}; this is {made_of['version']}."))


def readable(examples: Sequence[Example], unreadable: Mapping[str, str], kind: str) -> list[Example]:
    """The examples whose images can be read. Raises DataError if there are none."""
    found = [example for example in examples if example.image_id not in unreadable]
    if not found:
        raise DataError(f"None of the {len(examples):,} {kind} images can be read.", "Replace those named above.")
    return found


def copies(example: Example) -> list[Example]:
    """As many copies as a pass shows at most; for 2.5 times, the third copy is shown 0.5 times."""
    return [replace(example, times=min(1.0, example.times - shown)) for shown in range(math.ceil(example.times))]


def words_note(captions: Sequence[Sequence[Ids]], tokenizer: Tokenizer, known: int, start_from: str) -> str:
    """A note on the words, if training starts from a model that knew `known` words."""
    ids = Counter(word for of_image in captions for caption in of_image for word in caption)
    unknown = ids[tokenizer.unk] / max(1, ids.total() - ids[tokenizer.start] - ids[tokenizer.end])
    if tokenizer.in_pieces:
        note = f"{start_from} spells words with its {known:,} pieces, and learns no new ones."
        return (
            f"{note} It can't spell {unknown:.1%} of the training captions, and leaves them out." if unknown else note
        )
    note = f"{start_from} knows {known:,} words, and learns {len(tokenizer) - known:,} more."
    if unknown:
        note += f" {unknown:.1%} of the words in the training captions are too rare, and are left out."
    if unknown >= MANY_UNKNOWN:
        note += " To learn them, lower the recipe's tokenizer.min_count."
    return note


def captions_of(examples: Iterable[Example]) -> list[str]:
    return [caption for example in examples for caption in example.captions]


def starting_point(
    recipe: Recipe, examples: Sequence[Example], language: str
) -> tuple[Tokenizer, CaptioningModel, int]:
    """The tokenizer, the model before the first step, and how many words it knew.

    Raises:
        BundleError: there is no model in `start_from`.
        UsageError: its architecture differs from the recipe's.
    """
    texts = captions_of(examples)
    if any(stage.augmentation.flip for stage in recipe.stages):  # a data set may name only one side
        texts += [other for text in texts if (other := mirrored(text, language)) != text]
    if recipe.start_from is None:
        tokenizer = Tokenizer.train(texts, recipe.tokenizer)
        return tokenizer, build_model(recipe.encoder, recipe.decoder, len(tokenizer)), 0
    bundle = load_bundle(recipe.start_from)
    known, tokenizer = len(bundle.tokenizer), bundle.tokenizer.grown(texts, recipe.tokenizer)
    model = build_model(recipe.encoder, recipe.decoder, len(tokenizer), pretrained=False)
    try:
        model.load_state_dict(with_new_words(weights_of(bundle), model.state_dict(), known))
    except RuntimeError as error:
        raise UsageError(
            f"The weights in {bundle.path} are not those of this recipe's model.",
            f"Give the encoder and the decoder that {bundle.path / 'config.json'} names, sizes included.",
        ) from error
    return tokenizer, model, known


def with_new_words(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], known: int) -> dict[str, Tensor]:
    """The weights with rows for all words; the rows of new words begin near the mean of the known ones.

    Args:
        weights: the weights of a model that knows `known` words.
        wanted: the weights of a model that knows more, for their shapes.
        known: how many words.
    """
    found = dict(weights)
    for name, other in wanted.items():
        old = weights.get(name)
        if old is None or old.shape == other.shape or len(old) != known or old.shape[1:] != other.shape[1:]:
            continue  # loading reports what does not fit
        rows = old.mean(0).expand(len(other) - known, *old.shape[1:])
        noise = NOISE * old.std(0) * torch.randn(rows.shape) if old.ndim > 1 else 0.0
        found[name] = torch.cat([old, rows + noise])
    return found
