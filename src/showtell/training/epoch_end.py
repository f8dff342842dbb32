"""The end of an epoch: validation, a line of the log, the best model so far; at the end of a stage, mean weights."""

import time

from showtell.captioner import Captioner
from showtell.confidence import rarity_of
from showtell.engines.torch import TorchEngine
from showtell.metrics.table import rank_of
from showtell.models.captioning_model import CaptioningModel
from showtell.training import checkpoint, processes
from showtell.training.events import Note
from showtell.training.inputs.images import Inputs
from showtell.training.model_folder import bundle_config, save_model
from showtell.training.recipe import Json
from showtell.training.run import Run
from showtell.training.validation import validate, write_lines


def end_epoch(run: Run, model: CaptioningModel, inputs: Inputs) -> Json:
    """Validate, keep the model if it is the best so far, and return the epoch's line of the log."""
    state, stage = run.state, run.stage
    facts = {
        "loss": state.mean_loss,
        "learning_rate": stage.learning_rate * stage.learning_rate_factor((state.epoch + 1) / stage.epochs),
        "captions_per_second": state.captions_per_second,
        "padding": state.padding,
        **state.mean_measures,
    }
    line = add_validation(run, model, inputs, facts)
    if stage.best_epochs and processes.is_main():
        checkpoint.keep_weights(run.checkpoint, line["epoch"], model, best_epochs(run))
    state.end_epoch()
    return line


def end_with_mean(run: Run, model: CaptioningModel, inputs: Inputs) -> Json:
    """Put the mean weights of the stage's best epochs into the model, and validate it as after an epoch."""
    epochs = best_epochs(run)
    processes.wait()  # for the weights that the main process keeps
    model.load_state_dict(checkpoint.mean_weights(run.checkpoint, epochs))
    run.state.averaged = True
    return add_validation(run, model, inputs, {"mean_of": epochs})


def best_epochs(run: Run) -> list[int]:
    """The numbers of the stage's best-scoring epochs, at most `best_epochs`."""
    of_stage = [line for line in run.state.log if line["stage"] == run.state.stage and "loss" in line]
    best = sorted(of_stage, key=lambda line: rank_of(line["scores"]), reverse=True)[: run.stage.best_epochs]
    return sorted(line["epoch"] for line in best)


def add_validation(run: Run, model: CaptioningModel, inputs: Inputs, facts: Json) -> Json:
    """Validate, keep the model if it is the best so far, and return the new line of the log."""
    state = run.state
    began = time.perf_counter()
    captioner = Captioner(
        TorchEngine(model.eval(), run.accelerator.device), run.tokenizer, bundle_config(run, model, {})
    )
    rarity = rarity_of(run.captions, len(run.tokenizer))
    validation = validate(captioner, run.dev_examples, inputs, rarity, run.recipe.tokenizer.language)
    if problem := validation.problem():
        run.tell(Note(problem))
    line: Json = {
        "epoch": len(state.log) + (not run.recipe.start_counts),
        "stage": state.stage,
        "step": state.step,
        **facts,
        "minutes": state.minutes_before + (state.seconds + time.perf_counter() - began) / 60,
        "scores": validation.scores,
    }
    if validation.scores_of:
        line["scores_of"] = validation.scores_of
    best = state.add_line(line)
    if processes.is_main():
        if best:
            save_model(run, model, validation)
            write_lines(run.folder / "samples.jsonl", validation.samples())
        write_lines(run.folder / "log.jsonl", state.log)
    return line
