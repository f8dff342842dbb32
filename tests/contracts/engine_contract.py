"""What every engine must do for search to be right. Call `check_engine` with the engine and a few images.

Each check is a function of its own, so that a failure names the promise that was broken. Log-probabilities
are compared over the whole vocabulary, word by word, so that ties may fall either way.
"""

from typing import Any

import numpy as np

from showtell.search import Engine, Proposals

START = 1


def check_engine(
    engine: Engine,
    images: np.ndarray,
    *,
    vocabulary_size: int,
    tolerance: float = 1e-4,
    attention_tolerance: float = 1e-3,
    seed: int = 0,
) -> None:
    """Raise AssertionError unless the engine keeps every promise of `showtell.search.engine.Engine`.

    Args:
        engine: the engine.
        images: `[B, 3, S, S]` float32, or whatever its `encode` reads; B of 3 or more, all different.
        vocabulary_size: V.
        tolerance: the largest difference of two log-probabilities that should be equal.
        attention_tolerance: how far an attention's sum may be from 1.
        seed: of the random words and parents.
    """
    assert engine.batches_at_a_time >= 1
    assert engine.arithmetic is None or engine.arithmetic
    memory = engine.encode(images)
    assert engine.batch_size(memory) == len(images) >= 3
    check_start_is_one_row_an_image(engine, memory)
    check_proposals(engine, memory, vocabulary_size, tolerance)
    check_attention(engine, memory, tolerance, attention_tolerance)
    for each in range(3):
        random = np.random.default_rng([seed, each])
        check_steps_equal_the_replayed_prefix(engine, memory, vocabulary_size, tolerance, random)
    random = np.random.default_rng([seed, 3])
    check_no_parents_means_the_same_rows(engine, memory, vocabulary_size, tolerance, random)
    check_state_is_a_value(engine, memory, vocabulary_size, random)
    check_select_changes_nobody_else(engine, memory, vocabulary_size, tolerance, random)
    check_an_image_alone_equals_the_batch(engine, images, vocabulary_size, tolerance, random)


def first_tokens(batch: int) -> np.ndarray:
    return np.full((batch, 1), START)


def words(random: np.random.Generator, vocabulary_size: int, batch: int, rows: int) -> np.ndarray:
    """Random words `[B, K]`, specials left out."""
    return random.integers(4, vocabulary_size, size=(batch, rows))


def by_word(proposals: Proposals) -> np.ndarray:
    """Log-probabilities `[B, K, V]` in the vocabulary's order, from proposals of the whole vocabulary."""
    log_probs = np.empty(proposals.log_probs.shape)
    np.put_along_axis(log_probs, proposals.ids, proposals.log_probs, axis=2)
    return log_probs


def agree(actual: np.ndarray, expected: np.ndarray, tolerance: float, broken: str) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=broken)


def check_start_is_one_row_an_image(engine: Engine, memory: Any) -> None:
    """Every array has image and hypothesis first, or `gather` and `select` mix things up; K grows from 1."""
    for attention in (False, True):
        for name, array in engine.start(memory, attention).items():
            shape = tuple(array.shape)
            assert shape[:2] == (engine.batch_size(memory), 1), f"start makes {name} {shape}"


def check_proposals(engine: Engine, memory: Any, vocabulary_size: int, tolerance: float) -> None:
    """Sorted, normalised before the cut, and the cut ones are the first of all."""
    batch = engine.batch_size(memory)
    whole, _ = engine.step(memory, engine.start(memory), first_tokens(batch), None, vocabulary_size)
    for top in sorted({1, min(7, vocabulary_size), vocabulary_size}):
        proposals, _ = engine.step(memory, engine.start(memory), first_tokens(batch), None, top)
        assert isinstance(proposals.ids, np.ndarray), "ids are not a NumPy array"
        assert isinstance(proposals.log_probs, np.ndarray), "log_probs are not a NumPy array"
        assert proposals.ids.shape == proposals.log_probs.shape == (batch, 1, top)
        assert proposals.ids.dtype == np.int64
        assert proposals.log_probs.dtype == np.float32
        assert (np.diff(proposals.log_probs, axis=2) <= 0).all(), "proposals are not sorted, the best first"
        assert (np.diff(np.sort(proposals.ids, axis=2), axis=2) > 0).all(), "a word is proposed twice"
        agree(proposals.log_probs, whole.log_probs[:, :, :top], tolerance, f"top={top} are not the best of all")
        named = np.take_along_axis(by_word(whole), proposals.ids, axis=2)
        agree(proposals.log_probs, named, tolerance, f"top={top} gives a word another's log-probability")
    total = np.exp(whole.log_probs.astype(np.float64)).sum(axis=2)
    agree(total, np.ones_like(total), 1e-4, "probabilities do not sum to 1 over the vocabulary")


def check_attention(engine: Engine, memory: Any, tolerance: float, attention_tolerance: float) -> None:
    """Attention comes for every hypothesis and sums to 1; asking for it changes nothing else."""
    batch = engine.batch_size(memory)
    plain, _ = engine.step(memory, engine.start(memory), first_tokens(batch), None, 5)
    first, state = engine.step(memory, engine.start(memory, attention=True), first_tokens(batch), None, 5)
    agree(first.log_probs, plain.log_probs, tolerance, "asking for attention changed the proposals")
    zeros = np.zeros((batch, 4), dtype=np.int64)
    second, _ = engine.step(memory, state, first.ids[:, 0, :4], zeros, 5)
    for rows, proposals in ((1, first), (4, second)):
        if proposals.attention is None:  # this model has none
            continue
        assert isinstance(proposals.attention, np.ndarray), "attention is not a NumPy array"
        assert proposals.attention.shape[:2] == (batch, rows)
        assert proposals.attention.dtype == np.float32
        total = proposals.attention.sum(axis=2)
        agree(total, np.ones_like(total), attention_tolerance, "attention does not sum to 1 over the cells")


def check_steps_equal_the_replayed_prefix(
    engine: Engine, memory: Any, vocabulary_size: int, tolerance: float, random: np.random.Generator
) -> None:
    """After random parents (repeated, left out, K changing), a row equals its words said from the start."""
    batch = engine.batch_size(memory)
    said = np.zeros((batch, 1, 0), dtype=np.int64)  # [B, K, t]
    tokens, parents = first_tokens(batch), None
    state = engine.start(memory)
    for rows in (3, 5, 5, 2, 4, 1, 3):
        _, state = engine.step(memory, state, tokens, parents, 1)
        parents = random.integers(0, said.shape[1], size=(batch, rows))
        tokens = words(random, vocabulary_size, batch, rows)
        continued = np.take_along_axis(said, parents[:, :, None], axis=1)
        said = np.concatenate([continued, tokens[:, :, None]], axis=2)
    proposals, _ = engine.step(memory, state, tokens, parents, vocabulary_size)
    for row in range(said.shape[1]):
        replayed = replay(engine, memory, said[:, row], vocabulary_size)
        agree(by_word(proposals)[:, row], replayed, tolerance, f"row {row} forgot whom it continues")


def replay(engine: Engine, memory: Any, said: np.ndarray, vocabulary_size: int) -> np.ndarray:
    """Log-probabilities `[B, V]` of the next word after `said` `[B, t]`: one hypothesis, no parents."""
    state = engine.start(memory)
    tokens = first_tokens(len(said))
    for t in range(said.shape[1]):
        _, state = engine.step(memory, state, tokens, None, 1)
        tokens = said[:, t, None]
    proposals, _ = engine.step(memory, state, tokens, None, vocabulary_size)
    return by_word(proposals)[:, 0]


def after_two_words(
    engine: Engine, memory: Any, vocabulary_size: int, random: np.random.Generator
) -> tuple[Any, np.ndarray, np.ndarray]:
    """A state in the middle of a search, and tokens and parents `[B, 4]` for its next step."""
    batch = engine.batch_size(memory)
    _, state = engine.step(memory, engine.start(memory), first_tokens(batch), None, 1)
    zeros = np.zeros((batch, 4), dtype=np.int64)
    _, state = engine.step(memory, state, words(random, vocabulary_size, batch, 4), zeros, 1)
    return state, words(random, vocabulary_size, batch, 4), random.integers(0, 4, size=(batch, 4))


def check_no_parents_means_the_same_rows(
    engine: Engine, memory: Any, vocabulary_size: int, tolerance: float, random: np.random.Generator
) -> None:
    """`parents=None` saves the gather of rows 0 to K - 1."""
    state, tokens, parents = after_two_words(engine, memory, vocabulary_size, random)
    same = np.broadcast_to(np.arange(4), parents.shape).copy()
    named, _ = engine.step(memory, state, tokens, same, vocabulary_size)
    unnamed, _ = engine.step(memory, state, tokens, None, vocabulary_size)
    agree(by_word(named), by_word(unnamed), tolerance, "parents=None is not every row as it is")


def check_state_is_a_value(engine: Engine, memory: Any, vocabulary_size: int, random: np.random.Generator) -> None:
    """A step taken from a state leaves the state as it was, and nothing hides in the engine."""
    state, tokens, parents = after_two_words(engine, memory, vocabulary_size, random)
    first, _ = engine.step(memory, state, tokens, parents, vocabulary_size)
    engine.step(memory, state, tokens[:, ::-1].copy(), parents[:, ::-1].copy(), vocabulary_size)
    again, _ = engine.step(memory, state, tokens, parents, vocabulary_size)
    agree(by_word(first), by_word(again), 0, "a step changed the state that it was given")


def check_select_changes_nobody_else(
    engine: Engine, memory: Any, vocabulary_size: int, tolerance: float, random: np.random.Generator
) -> None:
    """Images that stay, in any order, go on as if nobody had left."""
    state, tokens, parents = after_two_words(engine, memory, vocabulary_size, random)
    everybody, _ = engine.step(memory, state, tokens, parents, vocabulary_size)
    batch = engine.batch_size(memory)
    for staying in (np.arange(1, batch), np.array([batch - 1]), np.arange(batch)[::-2].copy()):
        some_memory, some_state = engine.select(memory, state, staying)
        assert engine.batch_size(some_memory) == len(staying)
        some, _ = engine.step(some_memory, some_state, tokens[staying], parents[staying], vocabulary_size)
        agree(by_word(some), by_word(everybody)[staying], tolerance, f"select({staying}) changed images")


def check_an_image_alone_equals_the_batch(
    engine: Engine, images: np.ndarray, vocabulary_size: int, tolerance: float, random: np.random.Generator
) -> None:
    """Images of a batch know nothing of each other."""
    said = words(random, vocabulary_size, len(images), 3)
    together = replay(engine, engine.encode(images), said, vocabulary_size)
    for image in range(len(images)):
        one = slice(image, image + 1)
        alone = replay(engine, engine.encode(images[one]), said[one], vocabulary_size)
        agree(together[one], alone, tolerance, f"image {image} feels its batch")
