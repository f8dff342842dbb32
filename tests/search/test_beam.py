"""Beam search against a textbook's, against brute force, and against itself: batched, truncated, alone."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showtell.search import Hypothesis, Proposals, SearchOptions, search
from showtell.tokenizer import Tokenizer, TokenizerConfig
from tests.search import textbook
from tests.search.scripted import END, PAD, START, UNK, ScriptedEngine, ScriptedVocabulary

BANNED = ("w5", "w6", "w99", "w5+4", "w4+5", "w4+4+5", "w4+4+4|5+6")


class WholeVocabularyEngine(ScriptedEngine):
    """Proposes every word, however few it is asked for."""

    def step(self, memory, state, tokens, parents, top):
        return super().step(memory, state, tokens, parents, self.size)


class SureEngine(ScriptedEngine):
    """Says "w4 w4 w4 w4 <end>" almost surely."""

    def log_probs(self, image: int, words: list[int]) -> np.ndarray:
        likely = END if len(words) == 4 else 4
        probabilities = np.where(np.arange(self.size) == likely, 1 - 0.01 * (self.size - 1), 0.01)
        return np.log(probabilities).astype(np.float32).astype(np.float64)


def found(engine: ScriptedEngine, images: list[int], options: SearchOptions, **more: object) -> list[list[Hypothesis]]:
    return search(engine, engine.encode(np.array(images)), options, ScriptedVocabulary(engine.size), **more)


def as_captions(hypotheses: list[Hypothesis]) -> list[textbook.Caption]:
    return [(each.tokens, each.score, each.finished) for each in hypotheses]


@st.composite
def engines(draw: st.DrawFn, sizes: st.SearchStrategy[int] = st.integers(5, 10)) -> ScriptedEngine:  # noqa: B008
    return ScriptedEngine(
        size=draw(sizes),
        sharpness=draw(st.sampled_from([0.0, 0.3, 1.0, 3.0])),
        end_bonus=draw(st.sampled_from([-1.0, 0.0, 0.3, 1.0])),
    )


@st.composite
def beam_options(draw: st.DrawFn, most_words: int = 8) -> SearchOptions:
    beam, max_words = draw(st.integers(1, 5)), draw(st.integers(1, most_words))
    return SearchOptions(
        beam=beam,
        num=draw(st.integers(1, beam)),
        length_penalty=draw(st.sampled_from([0.0, 0.5, 0.7, 1.0, 1.5])),
        min_words=draw(st.integers(0, min(4, max_words))),
        max_words=max_words,
        no_repeat_ngram=draw(st.integers(0, 3)),
        banned_words=tuple(draw(st.lists(st.sampled_from(BANNED), max_size=3))),
        allow_unknown=draw(st.booleans()),
        like_generate=draw(st.booleans()),
        prefix=draw(st.sampled_from([(), (), ("w4",), ("w4", "w4"), ("w4+4",)][: [0, 3, 5][min(2, max_words)]])),
    )


@settings(max_examples=150, deadline=None)
@given(engines(), beam_options(), st.lists(st.integers(0, 1000), min_size=1, max_size=4))
def test_a_batch_finds_what_the_textbook_finds(engine, options, images) -> None:
    """Guards all that ours adds: truncation, early stop, batching, images leaving, back-pointers, rules."""
    for image, hypotheses in zip(images, found(engine, images, options), strict=True):
        assert as_captions(hypotheses) == textbook.beam(engine, image, options)


@settings(max_examples=60, deadline=None)
@given(engines(), beam_options(), st.lists(st.integers(0, 1000), min_size=1, max_size=3))
def test_truncated_proposals_equal_the_whole_vocabulary(engine, options, images) -> None:
    whole = WholeVocabularyEngine(engine.size, engine.sharpness, engine.end_bonus)
    assert found(engine, images, options) == found(whole, images, options)


@st.composite
def group_options(draw: st.DrawFn) -> SearchOptions:
    groups, share = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    plain = draw(beam_options())
    diversity = draw(st.sampled_from([0.0, 0.2, 0.5, 1.0, 20.0]))
    num = draw(st.integers(1, groups * share))
    return dataclasses.replace(plain, beam=groups * share, groups=groups, diversity=diversity, num=num)


@settings(max_examples=200, deadline=None)
@given(engines(), group_options(), st.lists(st.integers(0, 1000), min_size=1, max_size=3))
def test_groups_find_what_the_textbook_finds(engine, options, images) -> None:
    """Guards whom each group lowers, rows of several groups in one layer, groups that end before the others."""
    for image, hypotheses in zip(images, found(engine, images, options), strict=True):
        assert as_captions(hypotheses) == textbook.diverse_beam(engine, image, options)


@settings(max_examples=100, deadline=None)
@given(engines(), group_options(), st.lists(st.integers(0, 1000), min_size=1, max_size=3))
def test_groups_truncated_proposals_equal_the_whole_vocabulary(engine, options, images) -> None:
    """The words of other groups count among those that may be lowered."""
    whole = WholeVocabularyEngine(engine.size, engine.sharpness, engine.end_bonus)
    assert found(engine, images, options) == found(whole, images, options)


@settings(max_examples=40, deadline=None)
@given(engines(), beam_options(), st.integers(0, 1000))
def test_the_first_group_searches_as_if_alone(engine, options, image) -> None:
    """So the best caption of a beam of K / G is among those of G groups, whatever the others do."""
    alone = found(engine, [image], dataclasses.replace(options, num=options.beam))[0]
    grouped = dataclasses.replace(options, beam=3 * options.beam, num=3 * options.beam, groups=3)
    assert set(alone) <= set(found(engine, [image], grouped)[0])


def test_groups_say_different_things() -> None:
    """One beam's captions differ in a word or two; groups that avoid each other's words say something else."""
    engine = ScriptedEngine(size=30, sharpness=1.0)

    def first_words(**options: object) -> float:
        several = found(engine, list(range(8)), SearchOptions(beam=4, num=4, **options))
        return float(np.mean([len({each.tokens[0] for each in hypotheses}) for hypotheses in several]))

    assert first_words(groups=4, diversity=5.0) == 4
    assert first_words() < 3


def test_a_caption_that_several_groups_find_counts_once() -> None:
    """Without diversity all groups find the same: num=2 must not be one caption twice, nor num=4 be two."""
    options = SearchOptions(beam=4, num=2, groups=2, diversity=0.0)
    [two] = found(ScriptedEngine(), [1], options)
    assert two == found(ScriptedEngine(), [1], SearchOptions(beam=2, num=2))[0]
    [four] = found(ScriptedEngine(), [1], dataclasses.replace(options, num=4))
    assert four == [two[0], two[0], two[1], two[1]]


def test_scores_of_groups_are_the_models() -> None:
    """What one group lowers for another decides what is said, not how likely it is called."""
    engine = ScriptedEngine(size=10)
    for each in found(engine, [5], SearchOptions(beam=6, num=6, groups=3, diversity=2.0), attention=True)[0]:
        before = [list(each.tokens[:t]) for t in range(len(each.tokens))]
        expected = [engine.log_probs(5, words)[word] for words, word in zip(before, each.tokens, strict=True)]
        assert each.token_log_probs == pytest.approx(expected, abs=1e-6)
        assert each.score == pytest.approx(sum(expected) / len(each.tokens) ** 0.7)
        looked = [engine.attention(5, words) for words in before]
        np.testing.assert_allclose(each.attention, looked, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(engines(), beam_options(), st.integers(0, 1000))
def test_beam_1_is_greedy_search(engine, options, image) -> None:
    options = dataclasses.replace(options, beam=1, num=1)
    [[only]] = found(engine, [image], options)
    assert (only.tokens, only.score, only.finished) == textbook.greedy(engine, image, options)


@pytest.mark.parametrize("length_penalty", [0.0, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("image", range(5))
@pytest.mark.parametrize("rules", [{}, {"no_repeat_ngram": 1}, {"min_words": 3}, {"banned_words": ("w5",)}])
def test_a_wide_enough_beam_finds_the_best_captions_there_are(length_penalty: float, image: int, rules: dict) -> None:
    """3 words and `<end>`, up to 4 words: 121 captions, and the beam is wider than that."""
    engine = ScriptedEngine(size=7, sharpness=1.0, end_bonus=0.5)
    options = SearchOptions(beam=130, num=10, length_penalty=length_penalty, **{"min_words": 0, "max_words": 4} | rules)
    [hypotheses] = found(engine, [image], options)
    best = textbook.every_caption(engine, image, options)[:10]
    assert [each for each in as_captions(hypotheses) if each[2]] == best


@pytest.mark.parametrize("length_penalty", [0.0, 0.7])
def test_a_batch_of_16_equals_one_image_at_a_time(length_penalty: float) -> None:
    engine = ScriptedEngine(size=10)
    options = SearchOptions(beam=5, num=5, length_penalty=length_penalty, no_repeat_ngram=2)
    together = found(engine, list(range(16)), options)
    assert together == [found(engine, [image], options)[0] for image in range(16)]


def test_images_that_are_done_leave_the_batch() -> None:
    """A done image that stayed would cost a step's work until the slowest image ends."""
    engine = ScriptedEngine(size=10, end_bonus=0.5)
    found(engine, list(range(16)), SearchOptions(beam=3))
    sizes = [batch for batch, _, _ in engine.asked]
    assert sizes[0] == 16
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 3


def test_k_grows_from_one_row_and_shrinks_when_the_rules_leave_fewer() -> None:
    """Two words make few captions in which no pair comes twice; rows of the dead would be wasted work."""
    engine = ScriptedEngine(size=6, end_bonus=-9.0)
    found(engine, [3], SearchOptions(beam=6, num=6, no_repeat_ngram=2, min_words=5))
    rows = [rows for _, rows, _ in engine.asked]
    assert rows[:4] == [1, 2, 4, 6]
    assert rows[-1] < max(rows)


def test_a_sure_model_is_not_cut_short_by_its_improbable_ends() -> None:
    """Stopping once K have finished returned "w4 w4 w4 <end>": one bad `<end>` a step filled the beam."""
    [hypotheses] = found(SureEngine(), [0], SearchOptions(beam=3, num=3))
    assert hypotheses[0].tokens == (4, 4, 4, 4, END)


@pytest.mark.parametrize(
    ("options", "top"),
    [
        (SearchOptions(beam=1), [1 + 4, 1 + 3]),
        (SearchOptions(beam=5), [6 + 4, 6 + 3]),
        (SearchOptions(beam=5, min_words=0), [6 + 3]),
        (SearchOptions(beam=5, allow_unknown=True), [6 + 3, 6 + 2]),
        (SearchOptions(beam=5, banned_words=("w7", "w8", "w8")), [6 + 6, 6 + 5]),
        (SearchOptions(beam=5, banned_words=("w7+8", "w7+9", "w7+9", "w8+7+9")), [6 + 4, 6 + 5, 6 + 5]),
        (SearchOptions(beam=5, banned_words=("w7+8", "w9+7+4", "w9+4", "w9|9+7+8")), [6 + 5, 6 + 5, 6 + 6, 6 + 6]),
        (SearchOptions(beam=5, no_repeat_ngram=2), [6 + 4, 6 + 3, 6 + 3 + 1, 6 + 3 + 2]),
        (SearchOptions(beam=60), [50, 50]),
        (SearchOptions(beam=6, groups=3), [3 + 4 + 4, 3 + 4 + 3]),
        (SearchOptions(beam=3, groups=3), [2 + 2 + 4, 2 + 2 + 3]),
        (SearchOptions(beam=6, groups=3, diversity=0.0), [3 + 4, 3 + 3]),
    ],
)
def test_as_many_proposals_are_asked_for_as_can_matter(options: SearchOptions, top: list[int]) -> None:
    """K that live, one `<end>` and what the rules can lower; never more than the vocabulary."""
    engine = ScriptedEngine(size=50, end_bonus=-1.0)
    found(engine, [1], options)
    assert [asked for _, _, asked in engine.asked][: len(top)] == top


class OneBadStepEngine(ScriptedEngine):
    """After "w4" the likely words are all blocked ones, and only a rare one may be said."""

    def log_probs(self, image: int, words: list[int]) -> np.ndarray:
        probabilities = np.full(self.size, 1e-6)
        probabilities[[PAD, START, UNK, 4, 5]] = [0.4, 0.3, 0.2, 0.05, 0.04]
        probabilities[-1] = 0.001
        return np.log(probabilities / probabilities.sum()).astype(np.float32).astype(np.float64)


def test_several_likely_words_blocked_at_once() -> None:
    """A fixed 2K proposals would leave a beam of 2 with nothing to say here, as `[:2K]` does elsewhere."""
    options = SearchOptions(beam=2, max_words=3, banned_words=("w4", "w5"))
    [[best]] = found(OneBadStepEngine(size=12), [0], options)
    assert best.tokens[0] == 11


@pytest.mark.parametrize("options", [{"beam": 3, "num": 3}, {"sample": True, "num": 3, "top_k": 2}])
def test_words_of_several_pieces_are_banned_and_begin_captions(options: dict) -> None:
    """BPE knows "giraffe" piece by piece; here all else is unlikely."""
    tokenizer = Tokenizer.train(["a giraffe"] + ["a dog runs"] * 9, TokenizerConfig(kind="bpe", min_count=5))
    script = tokenizer.encode("a giraffe giraffe runs")[1:]

    class Sure(ScriptedEngine):
        def log_probs(self, image: int, words: list[int]) -> np.ndarray:
            log_probs = super().log_probs(image, words) - 20
            log_probs[script[min(len(words), len(script) - 1)]] = -0.01
            return log_probs

    def texts(**more: object) -> list[str]:
        engine = Sure(len(tokenizer))
        [hypotheses] = search(engine, engine.encode(np.arange(1)), SearchOptions(**options, **more), tokenizer)
        return [tokenizer.decode(each.tokens) for each in hypotheses]

    assert "a giraffe giraffe runs" in texts()
    assert not any("giraffe" in text for text in texts(banned_words=("giraffe",)))
    assert all(text.startswith("gig a") for text in texts(prefix=("gig", "a")))


def test_an_image_whose_beams_never_end_returns_its_best_unfinished_captions() -> None:
    """Other decoders fail here with `max() arg is an empty sequence`."""
    engine = ScriptedEngine(end_bonus=-50.0)
    options = SearchOptions(beam=3, num=3, max_words=6)
    [hypotheses] = found(engine, [2], options, attention=True)
    assert [each.finished for each in hypotheses] == [False] * 3
    assert all(len(each.tokens) == 6 and END not in each.tokens for each in hypotheses)
    assert hypotheses[0].score >= hypotheses[1].score >= hypotheses[2].score
    assert hypotheses[0].attention is not None
    assert hypotheses[0].attention.shape == (6, 4)


@pytest.mark.parametrize("options", [{"beam": 3, "num": 3}, {"sample": True, "num": 3, "top_k": 2}])
def test_captions_begin_with_the_prefix(options: dict) -> None:
    """Also with words that the model would never propose by itself, and with their probabilities counted."""
    engine = ScriptedEngine(size=30, sharpness=4.0)
    rare = [f"w{word}" for word in np.argsort(engine.log_probs(6, [])[4:])[:2] + 4]
    [hypotheses] = found(engine, [6], SearchOptions(prefix=tuple(rare), **options))
    ids = tuple(int(word[1:]) for word in rare)
    for each in hypotheses:
        assert each.tokens[:2] == ids
        assert each.token_log_probs[0] == pytest.approx(engine.log_probs(6, [])[ids[0]])
    assert len({each.tokens for each in hypotheses}) > 1


def test_a_caption_of_just_max_words_may_end() -> None:
    """Guards against cutting a caption whose last allowed word is followed by `<end>`."""

    for beam in (1, 3):
        [[best]] = found(SureEngine(), [0], SearchOptions(beam=beam, max_words=4))
        assert (best.tokens, best.finished) == ((4, 4, 4, 4, END), True)
    [[best]] = found(SureEngine(), [0], SearchOptions(beam=1, max_words=3))
    assert (best.tokens, best.finished) == ((4, 4, 4), False)


def test_rules_that_leave_no_word_return_what_was_said() -> None:
    """A hypothesis that can neither go on nor end is returned unfinished, not lost."""
    options = SearchOptions(beam=2, min_words=3, max_words=5, no_repeat_ngram=1)
    [[best]] = found(ScriptedEngine(size=6), [0], options)
    assert (len(best.tokens), best.finished) == (2, False)


def test_no_word_at_all_returns_an_empty_caption() -> None:
    options = SearchOptions(beam=2, banned_words=("w4", "w5"))
    [[best]] = found(ScriptedEngine(size=6), [0], options, attention=True)
    assert dataclasses.replace(best, attention=None) == Hypothesis((), 0.0, (), 0.0, False, None)
    assert best.attention is not None
    assert best.attention.shape == (0, 4)


@pytest.mark.parametrize("options", [SearchOptions(beam=4, num=4), SearchOptions(sample=True, num=4)])
def test_every_hypothesis_adds_up(options: SearchOptions) -> None:
    """Guards the trace: probabilities and attention rows belong to the words that they stand beside."""
    engine = ScriptedEngine(size=10)
    images = [5, 11, 3, 8, 21]
    for image, hypotheses in zip(images, found(engine, images, options, attention=True), strict=True):
        scores = [each.score for each in hypotheses]
        assert scores == sorted(scores, reverse=True)
        for each in hypotheses:
            before = [list(each.tokens[:t]) for t in range(len(each.tokens))]
            expected = [engine.log_probs(image, words)[word] for words, word in zip(before, each.tokens, strict=True)]
            assert each.token_log_probs == pytest.approx(expected, abs=1e-6)
            assert each.log_prob == pytest.approx(sum(expected), abs=1e-5)
            assert each.score == pytest.approx(each.log_prob / len(each.tokens) ** options.length_penalty)
            assert each.attention is not None
            np.testing.assert_array_equal(each.attention, [engine.attention(image, words) for words in before])


@pytest.mark.parametrize("options", [SearchOptions(), SearchOptions(sample=True)])
def test_attention_is_none_unless_asked_for(options: SearchOptions) -> None:
    """Also where the engine tells it all the time: results would carry T x N numbers that nobody wants."""

    class Talkative(ScriptedEngine):
        def start(self, memory, attention=False):
            return super().start(memory, True)

    [[best]] = found(Talkative(), [0], options)
    assert best.attention is None


def test_a_model_without_attention_answers_without() -> None:
    class Blind(ScriptedEngine):
        def step(self, memory, state, tokens, parents, top):
            proposals, state = super().step(memory, state, tokens, parents, top)
            return Proposals(proposals.ids, proposals.log_probs), state

    [[best]] = found(Blind(), [0], SearchOptions(), attention=True)
    assert best.attention is None


def test_no_images_give_no_captions() -> None:
    assert found(ScriptedEngine(), [], SearchOptions()) == []
