"""Beam search over the K most likely hypotheses of every image, all images at once; greedy search is K = 1.

At each step the candidates of an image, each hypothesis with each proposed word, are walked from the most
likely on, until K have been found that live; an `<end>` that is passed on the way finishes its hypothesis.

An image is done when K of its hypotheses have finished and the best living one, as it stands, scores no
better than those to be returned. Without the second half ("first come, first served" in Kasai et al. 2022, "A
Call for Clarity in Beam Search") a sure model returns broken-off captions: one improbable `<end>` a step is
enough to fill the K. An image is also done when no living hypothesis can still change what is returned:
totals only fall, so one with total s ends with `s / (max_words + 1) ** length_penalty` at most.

Truncated proposals give exactly the full-vocabulary beam: of one hypothesis at most K words live, and an
`<end>` that K of its own words outrank is never reached, so K + 1 unlowered proposals are enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from showtell.search.engine import BoolArray, Engine, FloatArray, IntArray, Memory
from showtell.search.hypotheses import Best, Hypothesis, Paths, captions
from showtell.search.options import SearchOptions
from showtell.search.rules import Past, Rule, lowered, most_lowered


def beam_search(
    engine: Engine,
    memory: Memory,
    options: SearchOptions,
    rules: Sequence[Rule],
    *,
    start: int,
    end: int,
    vocabulary_size: int,
    attention: bool = False,
) -> list[list[Hypothesis]]:
    """Return the `options.num` best hypotheses of every image, best first.

    There are fewer only when the rules leave fewer; those that were cut off stand behind those that finished.
    """
    batch = engine.batch_size(memory)
    paths, finished, unfinished = Paths(batch), Best(batch, options.beam), Best(batch, options.beam)
    images = np.arange(batch)  # those that are still searched
    state = engine.start(memory, attention)
    tokens = np.full((batch, 1), start)  # [B, K]; K grows from the one row that `start` made
    parents: IntArray | None = None
    totals: FloatArray = np.zeros((batch, 1))
    # After max_words words there is one more step, in which a hypothesis may end but no longer go on.
    for length in range(options.max_words + 1):
        needed = options.beam + (options.beam > 1)  # K that live and one <end>; the greedy one does either
        top = min(vocabulary_size, needed + most_lowered(rules, length))
        proposals, state = engine.step(memory, state, tokens, parents, top)
        past = Past(length, partial(paths.words, images, tokens.shape[1]))
        chosen = _choose(totals, proposals.ids, lowered(rules, past, proposals), options.beam, end)
        paths.add(*chosen.layer(end), proposals.attention if attention else None)
        if chosen.any_end:
            scores = chosen.end_totals / (length + 1) ** options.length_penalty
            finished.add(images, scores, length + 1, first_row=chosen.tokens.shape[1])

        done = _done(finished.scores[images], chosen.totals[:, 0], length, options)
        short = done & (finished.scores[images, options.num - 1] == -np.inf)  # cut off before enough finished
        if short.any():
            left = np.where(chosen.end_totals > -np.inf, -np.inf, totals)[short]
            unfinished.add(images[short], left / max(1, length) ** options.length_penalty, length)
        if done.all():
            break
        greedy = chosen.tokens.shape[1] == tokens.shape[1] == 1
        tokens, parents, totals = chosen.tokens, None if greedy else chosen.parents, chosen.totals
        if done.any():
            staying = np.flatnonzero(~done)
            memory, state = engine.select(memory, state, staying)
            tokens, totals, images = tokens[staying], totals[staying], images[staying]
            parents = None if parents is None else parents[staying]
            paths.select(images)
    return captions(paths, finished, unfinished, options.num)


def _done(finished: FloatArray, best_total: FloatArray, length: int, options: SearchOptions) -> BoolArray:
    """Return which images `[B]` need no more steps.

    Takes the scores of the finished hypotheses `[B, K]`, best first, the best total of a living one `[B]`,
    of `length + 1` words; both are minus infinity where there is none.
    """
    if length == options.max_words:
        return np.ones(len(finished), dtype=bool)
    worst = finished[:, options.num - 1]  # of those to be returned
    settled: BoolArray = worst >= best_total / (options.max_words + 1) ** options.length_penalty
    beaten: BoolArray = worst >= best_total / (length + 1) ** options.length_penalty
    full: BoolArray = finished[:, -1] > -np.inf
    return settled | (beaten & full)


@dataclass(frozen=True)
class _Chosen:
    """What one step decides: W hypotheses that live (W <= K), and which of the `[B, K]` before them end."""

    tokens: IntArray  # [B, W]
    parents: IntArray  # [B, W]
    log_probs: FloatArray  # [B, W], of the tokens
    totals: FloatArray  # [B, W], best first; minus infinity where fewer live
    any_end: bool
    end_log_probs: FloatArray  # [B, K]
    end_totals: FloatArray  # [B, K]; minus infinity where the hypothesis does not end

    def layer(self, end: int) -> tuple[IntArray, IntArray, FloatArray]:
        """Return tokens, parents, log-probabilities `[B, R]`: what lives, then a row for each end if any."""
        if not self.any_end:
            return self.tokens, self.parents, self.log_probs
        ends = self.end_log_probs
        every_row = np.broadcast_to(np.arange(ends.shape[1]), ends.shape)
        return (
            np.concatenate([self.tokens, np.full(ends.shape, end)], axis=1),
            np.concatenate([self.parents, every_row], axis=1),
            np.concatenate([self.log_probs, ends], axis=1),
        )


def _choose(totals: FloatArray, ids: IntArray, log_probs: FloatArray, beam: int, end: int) -> _Chosen:
    """Walk down each image's candidates until `beam` of them live.

    Takes totals `[B, K]`, and ids and log-probabilities `[B, K, top]` after the rules.
    """
    batch, rows, top = ids.shape
    log_probs = log_probs.reshape(batch, rows * top)
    candidates = np.repeat(totals, top, axis=1) + log_probs  # [B, K * top]
    # At most `rows` ends stand before the last one that lives. The order of equals is the proposals' order.
    order = np.argsort(-candidates, axis=1, kind="stable")[:, : beam + rows]
    image = np.arange(batch)[:, None]
    possible = candidates[image, order] > -np.inf
    is_end = ids.reshape(batch, rows * top)[image, order] == end
    lives = possible & ~is_end
    lives_so_far = lives.cumsum(axis=1)

    width = max(1, min(beam, int(lives_so_far[:, -1].max())))
    in_batch, rank = np.nonzero(lives & (lives_so_far <= beam))
    place = lives_so_far[in_batch, rank] - 1
    picked = order[in_batch, rank]
    live = np.zeros((batch, width), dtype=np.int64)
    live[in_batch, place] = picked
    live_totals = np.full((batch, width), -np.inf)
    live_totals[in_batch, place] = candidates[in_batch, picked]

    ends = possible & is_end & (lives_so_far < beam)
    end_log_probs = np.full((batch, rows), -np.inf)
    any_end = bool(ends.any())
    if any_end:
        in_batch, rank = np.nonzero(ends)
        picked = order[in_batch, rank]
        end_log_probs[in_batch, picked // top] = log_probs[in_batch, picked]
    return _Chosen(
        tokens=ids.reshape(batch, rows * top)[image, live],
        parents=live // top,
        log_probs=log_probs[image, live],
        totals=live_totals,
        any_end=any_end,
        end_log_probs=end_log_probs,
        end_totals=totals + end_log_probs,
    )
