"""Beam search over the K most likely hypotheses of every image, all images at once; greedy search is K = 1.

At each step the candidates of an image (each hypothesis with each proposed word) are visited from the most likely
down, until K are found that stay alive; an `<end>` on the way finishes its hypothesis.

An image is done when K of its hypotheses have finished and the best living one, as it is, scores no better than
those to be returned. Without the second condition ("first come, first served" in Kasai et al. 2022, "A Call for
Clarity in Beam Search") a confident model returns broken-off captions: one improbable `<end>` per step is enough to
fill the K. An image is also done when no living hypothesis can change the result any more: totals only fall, so a
hypothesis with total s ends with `s / (max_words + 1) ** length_penalty` at most.

With `like_generate`, captions are those of transformers' `generate` (early_stopping=False), word for word: an `<end>`
counts only among the K likeliest candidates, and the best living hypothesis is compared with the last of the K that
have finished, not with the last of those to be returned.

Diverse beam search (Vijayakumar et al. 2016) splits the K among groups, each a beam of its own. At each step
they choose in turn, and a word counts as less likely by `diversity` for each hypothesis of an earlier group
that has just said it (their Hamming diversity). That only decides which candidates are taken: totals and scores stay
the model's. `<end>` is not a word: no hypothesis is kept from ending because others end.

Required words: a hypothesis that says one is less likely than the others, so there is one beam for each number of
required ids that are still lacking (grid beam search, Hokamp & Liu 2017): a bank of K. It is filled from itself, by
hypotheses that say one more required id, and by those that have begun a word of several ids and leave it. Only the
last bank can end, but hypotheses in all banks count as alive, since they may still reach the last one.

Truncated proposals give exactly the beam over the full vocabulary: at most K words of one hypothesis live, and an
`<end>` that K of its own words outrank is never reached, so K + 1 unlowered proposals are enough. With
groups, K is a group's share, and the words that other groups say may be lowered, too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TypeVar

import numpy as np

from showtell.search.engine import BoolArray, Engine, FloatArray, IntArray, Memory
from showtell.search.hypotheses import Best, Hypothesis, Paths, captions
from showtell.search.options import SearchOptions
from showtell.search.rules import Past, Required, Rule, lowered, most_lowered

Array = TypeVar("Array", IntArray, FloatArray)


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
    """Return the `options.num` best hypotheses of every image over all groups, best first.

    There are fewer only if the rules leave fewer. Hypotheses that were cut off come after those that finished, and
    those that lack most required words come last.
    """
    batch = engine.batch_size(memory)
    beam = options.beam // options.groups  # K of a group
    num = min(options.num, beam)  # captions that a group can contribute
    counted = beam if options.like_generate else num  # best captions that must be settled
    required = next((rule for rule in rules if isinstance(rule, Required)), None)
    paths = Paths(batch)
    finished = [Best(batch, beam) for _ in range(options.groups)]
    most_cut = beam if required is None else beam * (required.most_lacking + 1)  # of a group
    unfinished = [Best(batch, most_cut) for _ in range(options.groups)]
    images = np.arange(batch)  # images that are still being searched
    state = engine.start(memory, attention)
    tokens = np.full((batch, 1), start)  # [B, K]; K grows from the single row that `start` made
    parents: IntArray | None = None
    totals: FloatArray = np.zeros((batch, 1))
    rows = [slice(0, 1)] * options.groups  # each group's rows; all begin with the single one
    # After max_words words there is one more step, in which a hypothesis may end but not continue.
    for length in range(options.max_words + 1):
        needed = beam + (options.beam > 1)  # K that live and one <end>; greedy search needs only one of both
        by_others = options.beam - beam if options.diversity else 0
        top = min(vocabulary_size, needed + by_others + most_lowered(rules, length))
        proposals, state = engine.step(memory, state, tokens, parents, top)
        past = Past(length, cache(partial(paths.words, images, tokens.shape[1])))
        log_probs = lowered(rules, past, proposals)
        if required is not None:
            lacking = required.lacking(past, proposals.ids)
            chosen = [_choose_in_banks(totals, proposals.ids, log_probs, lacking, required.most_lacking, options, end)]
        else:
            chosen = _choose_in_turn(totals, proposals.ids, log_probs, rows, options, end, vocabulary_size)
        paths.add(*_layer(chosen, rows, end), proposals.attention if attention else None)
        _add_ended(finished, chosen, images, length, options)

        over = np.empty((len(images), options.groups), dtype=bool)  # groups that choose no more
        settled = np.empty_like(over)  # groups that may choose more, without changing the result
        for group, each in enumerate(chosen):
            scores = finished[group].scores[images]
            over[:, group], settled[:, group] = _over_or_settled(
                scores, each.totals.max(axis=1), counted, length, options
            )
            short = over[:, group] & (scores[:, num - 1] == -np.inf)  # cut off before enough finished
            if short.any():
                left = np.where(each.end_totals > -np.inf, -np.inf, totals[:, rows[group]])[short]
                unfinished[group].add(
                    images[short], left / max(1, length) ** options.length_penalty, length, rows[group].start
                )
        done = (over | settled).all(axis=1)
        if done.all():
            break
        was_one_row = tokens.shape[1] == 1
        rows = _slices(each.tokens.shape[1] for each in chosen)
        tokens = _side_by_side([each.tokens for each in chosen])
        totals = _side_by_side([np.where(over[:, [g]], -np.inf, each.totals) for g, each in enumerate(chosen)])
        greedy = was_one_row and tokens.shape[1] == 1
        parents = None if greedy else _side_by_side([each.parents for each in chosen])
        if done.any():
            staying = np.flatnonzero(~done)
            memory, state = engine.select(memory, state, staying)
            tokens, totals, images = tokens[staying], totals[staying], images[staying]
            parents = None if parents is None else parents[staying]
            paths.select(images)
    if required is not None:
        every = captions(paths, finished[0], unfinished[0], beam + most_cut)
        return [sorted(each, key=lambda found: required.missing(np.array(found.tokens)).sum())[:num] for each in every]
    found = [captions(paths, *bests, num) for bests in zip(finished, unfinished, strict=True)]
    if options.groups == 1:
        return found[0]
    return [_best_of([each for group in groups for each in group], options.num) for groups in zip(*found, strict=True)]


def _over_or_settled(
    finished: FloatArray, best_total: FloatArray, num: int, length: int, options: SearchOptions
) -> tuple[BoolArray, BoolArray]:
    """Return in which images `[B]` a group stops, and in which its `num` best finished captions are settled.

    Takes the scores of the finished hypotheses `[B, K]`, best first, and the best total `[B]` of a living one, which
    has `length + 1` words; both are minus infinity if there is none.
    """
    if length == options.max_words:
        return np.ones(len(finished), dtype=bool), np.ones(len(finished), dtype=bool)
    worst = finished[:, num - 1]
    settled: BoolArray = worst >= best_total / (options.max_words + 1) ** options.length_penalty
    beaten: BoolArray = worst >= best_total / (length + 1) ** options.length_penalty
    full: BoolArray = finished[:, -1] > -np.inf
    return (beaten & full) | (best_total == -np.inf), settled


@dataclass(frozen=True)
class _Chosen:
    """What a group decides in a step: W hypotheses that live (W <= K), and which of its R previous rows end."""

    tokens: IntArray  # [B, W]
    parents: IntArray  # [B, W], among the rows of all groups
    log_probs: FloatArray  # [B, W], of the tokens
    totals: FloatArray  # [B, W], in the order in which they were taken; minus infinity if fewer live
    any_end: bool
    end_log_probs: FloatArray  # [B, R]
    end_totals: FloatArray  # [B, R]; minus infinity where the hypothesis does not end


def _choose_in_turn(
    totals: FloatArray,
    ids: IntArray,
    log_probs: FloatArray,
    rows: Sequence[slice],
    options: SearchOptions,
    end: int,
    vocabulary_size: int,
) -> list[_Chosen]:
    """Return what each group chooses; later groups lower the words `[B, K, top]` of earlier ones."""
    said: FloatArray | None = None  # [B, V]: how often earlier groups have just said each word
    chosen: list[_Chosen] = []
    for of_group in rows:
        group_ids, group_log_probs = ids[:, of_group], log_probs[:, of_group]
        less = None if said is None else options.diversity * said[np.arange(len(ids))[:, None, None], group_ids]
        each = _choose(totals[:, of_group], group_ids, group_log_probs, less, of_group.start, options, end)
        chosen.append(each)
        if options.diversity and len(chosen) < len(rows):
            said = np.zeros((len(ids), vocabulary_size)) if said is None else said
            np.add.at(said, (np.arange(len(ids))[:, None], each.tokens), each.totals > -np.inf)
    return chosen


def _choose_in_banks(
    totals: FloatArray,
    ids: IntArray,
    log_probs: FloatArray,
    lacking: IntArray,
    most_lacking: int,
    options: SearchOptions,
    end: int,
) -> _Chosen:
    """Return up to K hypotheses for each number of lacking required ids, from the most to 0, side by side.

    Takes how many ids are lacking after each proposal `[B, R, top]`, for the whole vocabulary; the rest as `_choose`.
    """
    wanted = lacking < lacking.max(axis=2, keepdims=True)  # other ids bring a row no closer to the words
    # A row's wanted ids and K others matter; or, if it wants none, K and <end>.
    most = options.beam + max(1, int(wanted.sum(axis=2).max()))
    order = np.argsort(-np.where(wanted, np.inf, log_probs), axis=2, kind="stable")[..., :most]
    ids, lacking = np.take_along_axis(ids, order, axis=2), np.take_along_axis(lacking, order, axis=2)
    log_probs = np.take_along_axis(log_probs, order, axis=2)
    banks = [
        _choose(totals, ids, np.where(lacking == count, log_probs, -np.inf), None, 0, options, end)
        for count in range(most_lacking, -1, -1)
    ]
    return replace(
        banks[-1],
        tokens=_side_by_side([bank.tokens for bank in banks]),
        parents=_side_by_side([bank.parents for bank in banks]),
        log_probs=_side_by_side([bank.log_probs for bank in banks]),
        totals=_side_by_side([bank.totals for bank in banks]),
    )


def _choose(
    totals: FloatArray,
    ids: IntArray,
    log_probs: FloatArray,
    less: FloatArray | None,
    first_row: int,
    options: SearchOptions,
    end: int,
) -> _Chosen:
    """Visit each image's candidates from the best down until K of them live.

    Takes totals `[B, R]`, of rows `first_row` and up; ids and log-probabilities `[B, R, top]` after the rules;
    and how much less than that a word counts because of other groups, or None.
    """
    batch, rows, top = ids.shape
    beam = options.beam // options.groups
    log_probs = log_probs.reshape(batch, rows * top)
    candidates = np.repeat(totals, top, axis=1) + log_probs  # [B, R * top]
    ranks = candidates if less is None else candidates - less.reshape(batch, rows * top)
    # At most `rows` ends come before the last one that lives. Equals keep the proposals' order.
    order = np.argsort(-ranks, axis=1, kind="stable")[:, : beam + rows]
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
    if options.like_generate:
        ends[:, beam:] = False
    end_log_probs = np.full((batch, rows), -np.inf)
    any_end = bool(ends.any())
    if any_end:
        in_batch, rank = np.nonzero(ends)
        picked = order[in_batch, rank]
        end_log_probs[in_batch, picked // top] = log_probs[in_batch, picked]
    return _Chosen(
        tokens=ids.reshape(batch, rows * top)[image, live],
        parents=first_row + live // top,
        log_probs=log_probs[image, live],
        totals=live_totals,
        any_end=any_end,
        end_log_probs=end_log_probs,
        end_totals=totals + end_log_probs,
    )


def _layer(chosen: Sequence[_Chosen], rows: Sequence[slice], end: int) -> tuple[IntArray, IntArray, FloatArray]:
    """Return tokens, parents, log-probabilities `[B, R]`: what lives in each group, then its ends, if there are any."""
    tokens = [each.tokens for each in chosen]
    parents = [each.parents for each in chosen]
    log_probs = [each.log_probs for each in chosen]
    if any(each.any_end for each in chosen):
        for each, of_group in zip(chosen, rows, strict=True):
            ends = each.end_log_probs
            tokens.append(np.full(ends.shape, end))
            parents.append(np.broadcast_to(np.arange(of_group.start, of_group.stop), ends.shape))
            log_probs.append(ends)
    return _side_by_side(tokens), _side_by_side(parents), _side_by_side(log_probs)


def _add_ended(
    finished: Sequence[Best], chosen: Sequence[_Chosen], images: IntArray, length: int, options: SearchOptions
) -> None:
    """Offer each group's ended hypotheses, whose rows in the layer are those of `_layer`."""
    first_row = sum(each.tokens.shape[1] for each in chosen)
    for best, each in zip(finished, chosen, strict=True):
        if each.any_end:
            scores = each.end_totals / (length + 1) ** options.length_penalty
            best.add(images, scores, length + 1, first_row)
        first_row += each.end_totals.shape[1]


def _side_by_side(arrays: Sequence[Array]) -> Array:
    """Return the rows of several arrays `[B, R]` in one."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)


def _slices(widths: Iterable[int]) -> list[slice]:
    """Return consecutive slices of these widths."""
    slices, begin = [], 0
    for width in widths:
        slices.append(slice(begin, begin + width))
        begin += width
    return slices


def _best_of(found: Sequence[Hypothesis], num: int) -> list[Hypothesis]:
    """Return the `num` best of all groups, best first; duplicates count once, unless there are too few."""
    ranked = sorted(found, key=lambda each: (not each.finished, -each.score))
    first = {each.tokens: place for place, each in reversed(list(enumerate(ranked)))}
    repeated = [first[each.tokens] != place for place, each in enumerate(ranked)]
    kept = sorted(range(len(ranked)), key=repeated.__getitem__)[:num]
    return [ranked[place] for place in sorted(kept)]
