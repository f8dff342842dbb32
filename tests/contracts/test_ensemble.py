"""Several engines as one: averages made by hand, the contract of every engine, and search on top."""

import numpy as np
import pytest

from showtell.engines.ensemble import EnsembleEngine
from showtell.search import SearchOptions, search
from tests.contracts.engine_contract import START, by_word, check_engine
from tests.search.scripted import ScriptedEngine, ScriptedVocabulary

IMAGES = np.arange(4)


class OtherEngine(ScriptedEngine):
    """Another model of the same words."""

    def log_probs(self, image, words):
        return super().log_probs(image + 1000, words)

    def attention(self, image, words):
        return super().attention(image + 1000, words)


class BlindEngine(ScriptedEngine):
    """Has no attention."""

    def step(self, memory, state, tokens, parents, top):
        proposals, state = super().step(memory, state, tokens, parents, top)
        return type(proposals)(proposals.ids, proposals.log_probs), state


def ensemble(*engines: ScriptedEngine) -> EnsembleEngine:
    return EnsembleEngine(engines, engines[0].size)


def first_step(engine, top: int, *, attention: bool = True):
    memory = engine.encode(IMAGES)
    return engine.step(memory, engine.start(memory, attention), np.full((4, 1), START), None, top)[0]


@pytest.mark.parametrize("members", [1, 2, 12])
def test_an_ensemble_is_an_engine(members: int) -> None:
    """Twelve members: number 1's arrays must not be taken for number 11's."""
    check_engine(ensemble(*[ScriptedEngine(), *[OtherEngine() for _ in range(members - 1)]]), IMAGES, vocabulary_size=8)


def test_probabilities_are_averaged_and_not_their_logarithms() -> None:
    """Guards against a product of experts, which one member's near zero vetoes."""
    one, other = ScriptedEngine(size=9, sharpness=5.0), OtherEngine(size=9, sharpness=5.0)
    expected = [np.log((np.exp(one.log_probs(b, [])) + np.exp(other.log_probs(b, []))) / 2) for b in range(4)]
    np.testing.assert_allclose(by_word(first_step(ensemble(one, other), 9))[:, 0], expected, atol=1e-5)


def test_a_word_that_no_member_puts_first_can_be_first() -> None:
    """Guards against averaging the members' first few proposals only."""

    class Likes(ScriptedEngine):
        def __init__(self, word: int) -> None:
            super().__init__()
            self.word = word

        def log_probs(self, image, words):
            probabilities = np.full(self.size, 0.002)
            probabilities[[self.word, 6]] = 0.55, 0.438
            return np.log(probabilities)

    proposals = first_step(ensemble(Likes(4), Likes(5)), 1)
    assert proposals.ids.ravel().tolist() == [6] * 4
    np.testing.assert_allclose(proposals.log_probs, np.log(0.438), atol=1e-5)


def test_attention_is_the_mean() -> None:
    one, other = ScriptedEngine(), OtherEngine()
    expected = [(one.attention(b, []) + other.attention(b, [])) / 2 for b in range(4)]
    np.testing.assert_allclose(first_step(ensemble(one, other), 5).attention[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("other", [BlindEngine(), OtherEngine(cells=9)])
def test_no_attention_where_members_disagree_about_it(other: ScriptedEngine) -> None:
    """The attention of one member would pass for that of all."""
    assert first_step(ensemble(ScriptedEngine(), other), 5).attention is None


@pytest.mark.parametrize("options", [SearchOptions(beam=4, num=4), SearchOptions(sample=True, num=3, top_k=4)])
def test_two_of_the_same_caption_like_one(options: SearchOptions) -> None:
    """Images leave at different times, so `select` is walked through too."""
    vocabulary = ScriptedVocabulary()
    several = []
    for engine in (ScriptedEngine(), ensemble(ScriptedEngine(), ScriptedEngine())):
        found = search(engine, engine.encode(IMAGES), options, vocabulary, attention=True)
        several.append([[each.tokens for each in hypotheses] for hypotheses in found])
    assert several[0] == several[1]


def test_cached_features_go_to_all_members() -> None:
    memory = ensemble(ScriptedEngine(), ScriptedEngine()).memory_from_grid(IMAGES)
    assert {name: array.tolist() for name, array in memory.items()} == {
        "0.image": [0, 1, 2, 3],
        "1.image": [0, 1, 2, 3],
    }
