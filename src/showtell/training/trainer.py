"""The training run: `train` sets it up, `fit` is the loop; validation captions the dev images with the code users run.

A run's folder:

    recipe.yaml       the recipe with all defaults filled in
    checkpoint/       the run at its last saved step, for --resume; the weights of best epochs that are to be averaged
    model/            the best model so far, a bundle
    log.jsonl         a line an epoch
    samples.jsonl     the best model's captions of the dev images, with references and scores
    tensorboard/      the same curves for TensorBoard
    report.html       what came out, to look at

Of many processes (`processes.py`) each runs all that stands here, over its share of every batch; the main one writes.
A run that is killed at any moment and resumed ends with the same weights, bit by bit, as one that was left alone: the
checkpoint holds the random state, and an epoch's order follows from the recipe's seed and the epoch's number. A stage
starts from the best model of those before.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import cast

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter

from showtell.bundle import BundleConfig, load_bundle, save_bundle
from showtell.captioner import Captioner, load
from showtell.data.dataset import Dataset, Example
from showtell.data.feature_cache import FeatureCache
from showtell.engines.torch import TorchEngine, weights_of
from showtell.errors import ShowtellError, UsageError
from showtell.metrics.report import Report
from showtell.models.captioning_model import CaptioningModel, build_model
from showtell.tokenizer import Tokenizer
from showtell.training import checkpoint, processes
from showtell.training.augmentation import mirror_image, mirrored
from showtell.training.batches import Ids, epoch_of_batches
from showtell.training.checkpoint import Json, Progress
from showtell.training.events import Encoding, Epoch, Event, LeftOut
from showtell.training.features import cached_features, fingerprint
from showtell.training.inputs import CachedGrids, Inputs, live_pictures, refuse_stream, unreadable_of
from showtell.training.model_card import model_card
from showtell.training.recipe import Recipe, parse_recipe
from showtell.training.report import write_report
from showtell.training.stage import Stage, parameter_groups
from showtell.training.step import step
from showtell.training.validation import add_pictures, validate, write_lines

SELECTED_BY = "CIDEr"


class Interrupted(ShowtellError):
    """Ctrl-C during training, after the run was saved."""

    exit_code = 130


@dataclass
class Run:
    """What one training run works with."""

    recipe: Recipe
    folder: Path
    train_examples: Sequence[Example]
    dev_examples: Sequence[Example]
    tokenizer: Tokenizer
    captions: Sequence[Sequence[Ids]]
    """Token ids of each training image's captions."""
    model: CaptioningModel
    cache: FeatureCache | None
    accelerator: Accelerator
    progress: Progress
    tell: Callable[[Event], None]

    @property
    def checkpoint(self) -> Path:
        """Where the run is saved."""
        return self.folder / "checkpoint"


def train(
    recipe: Recipe,
    dataset: Dataset,
    folder: Path,
    *,
    resume: bool = False,
    cache: Path | None = None,
    tell: Callable[[Event], None] = lambda event: None,
) -> Path:
    """Train a recipe on a data set.

    Args:
        recipe: what to train.
        dataset: with a train and a dev split.
        folder: the run's folder; must hold no run unless `resume`.
        resume: go on from the folder's last checkpoint, if it has one.
        cache: folder of the feature cache; one of its own for each data set and encoder when None.
        tell: called with every event, in the main process: something to show.

    Returns:
        The report page.

    Raises:
        UsageError: the folder holds a run already, or one of another recipe.
        BundleError: there is no model where the recipe starts from.
        DataError: the data set can't be trained on, or the loss is no longer a number.
        Interrupted: Ctrl-C, or SIGTERM; the run is saved.
        ProcessLost: another process of the run is gone.
    """
    processes.join()
    run = set_up(recipe, dataset, folder, resume, cache, tell if processes.is_main() else lambda event: None)
    first = run.progress.stage
    resumed = checkpoint.exists(run.checkpoint)
    for index, stage in list(enumerate(recipe.stages))[first:]:
        processes.wait()  # for what the main one has written
        fit(run, index, stage, restore=resumed and index == first)
    if processes.is_main():
        captioner = load(folder / "model")
        add_pictures(folder, captioner, {example.image_id: example for example in run.dev_examples})
        write_report(folder)
    return folder / "report.html"


def set_up(
    recipe: Recipe,
    dataset: Dataset,
    folder: Path,
    resume: bool,
    cache: Path | None,
    tell: Callable[[Event], None],
) -> Run:
    """Everything before the first step, the same whether the run starts or goes on."""
    settings = recipe.model_dump(mode="json")
    with processes.agreed():
        progress = checkpoint.read_progress(folder / "checkpoint") or Progress(settings)
        if checkpoint.exists(folder / "checkpoint") and not resume:
            raise UsageError(
                f"{folder} holds a run already.", "Add --resume to go on with it, or choose another --out."
            )
        # Read again, a recipe from before a key existed has its default.
        begun = parse_recipe(progress.recipe, f"The recipe of the run in {folder}").model_dump(mode="json")
        # The weights are float32 in every precision, so a run may go on in another one.
        if keys := [key for key in settings if settings[key] != begun[key] and key != "precision"]:
            raise UsageError(f"The run in {folder} was started with another recipe: {', '.join(keys)} differ.")
    with processes.agreed():
        accelerator = processes.accelerator(recipe.precision)
        set_seed(recipe.seed)
        train_examples, dev_examples = dataset.split("train"), dataset.split("dev")[: recipe.validation_images]
        if any(stage.encoder_stages for stage in recipe.stages):
            refuse_stream(train_examples)
        tokenizer, model = starting_point(recipe, train_examples)
        if processes.is_main():
            folder.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
            (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    with processes.agreed():
        processes.refuse_another_disk(folder / "recipe.yaml", "--out")
    model.to(accelerator.device)
    processes.same_weights(model)
    features = None
    if any(not stage.encoder_stages for stage in recipe.stages):
        flips = any(stage.augmentation.flip for stage in recipe.stages if not stage.encoder_stages)
        features = cached_features(
            dataset.name,
            [*train_examples, *dev_examples, *(map(mirror_image, train_examples) if flips else ())],
            model.encoder,
            cache,
            lambda done, images, size: tell(Encoding(done, images, size)),
        )
        unreadable = features.unreadable
    else:
        unreadable = unreadable_of([*train_examples, *dev_examples])
    for reason in dict.fromkeys(unreadable.values()):  # a mirror image has its original's
        tell(LeftOut(reason))
    train_examples, dev_examples = (
        [example for example in examples if example.image_id not in unreadable]
        for examples in (train_examples, dev_examples)
    )
    return Run(
        recipe=recipe,
        folder=folder,
        train_examples=train_examples,
        dev_examples=dev_examples,
        tokenizer=tokenizer,
        captions=[tokenizer.encode_batch(example.captions, recipe.max_words) for example in train_examples],
        model=model,
        cache=features,
        accelerator=accelerator,
        progress=progress,
        tell=tell,
    )


def starting_point(recipe: Recipe, examples: Sequence[Example]) -> tuple[Tokenizer, CaptioningModel]:
    """The tokenizer, and the model as it is before the first step.

    Raises:
        BundleError: there is no model in `start_from`.
        UsageError: it is of another architecture than the recipe's.
    """
    if recipe.start_from is None:
        texts = [caption for example in examples for caption in example.captions]
        if any(stage.augmentation.flip for stage in recipe.stages):  # a data set may name one side only
            texts += [other for text in texts if (other := mirrored(text)) != text]
        tokenizer = Tokenizer.train(texts, recipe.tokenizer)
        return tokenizer, build_model(recipe.encoder, recipe.decoder, len(tokenizer))
    bundle = load_bundle(recipe.start_from)
    model = build_model(recipe.encoder, recipe.decoder, len(bundle.tokenizer), pretrained=False)
    try:
        model.load_state_dict(weights_of(bundle))
    except RuntimeError as error:
        raise UsageError(
            f"The weights in {bundle.path} are not those of this recipe's model.",
            f"Give the encoder and the decoder that {bundle.path / 'config.json'} names, sizes included.",
        ) from error
    return bundle.tokenizer, model


def fit(run: Run, index: int, stage: Stage, *, restore: bool) -> None:
    """One stage: epochs of steps, a validation after each epoch, and checkpoints on the way."""
    progress, model, device = run.progress, run.model, run.accelerator.device
    if index and not restore:
        model.load_state_dict(weights_of(load_bundle(run.folder / "model")))  # the best, not the last
    optimizer = torch.optim.AdamW(parameter_groups(model, stage), fused=True)
    average = AveragedModel(model, multi_avg_fn=stage.average_into) if stage.average else None
    if restore:
        checkpoint.restore_tensors(run.checkpoint, model, optimizer, average)
    # Mixed precision without a wrapper: gradients are added in `processes`.
    trained = run.accelerator.prepare_model(model, evaluation_mode=True)
    optimizer = run.accelerator.prepare_optimizer(optimizer)
    encode = partial(run.tokenizer.encode_batch, max_words=run.recipe.max_words)
    steps = stage.epochs * math.ceil(len(run.captions) / stage.batch_images)
    saved_at = time.monotonic()

    with (
        interruptible() as interrupted,
        curves_of(run) as curves,
        inputs_of(run, stage) as inputs,
    ):
        while not _over(progress, stage):
            seed = (run.recipe.seed, index, progress.epoch)
            captions = stage.augmentation.captions(run.captions, run.train_examples, encode, seed)
            generator = np.random.default_rng(seed)
            batches = epoch_of_batches(
                captions, stage.batch_images, stage.captions_per_image, generator, processes.share()
            )
            todo = islice(batches, progress.batch, None)  # those before were done before the run was stopped
            model.train()
            objective = stage.objective(captions, run.tokenizer)
            begin = time.perf_counter()
            for batch, pictures in inputs.train(todo, seed):
                processes.own_random_numbers(*seed, progress.batch)
                done = progress.step / steps
                seen = step(
                    run.accelerator, stage, objective, trained, optimizer, pictures.to(device), batch.to(device), done
                )
                if average is not None:
                    average.update_parameters(model)
                progress.count(
                    seen.captions,
                    seen.words,
                    seen.positions,
                    seen.terms["words"],
                    seen.measures,
                    time.perf_counter() - begin,
                )
                add_to(curves, "loss", seen.terms, progress.step)
                add_to(curves, "samples", seen.measures, progress.step)
                run.tell(_epoch(run, stage))
                stop = any(processes.everyones(interrupted()))
                if stop or time.monotonic() - saved_at >= run.recipe.checkpoint_seconds:
                    save(run, model, optimizer, average)
                    saved_at = time.monotonic()
                if stop:
                    processes.fail(
                        Interrupted(
                            f"Stopped in epoch {progress.epoch + 1}; the run is saved.", "Add --resume to go on."
                        )
                    )
                begin = time.perf_counter()
            finished = _epoch(run, stage)
            validated = model if average is None else cast(CaptioningModel, average.module)
            line = end_epoch(run, stage, index, validated, inputs)
            add_to(curves, "dev", line["scores"], progress.step)
            save(run, model, optimizer, average)
            run.tell(replace(finished, line=line))
        if len(best_epochs(run, stage, index)) > 1 and not progress.averaged:
            line = end_with_mean(run, stage, index, model, inputs)
            save(run, model, optimizer, average)
            run.tell(replace(_epoch(run, stage), line=line))
    progress.begin_stage(index + 1)


def save(run: Run, model: CaptioningModel, optimizer: torch.optim.Optimizer, average: AveragedModel | None) -> None:
    """Write the checkpoint, which is the main process's to write."""
    if processes.is_main():
        checkpoint.save(run.checkpoint, run.progress, model, optimizer, average)


def curves_of(run: Run) -> AbstractContextManager[SummaryWriter | None]:
    """The curves for TensorBoard, in the main process."""
    if not processes.is_main():
        return nullcontext()
    curves: SummaryWriter = SummaryWriter(run.folder / "tensorboard", purge_step=run.progress.step)
    return curves


def add_to(curves: SummaryWriter | None, group: str, values: Mapping[str, float], step: int) -> None:
    """Add a point to each of a group's curves."""
    if curves is not None:
        for name, value in values.items():
            curves.add_scalar(f"{group}/{name}", value, step)


def inputs_of(run: Run, stage: Stage) -> AbstractContextManager[Inputs]:
    """Where the stage's images come from."""
    if stage.encoder_stages:
        return live_pictures(run.train_examples, run.model.encoder.preprocessing, stage.augmentation)
    assert run.cache is not None, "set_up opens the cache when a stage needs it"
    return nullcontext(CachedGrids(run.train_examples, run.cache, stage.augmentation))


def end_epoch(run: Run, stage: Stage, index: int, model: CaptioningModel, inputs: Inputs) -> Json:
    """Validate, keep the model if it is the best so far, and return the epoch's line of the log."""
    progress = run.progress
    facts = {
        "loss": progress.mean_loss,
        "learning_rate": stage.learning_rate * stage.learning_rate_share((progress.epoch + 1) / stage.epochs),
        "captions_per_second": progress.captions_per_second,
        "padding": progress.padding,
        **progress.mean_measures,
    }
    line = add_validation(run, index, model, inputs, facts)
    if stage.best_epochs and processes.is_main():
        checkpoint.keep_weights(run.checkpoint, line["epoch"], model, best_epochs(run, stage, index))
    progress.end_epoch()
    return line


def end_with_mean(run: Run, stage: Stage, index: int, model: CaptioningModel, inputs: Inputs) -> Json:
    """Put the mean weights of the stage's best epochs into the model, and validate it like an epoch's."""
    epochs = best_epochs(run, stage, index)
    processes.wait()  # for the weights that the main one keeps
    model.load_state_dict(checkpoint.mean_weights(run.checkpoint, epochs))
    run.progress.averaged = True
    return add_validation(run, index, model, inputs, {"mean_of": epochs})


def best_epochs(run: Run, stage: Stage, index: int) -> list[int]:
    """The epochs of the stage that scored best, at most `stage.best_epochs`, by their numbers in the log."""
    of_stage = [line for line in run.progress.log if line["stage"] == index and "mean_of" not in line]
    best = sorted(of_stage, key=lambda line: line["scores"][SELECTED_BY], reverse=True)[: stage.best_epochs]
    return sorted(line["epoch"] for line in best)


def add_validation(run: Run, index: int, model: CaptioningModel, inputs: Inputs, facts: Json) -> Json:
    """Validate, keep the model if it is the best so far, and return the new line of the log."""
    progress = run.progress
    began = time.perf_counter()
    captioner = Captioner(
        TorchEngine(model.eval(), run.accelerator.device), run.tokenizer, bundle_config(run, model, {})
    )
    validation = validate(captioner, run.dev_examples, inputs)
    line: Json = {
        "epoch": len(progress.log) + 1,
        "stage": index,
        "step": progress.step,
        **facts,
        "minutes": progress.minutes_before + (progress.seconds + time.perf_counter() - began) / 60,
        "scores": validation.report.scores,
    }
    best = progress.add_line(line, line["scores"][SELECTED_BY])
    if processes.is_main():
        if best:
            save_model(run, model, validation.report)
            write_lines(run.folder / "samples.jsonl", validation.samples())
        write_lines(run.folder / "log.jsonl", progress.log)
    return line


def save_model(run: Run, model: CaptioningModel, report: Report) -> None:
    """Write the bundle of the best model so far."""
    weights = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    config = bundle_config(run, model, report.scores)
    card = model_card(config, run.recipe, len(run.train_examples), len(run.dev_examples))
    save_bundle(run.folder / "model", config, run.tokenizer, weights, card)


def bundle_config(run: Run, model: CaptioningModel, scores: dict[str, float]) -> BundleConfig:
    """What the model's folder says of it."""
    encoder = model.encoder
    return BundleConfig(
        name=run.recipe.name,
        preprocessing=encoder.preprocessing,
        encoder=encoder.config.model_dump(mode="json"),
        decoder=run.recipe.decoder.model_dump(mode="json"),
        search=run.recipe.search,
        grid=encoder.grid,
        scores=scores,
        training={
            "recipe": run.recipe.name,
            "epochs": len(run.progress.log),
            "images": len(run.train_examples),
            "feature_fingerprint": fingerprint(encoder),
        },
    )


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C wait for the end of the step, so that what is saved is whole; a second one does not wait.

    SIGTERM, with which clusters and launchers end a run, waits too; and as a launcher passes Ctrl-C on to processes
    that have heard of it from the terminal, a second one means something to a run of one process only.

    Yields:
        Whether it was pressed.
    """
    pressed = False

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed and signum == signal.SIGINT and processes.count() == 1:
            raise KeyboardInterrupt
        pressed = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread hears of signals
        return
    before = {number: signal.signal(number, on_interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: pressed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _over(progress: Progress, stage: Stage) -> bool:
    """Whether the stage has had its epochs, or its patience is over."""
    impatient = stage.patience is not None and progress.epochs_since_best >= stage.patience
    return progress.averaged or progress.epoch >= stage.epochs or impatient


def _epoch(run: Run, stage: Stage) -> Epoch:
    progress = run.progress
    return Epoch(
        epoch=progress.epoch + 1,
        epochs=stage.epochs,
        captions=progress.captions,
        all_captions=sum(stage.captions_computed(len(captions)) for captions in run.captions),
        captions_per_second=progress.captions_per_second,
        loss=progress.mean_loss,
    )
