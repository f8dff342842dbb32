"""Sampling: every caption is drawn word by word, as likely as the model (and the temperature) makes it.

Each image has its own random generator, made from the seed and the image's number, and each of its samples uses its own
part of that generator's numbers: an image's captions don't depend on its batch, and its first sample does not depend on
how many more are drawn.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from showtell.search.engine import BoolArray, Engine, FloatArray, IntArray, Memory
from showtell.search.hypotheses import Best, Hypothesis, Paths, captions
from showtell.search.options import SearchOptions
from showtell.search.rules import Past, Rule, lowered, most_lowered


def sample(
    engine: Engine,
    memory: Memory,
    options: SearchOptions,
    rules: Sequence[Rule],
    *,
    start: int,
    end: int,
    vocabulary_size: int,
    image_numbers: Sequence[int],
    attention: bool = False,
) -> list[list[Hypothesis]]:
    """Return `options.num` samples of every image, best first; `image_numbers` `[B]` seed them."""
    batch, steps = engine.batch_size(memory), options.max_words + 1
    paths, finished, unfinished = Paths(batch), Best(batch, options.num), Best(batch, options.num)
    chance = _random_numbers(options, image_numbers, steps)  # [B, K, steps]
    images = np.arange(batch)  # images with an unfinished sample
    state = engine.start(memory, attention)
    tokens = np.full((batch, 1), start)  # [B, 1] in the first step, which all the samples share, then [B, K]
    parents: IntArray | None = None
    totals = np.zeros((batch, options.num))
    alive = np.ones((batch, options.num), dtype=bool)
    # After max_words words there is one more step, in which a sample may end but not continue.
    for length in range(steps):
        lowerable = most_lowered(rules, length)
        top = vocabulary_size if options.top_k is None else min(vocabulary_size, options.top_k + lowerable)
        proposals, state = engine.step(memory, state, tokens, parents, top)
        past = Past(length, partial(paths.words, images, tokens.shape[1]))
        reached = _weights(lowered(rules, past, proposals), options).cumsum(axis=2)  # [B, 1 or K, top]
        picked, possible = _draw(reached, chance[images, :, length])  # [B, K]
        rows = np.broadcast_to(np.arange(options.num) if length else 0, picked.shape)  # of this step's arrays
        image = np.arange(len(images))[:, None]
        drawn = proposals.ids[image, rows, picked]  # [B, K]
        log_probs = proposals.log_probs[image, rows, picked].astype(np.float64)
        paths.add(drawn, rows, log_probs, proposals.attention if attention else None)

        ends = alive & possible & (drawn == end)
        lives = alive & possible & ~ends & (length < options.max_words)
        cut = alive & ~ends & ~lives
        if cut.any():
            scores = np.where(cut, totals, -np.inf) / max(1, length) ** options.length_penalty
            unfinished.add(images, scores, length)
        totals = totals + log_probs
        if ends.any():
            scores = np.where(ends, totals, -np.inf) / (length + 1) ** options.length_penalty
            finished.add(images, scores, length + 1)
        staying = np.flatnonzero(lives.any(axis=1))
        if not len(staying):
            break
        tokens, alive = drawn, lives
        # The samples part after the first word; from then on each continues its own row.
        parents = np.zeros_like(drawn) if proposals.ids.shape[1] < options.num else None
        if len(staying) < len(images):
            memory, state = engine.select(memory, state, staying)
            tokens, totals, alive, images = tokens[staying], totals[staying], alive[staying], images[staying]
            parents = None if parents is None else parents[staying]
            paths.select(images)
    return captions(paths, finished, unfinished, options.num)


def _random_numbers(options: SearchOptions, image_numbers: Sequence[int], steps: int) -> FloatArray:
    """Return one number in [0, 1) for each image, sample and step, `[B, K, steps]`."""
    numbers = [np.random.default_rng([options.seed, image]).random((options.num, steps)) for image in image_numbers]
    return np.stack(numbers)


def _weights(log_probs: FloatArray, options: SearchOptions) -> FloatArray:
    """Return how often each proposal is drawn, `[B, K, top]`, not normalised: temperature, top-k, top-p.

    Float32 is several times as fast over a whole vocabulary; a sum of thousands is accurate to about 1e-5.
    """
    best = log_probs.max(axis=2, keepdims=True)
    best = np.where(best > -np.inf, best, np.float32(0))  # if every word is forbidden, all weights are 0
    weights: FloatArray = log_probs - best
    weights /= options.temperature
    np.exp(weights, out=weights)
    if options.top_k is not None:
        weights *= (weights > 0).cumsum(axis=2) <= options.top_k
    if options.top_p is not None:
        reached = weights.cumsum(axis=2)
        # The word that passes p is kept: Holtzman et al. 2020 draw from the smallest set that reaches p.
        weights *= reached - weights < options.top_p * reached[:, :, -1:]
    return weights


def _draw(reached: FloatArray, chance: FloatArray) -> tuple[IntArray, BoolArray]:
    """Return the place `[B, K]` where each number in [0, 1) falls among summed weights, and whether any is over 0.

    Takes `reached` `[B, 1 or K, top]`, the weights summed up to each place, and `chance` `[B, K]`.
    """
    total = reached[:, :, -1]
    below = np.nextafter(total, np.float32(0))  # rounding must not lead past the last weight
    target = np.minimum((chance * total).astype(np.float32), below)
    picked = (reached <= target[..., None]).sum(axis=2)
    possible = np.broadcast_to(total > 0, picked.shape)
    return np.where(possible, picked, 0), possible
