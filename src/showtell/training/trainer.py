"""The training run: `train` goes through the stages, `fit` through the epochs of one, `train_epoch` through the steps.

A run's folder:

    recipe.yaml       the recipe with all defaults filled in
    checkpoint/       the run at its last saved step, for --resume; weights of best epochs, to be averaged
    model/            the best model so far, a bundle
    log.jsonl         one line per epoch
    samples.jsonl     the best model's captions of the dev images, with references and scores
    tensorboard/      the same curves for TensorBoard
    report.html       the result as a page

With several processes (`processes.py`), each runs this code over its share of every batch; the main one writes.
A run that is killed at any moment and resumed ends with exactly the same weights as an uninterrupted one: the
checkpoint holds the random state, and an epoch's order follows from the recipe's seed and the epoch's number. A stage
starts from the best model of the earlier stages.
"""

import math
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import cast

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter

from showtell.bundle import load_bundle
from showtell.captioner import load
from showtell.confidence import FEWEST
from showtell.data.dataset import Dataset
from showtell.engines.torch import weights_of
from showtell.errors import Interrupted
from showtell.metrics.table import RANKED_BY, rank_of
from showtell.models.captioning_model import CaptioningModel
from showtell.pages.training import write_report
from showtell.training import checkpoint, processes
from showtell.training.adapters import adapted, merged
from showtell.training.epoch_end import add_validation, best_epochs, end_epoch, end_with_mean
from showtell.training.events import Epoch, Event, Note
from showtell.training.inputs.batches import epoch_of_batches, images_of_epoch
from showtell.training.inputs.images import Inputs
from showtell.training.recipe import Recipe
from showtell.training.run import Run, set_up
from showtell.training.stages.stage import parameter_groups
from showtell.training.step import step
from showtell.training.validation import add_pictures


def train(
    recipe: Recipe,
    dataset: Dataset,
    folder: Path,
    *,
    resume: bool = False,
    cache: Path | None = None,
    tell: Callable[[Event], None] = lambda event: None,
) -> Path:
    """Train a recipe on a data set, or on several (see `data.joined`): the first one's validation chooses the model.

    Args:
        recipe: what to train.
        dataset: with a train and a dev split.
        folder: the run's folder; it must hold no run unless `resume`.
        resume: continue from the folder's last checkpoint, if it has one.
        cache: folder of the feature cache; by default a separate one for each data set and encoder.
        tell: called with every event, in the main process.

    Returns:
        The report page.

    Raises:
        UsageError: the folder already holds a run, or one with another recipe.
        BundleError: the model that the recipe starts from is missing.
        DataError: the data set can't be trained on, or the loss is no longer a number.
        Interrupted: Ctrl-C, or SIGTERM; the run is saved.
        ProcessLost: another process of the run is gone.
    """
    processes.join()
    run = set_up(recipe, dataset, folder, resume, cache, tell if processes.is_main() else lambda event: None)
    restore = checkpoint.exists(run.checkpoint)
    while run.state.stage < len(recipe.stages):
        processes.wait()  # for what the main process has written
        fit(run, restore=restore)
        restore = False
    best = max(run.state.log, key=lambda line: rank_of(line["scores"]))
    if recipe.start_counts and best.get("start"):
        run.tell(Note("No epoch was better than the model that training started from, which is kept."))
    else:
        run.tell(Note(f"The model of epoch {best['epoch']} is kept: it has the best scores."))
    if processes.is_main():
        captioner = load(folder / "model")
        if captioner.config.confidence is None:
            run.tell(Note(no_confidence(run)))
        add_pictures(folder, captioner, {example.image_id: example for example in run.dev_examples})
        write_report(folder)
    return folder / "report.html"


def no_confidence(run: Run) -> str:
    """Why the model's captions have no confidence, and what to do."""
    photos = sum(example.dataset == run.dev_examples[0].dataset for example in run.dev_examples)
    reason = (
        f"validation had {photos:,} captioned dev photos, and fitting it needs {FEWEST}"
        if photos < FEWEST
        else f"the model captions all {photos:,} dev photos well, or all badly"
    )
    command = f"showtell calibrate {shlex.quote(str(run.folder))} --data SPEC"
    return f"Captions of this model have no `confidence`: {reason}. Fit it on more photos: {command}."


def fit(run: Run, *, restore: bool) -> None:
    """One stage: epochs of steps, a validation after each epoch, and checkpoints on the way."""
    learner = Learner(run, restore=restore)
    with interruptible() as interrupted, curves_of(run) as curves, run.inputs() as inputs:
        if run.recipe.start_counts and not run.state.log:
            line = add_validation(run, run.model, inputs, {"start": True})
            run.tell(replace(epoch_so_far(run), line=line))
        while not is_over(run):
            train_epoch(run, learner, inputs, curves, interrupted)
            finished = epoch_so_far(run)
            line = end_epoch(run, learner.averaged, inputs)
            add_to(curves, "dev", line["scores"], run.state.step)
            for name, scores in line.get("scores_of", {}).items():
                add_to(curves, f"dev {name}", scores, run.state.step)
            learner.save(run)
            run.tell(replace(finished, line=line))
        if run.state.epoch < run.stage.epochs:
            run.tell(
                Note(
                    f"Stopped after {run.state.epoch} of {run.stage.epochs} epochs: no better {RANKED_BY} in "
                    f"{run.stage.patience}."
                )
            )
        if len(best_epochs(run)) > 1 and not run.state.averaged:
            line = end_with_mean(run, run.model, inputs)
            learner.save(run)
            run.tell(replace(epoch_so_far(run), line=line))
    run.state.end_stage()


class Learner:
    """What a stage's steps change: the model, its moving average, the optimiser. Each stage has its own."""

    def __init__(self, run: Run, *, restore: bool) -> None:
        model, stage = run.model, run.stage
        if run.state.stage and not restore:
            model.load_state_dict(weights_of(load_bundle(run.folder / "model")))  # the best, not the last
        model.zero_grad()  # from an earlier stage, in which other parts may have learned
        if stage.lora:
            model = adapted(model, stage.lora, stage.decoder_layers)
            processes.same_weights(model)  # each process has drawn its own
        optimizer = torch.optim.AdamW(parameter_groups(model, stage, len(run.tokenizer)), fused=True)
        average = AveragedModel(model, multi_avg_fn=stage.average_into) if stage.average else None
        if restore:
            checkpoint.restore_tensors(run.checkpoint, model, optimizer, average)
        self.model, self.average, self.has_adapters = model, average, stage.lora > 0
        # Mixed precision without a wrapper: gradients are added in `processes`.
        self.trained = run.accelerator.prepare_model(model, evaluation_mode=True)
        self.optimizer = run.accelerator.prepare_optimizer(optimizer)
        self.saved_at = time.monotonic()

    @property
    def averaged(self) -> CaptioningModel:
        """The model for validation: the moving average, if the stage keeps one, with plain weights."""
        model = self.model if self.average is None else cast(CaptioningModel, self.average.module)
        return merged(model) if self.has_adapters else model

    def save(self, run: Run) -> None:
        """Write the checkpoint, in the main process only."""
        if processes.is_main():
            checkpoint.save(run.checkpoint, run.state, self.model, self.optimizer, self.average)
        self.saved_at = time.monotonic()


def train_epoch(
    run: Run, learner: Learner, inputs: Inputs, curves: SummaryWriter | None, interrupted: Callable[[], bool]
) -> None:
    """The remaining steps of an epoch.

    Raises:
        Interrupted: in the main process, after the step in which a process was interrupted; the run is saved.
    """
    state, stage, device = run.state, run.stage, run.accelerator.device
    seed = (run.recipe.seed, state.stage, state.epoch)
    encode = partial(run.tokenizer.encode_batch, max_words=run.recipe.max_words)
    captions = stage.augmentation.captions(run.captions, run.train_examples, encode, seed, run.language)
    batches = epoch_of_batches(
        captions,
        stage.batch_images,
        stage.captions_per_image,
        np.random.default_rng(seed),
        processes.own_slice(),
        run.times,
    )
    todo = islice(batches, state.batch, None)  # earlier ones were done before the run was stopped
    steps = stage.epochs * math.ceil(images_of_epoch(run.times) / stage.batch_images)
    objective = stage.objective(captions, run.tokenizer)
    learner.model.train()
    begin = time.perf_counter()
    for batch, images in inputs.train(todo, seed):
        processes.own_random_numbers(*seed, state.batch)
        images, batch, done = images.to(device), batch.to(device), state.step / steps
        seen = step(run.accelerator, stage, objective, learner.trained, learner.optimizer, images, batch, done)
        if learner.average is not None:
            learner.average.update_parameters(learner.model)
        state.count(seen, time.perf_counter() - begin)
        add_to(curves, "loss", seen.terms, state.step)
        add_to(curves, "samples", seen.measures, state.step)
        run.tell(epoch_so_far(run))
        stop = any(processes.everyones(interrupted()))
        if stop or time.monotonic() - learner.saved_at >= run.recipe.checkpoint_seconds:
            learner.save(run)
        if stop:
            processes.fail(
                Interrupted(f"Stopped in epoch {state.epoch + 1}; the run is saved.", "Add --resume to continue.")
            )
        begin = time.perf_counter()


def is_over(run: Run) -> bool:
    """Whether the stage has done all its epochs, or its patience is over."""
    state, stage = run.state, run.stage
    impatient = stage.patience is not None and state.epochs_since_best >= stage.patience
    return state.averaged or state.epoch >= stage.epochs or impatient


def epoch_so_far(run: Run) -> Epoch:
    state, stage = run.state, run.stage
    return Epoch(
        epoch=state.epoch + 1,
        epochs=stage.epochs,
        captions=state.captions,
        all_captions=round(
            sum(
                times * stage.captions_computed(len(captions))
                for captions, times in zip(run.captions, run.times, strict=True)
            )
        ),
        captions_per_second=state.captions_per_second,
        loss=state.mean_loss,
    )


def curves_of(run: Run) -> AbstractContextManager[SummaryWriter | None]:
    """The curves for TensorBoard, in the main process."""
    if not processes.is_main():
        return nullcontext()
    curves: SummaryWriter = SummaryWriter(run.folder / "tensorboard", purge_step=run.state.step)
    return curves


def add_to(curves: SummaryWriter | None, group: str, values: Mapping[str, float], step: int) -> None:
    if curves is not None:
        for name, value in values.items():
            curves.add_scalar(f"{group}/{name}", value, step)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C wait for the end of the step, so that a complete state is saved; a second one does not wait.

    SIGTERM, with which clusters and launchers end a run, waits, too. A launcher passes Ctrl-C on to processes that
    already got it from the terminal, so a second one counts only in a run of one process.

    Yields:
        A function that says whether Ctrl-C was pressed.
    """
    pressed = False

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed and signum == signal.SIGINT and processes.count() == 1:
            raise KeyboardInterrupt
        pressed = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread gets signals
        return
    before = {number: signal.signal(number, on_interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: pressed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
