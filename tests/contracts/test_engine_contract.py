"""The contract holds for the scripted engine, and each way of breaking it is noticed."""

import numpy as np
import pytest

from showtell.search import Proposals
from tests.contracts.engine_contract import check_engine
from tests.search.scripted import ScriptedEngine

IMAGES = np.arange(4)


def test_the_scripted_engine_keeps_the_contract() -> None:
    check_engine(ScriptedEngine(), IMAGES, vocabulary_size=8)


class StartsWithTwoRows(ScriptedEngine):
    def start(self, memory, attention=False):
        return {name: np.repeat(array, 2, axis=1) for name, array in super().start(memory, attention).items()}


class IgnoresParents(ScriptedEngine):
    def step(self, memory, state, tokens, parents, top):
        wrong = None if parents is None else np.zeros_like(parents)
        return super().step(memory, state, tokens, wrong, top)


class ShiftsWithoutParents(ScriptedEngine):
    def step(self, memory, state, tokens, parents, top):
        if parents is None:
            parents = np.broadcast_to(np.arange(tokens.shape[1])[::-1], tokens.shape)
        return super().step(memory, state, tokens, parents, top)


class ChangesItsProposals(ScriptedEngine):
    """`change(ids, log_probs)` says how."""

    def step(self, memory, state, tokens, parents, top):
        proposals, state = super().step(memory, state, tokens, parents, top)
        ids, log_probs = self.change(proposals.ids, proposals.log_probs)
        return Proposals(ids, log_probs, proposals.attention), state


class Unsorted(ChangesItsProposals):
    def change(self, ids, log_probs):
        return ids[..., ::-1], log_probs[..., ::-1]


class NormalisedAfterTheCut(ChangesItsProposals):
    def change(self, ids, log_probs):
        return ids, log_probs - np.log(np.exp(log_probs).sum(axis=2, keepdims=True))


class NotNormalised(ChangesItsProposals):
    def change(self, ids, log_probs):
        return ids, log_probs + np.float32(0.1)


class WrongType(ChangesItsProposals):
    def change(self, ids, log_probs):
        return ids, log_probs.astype(np.float64)


class AttendsToTooMuch(ScriptedEngine):
    def attention(self, image, words):
        return super().attention(image, words) * 2


class SelectForgetsTheState(ScriptedEngine):
    def select(self, memory, state, images):
        return super().select(memory, state, images)[0], {name: a[: len(images)] for name, a in state.items()}


class FeelsItsBatch(ScriptedEngine):
    def encode(self, images):
        return {"image": np.asarray(images) + len(images)}


class KeepsItsOwnState(ScriptedEngine):
    steps = 0

    def log_probs(self, image, words):
        self.steps += 1
        return super().log_probs(image + self.steps * (len(words) == 3), words)


class WritesIntoItsState(ScriptedEngine):
    def step(self, memory, state, tokens, parents, top):
        answer = super().step(memory, state, tokens, parents, top)
        state["said"][:, :, 1:] = 4
        return answer


@pytest.mark.parametrize(
    "broken",
    [
        StartsWithTwoRows, IgnoresParents, ShiftsWithoutParents, Unsorted, NormalisedAfterTheCut,
        NotNormalised, WrongType, AttendsToTooMuch, SelectForgetsTheState, FeelsItsBatch, KeepsItsOwnState,
        WritesIntoItsState,
    ],
)  # fmt: skip
def test_a_broken_engine_is_noticed(broken: type[ScriptedEngine]) -> None:
    """Guards the guard: a check that no engine fails checks nothing."""
    with pytest.raises(AssertionError):
        check_engine(broken(), IMAGES, vocabulary_size=8)
