"""Captioners of `transformers`: the same captions as their own `generate`, word for word."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import showtell
from showtell.captioner import Captioner
from showtell.search import search
from showtell.search.options import SearchOptions
from tests.small_captioners import CAPTIONERS, some_images, start_and_end, write

LONGEST = 24  # pieces


class Both(NamedTuple):
    """A captioner in transformers and here."""

    name: str
    folder: Path
    theirs: Any
    ours: Captioner
    start: int
    end: int
    never: list[int]

    def generated(self, images: torch.Tensor, beam: int, **settings: Any) -> tuple[list[list[int]], Any]:
        """What `generate` says, `beam` captions an image, as our ids; and the scores of a beam."""
        found = self.theirs.generate(
            pixel_values=images, num_beams=beam, num_return_sequences=beam, max_new_tokens=LONGEST + 1, do_sample=False,
            length_penalty=1.0, early_stopping=False, suppress_tokens=self.never,
            return_dict_in_generate=True, output_scores=True, **settings,
        )  # fmt: skip
        rows = [ids[ids.index(self.start) + 1 :] for ids in found.sequences.tolist()]
        cut = [ids[: ids.index(self.end)] if self.end in ids else ids[:LONGEST] for ids in rows]
        ours = [[i + 4 for i in ids] + [2] * (self.end in row) for ids, row in zip(cut, rows, strict=True)]
        return ours, found.sequences_scores if beam > 1 else None


@pytest.fixture(scope="module", params=CAPTIONERS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp(request.param)
    model = write(request.param, folder)
    words = AutoTokenizer.from_pretrained(folder)
    start, end = start_and_end(request.param, model, words)
    # What showtell never says: padding, the beginning, the unknown.
    never = {words.pad_token_id, start, words.unk_token_id} - {None, end}
    return Both(request.param, folder, model, showtell.load(folder), start, end, sorted(never))


def options_of(beam: int, **others: Any) -> SearchOptions:
    return SearchOptions(
        beam=beam, num=beam, length_penalty=1.0, min_words=0, max_words=LONGEST, like_generate=True, **others
    )


def found_by(both: Both, images: torch.Tensor, options: SearchOptions) -> list[Any]:
    memory = both.ours.engine.encode(images.numpy())
    found = search(both.ours.engine, memory, options, both.ours.tokenizer)
    return [hypothesis for of_image in found for hypothesis in of_image]


@pytest.mark.parametrize("beam", [1, 5])
def test_captions_are_those_of_generate(both: Both, beam: int) -> None:
    expected, scores = both.generated(some_images(), beam)
    found = found_by(both, some_images(), options_of(beam))
    assert len({hypothesis.tokens for hypothesis in found}) > 3, "images must be told apart"
    assert [list(hypothesis.tokens) for hypothesis in found] == expected
    if scores is not None:
        np.testing.assert_allclose([hypothesis.score for hypothesis in found], scores.numpy(), atol=1e-4)


def test_log_probabilities_are_the_models(both: Both) -> None:
    """Of every word of greedy captions, from the scores that `generate` saw."""
    images = some_images(8)
    found = found_by(both, images, options_of(1, banned_words=(), allow_unknown=True))
    out = both.theirs.generate(
        pixel_values=images, max_new_tokens=LONGEST + 1, do_sample=False, num_beams=1,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    for row, hypothesis in enumerate(found):
        for step, (token, log_prob) in enumerate(zip(hypothesis.tokens, hypothesis.token_log_probs, strict=True)):
            theirs = both.end if token == 2 else token - 4
            assert out.logits[step][row].log_softmax(-1)[theirs].item() == pytest.approx(log_prob, abs=1e-4)


@pytest.mark.parametrize("options", [options_of(5), SearchOptions(sample=True, num=3, seed=7, max_words=LONGEST)])
def test_a_batch_of_16_is_one_image_at_a_time(both: Both, options: SearchOptions) -> None:
    images = some_images(16)
    engine = both.ours.engine
    together = search(engine, engine.encode(images.numpy()), options, both.ours.tokenizer)
    for i in range(16):
        memory = engine.encode(images[i : i + 1].numpy())
        (alone,) = search(engine, memory, options, both.ours.tokenizer, image_numbers=[i])
        assert [h.tokens for h in alone] == [h.tokens for h in together[i]]


def test_a_prompt_is_a_forced_prefix(both: Both) -> None:
    if both.name in ("vit_gpt2", "vit_bert"):
        pytest.skip("generate of an encoder-decoder takes no prompt in words")
    text = "a picture of"
    pieces = both.ours.tokenizer.encode(text)[1:-1]
    prompt = [both.start, *(id - 4 for id in pieces)]
    if both.name == "blip":
        prompt.append(both.end)  # BLIP takes off the last one, which its processor adds
    if both.name == "blip2":
        prompt = [both.theirs.config.image_token_id] * both.theirs.config.num_query_tokens + prompt
    images = some_images(8)
    ids = torch.tensor([prompt] * len(images))
    said, _ = both.generated(images, 1, input_ids=ids)
    options = both.ours.options(beam=1, prefix=text, max_words=LONGEST, length_penalty=1.0)
    found = found_by(both, images, replace(options, max_words=LONGEST + len(pieces)))
    assert [list(h.tokens[: len(pieces)]) for h in found] == [pieces] * len(images)
    assert [list(h.tokens) for h in found] == [ids[: LONGEST + len(pieces)] for ids in said]


def test_samples_follow_the_models_distribution(both: Both) -> None:
    """The first word of 2,000 samples against the model's probabilities: Pearson's chi-square."""
    image = some_images(1)
    number = 2_000
    found = found_by(both, image, SearchOptions(sample=True, num=number, max_words=1, min_words=0, allow_unknown=True))
    drawn = np.bincount([h.tokens[0] for h in found if h.tokens], minlength=len(both.ours.tokenizer))
    memory = both.ours.engine.encode(image.numpy())
    state = both.ours.engine.start(memory)
    proposals, _ = both.ours.engine.step(memory, state, np.array([[1]]), None, len(both.ours.tokenizer))
    out = both.theirs.generate(
        pixel_values=image, max_new_tokens=1, do_sample=False, num_beams=1,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    probabilities = out.logits[0][0].softmax(-1).numpy()
    ours = np.zeros(len(both.ours.tokenizer))
    ours[4:] = probabilities
    ours[2] = probabilities[both.end]
    ours[[id + 4 for id in (*both.never, both.end)]] = 0  # never said; showtell's own ids of them
    expected = ours / ours.sum() * drawn.sum()
    often = expected >= 5
    rest = expected[~often].sum(), drawn[~often].sum()
    statistic = ((drawn[often] - expected[often]) ** 2 / expected[often]).sum()
    statistic += (rest[1] - rest[0]) ** 2 / rest[0] if rest[0] > 1 else 0
    freedom = int(often.sum())
    # Five standard deviations over the mean of a chi-square distribution.
    assert freedom > 2
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5
    assert proposals.ids.shape == (1, 1, len(both.ours.tokenizer))
