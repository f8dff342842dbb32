"""Self-critical training: the gradient is REINFORCE's, the baseline leaves the sample out, and the reward goes up."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch

from showtell.data import load
from showtell.metrics import cider_d
from showtell.models.captioning_model import CaptioningModel, build_decoder
from showtell.models.encoders import build_encoder
from showtell.models.show_attend_and_tell import ShowAttendAndTellConfig
from showtell.models.transformer import TransformerConfig
from showtell.tokenizer import Tokenizer, TokenizerConfig
from showtell.training.inputs.batches import Ids, batch_of
from showtell.training.stages.cross_entropy import CrossEntropy
from showtell.training.stages.self_critical import PolicyGradient, SelfCritical, advantages, captions_of, mixed_batch
from showtell.training.stages.stage import parameter_groups

D, N, IMAGES = 12, 4, 6
LSTM = ShowAttendAndTellConfig(embedding_width=16, hidden_width=32, attention_width=8, dropout=0.0)
TRANSFORMER = TransformerConfig(
    width=16, heads=2, feed_forward_width=16, encoder_layers=1, decoder_layers=1, encode_size=2, dropout=0.0
)
CAPTIONS = [example.captions for example in load(f"shapes:{IMAGES}").examples]
TOKENIZER = Tokenizer.train((c for of_image in CAPTIONS for c in of_image), TokenizerConfig(min_count=1))
IDS = [TOKENIZER.encode_batch(of_image) for of_image in CAPTIONS]
ROWS = np.arange(IMAGES)


def model_of(config: ShowAttendAndTellConfig | TransformerConfig = LSTM) -> CaptioningModel:
    torch.manual_seed(0)
    encoder = build_encoder({"name": "efficientnet_lite0", "weights": "random", "size": 32})
    return CaptioningModel(encoder, build_decoder(config, D, len(TOKENIZER))).train()


def grids() -> torch.Tensor:
    return torch.randn(IMAGES, N, D, generator=torch.Generator().manual_seed(1))


class Scripted(PolicyGradient):
    """Says what it is told to."""

    samples: Sequence[Sequence[Ids]]

    def draw(self, model: CaptioningModel, inputs: torch.Tensor, rows: np.ndarray) -> list[list[Ids]]:
        return [list(self.samples[row]) for row in rows]


def scripted(samples: Sequence[Sequence[Ids]], **keys: object) -> Scripted:
    objective = Scripted(SelfCritical(samples=len(samples[0]), **keys), IDS, TOKENIZER)  # type: ignore[arg-type]
    objective.samples = samples
    return objective


# ------------------------------------------------------------------ gradient and baseline


@pytest.mark.parametrize("config", [LSTM, TRANSFORMER], ids=["lstm", "transformer"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_gradient_is_reinforce_written_by_hand(
    config: ShowAttendAndTellConfig | TransformerConfig, temperature: float
) -> None:
    """Word by word through `step`, one sample after the other, with CIDEr-D's slow twin and a baseline of its own."""
    model, inputs = model_of(config), grids()
    stage = SelfCritical(samples=3, cross_entropy=0.0, normalise=False, temperature=temperature, max_words=9)
    objective = PolicyGradient(stage, IDS, TOKENIZER)
    state = torch.get_rng_state()
    samples = objective.draw(model, inputs, ROWS)
    torch.set_rng_state(state)
    loss = next(objective(model, inputs, batch_of(ROWS, IDS), 0.0))
    loss.terms["words"].backward()
    found = {name: parameter.grad.clone() for name, parameter in model.decoder.named_parameters()}
    assert list(loss.terms) == ["words"]

    model.zero_grad()
    memories = model.decoder.memory(inputs)  # at once, as batch norm in training sees them
    total, words = torch.zeros(()), 0
    text = [[[" ".join(map(str, ids[1:])) for ids in of_image] for of_image in captions] for captions in (samples, IDS)]
    rewards = np.stack([cider_d([of_image[k] for of_image in text[0]], text[1])[1] for k in range(3)], axis=1)
    for b, of_image in enumerate(samples):
        memory = {name: value[b : b + 1] for name, value in memories.items()}
        for k, sample in enumerate(of_image):
            baseline = np.mean([rewards[b, other] for other in range(3) if other != k])
            step_state = model.decoder.start(memory)
            for before, word in pairwise(sample):
                logits, _, step_state = model.decoder.step(memory, step_state, torch.tensor([[before]]))
                sayable = logits[0, 0].clone()
                sayable[[TOKENIZER.pad, TOKENIZER.start, TOKENIZER.unk]] = -torch.inf
                log_prob = (sayable / temperature).log_softmax(-1)[word]
                total = total - float(rewards[b, k] - baseline) * log_prob
                words += 1
    (total / words).backward()
    torch.testing.assert_close(loss.terms["words"].detach(), (total / words).detach(), rtol=1e-4, atol=1e-6)
    for name, parameter in model.decoder.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-6)
    assert sum(gradient.abs().sum() for gradient in found.values()) > 0


def test_the_baseline_is_the_mean_of_the_other_samples() -> None:
    rewards = np.array([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]])
    np.testing.assert_allclose(advantages(rewards, normalise=False), [[1 - 4, 2 - 3.5, 6 - 1.5], [0, 0, 0]])
    assert advantages(rewards, normalise=True).std() == pytest.approx(1)
    ratio = advantages(rewards, normalise=True)[0] / advantages(rewards, normalise=False)[0]
    np.testing.assert_allclose(ratio, ratio[0])  # images keep their weight among each other


def test_samples_that_are_all_alike_teach_nothing() -> None:
    """No division by a deviation of zero."""
    same = [[of_image[0]] * 3 for of_image in IDS]
    loss = next(scripted(same, cross_entropy=0.0)(model_of(), grids(), batch_of(ROWS, IDS), 0.0))
    assert loss.terms["words"].item() == pytest.approx(0, abs=1e-6)
    assert loss.measures["advantage_std"] == pytest.approx(0, abs=1e-9)


# ------------------------------------------------------------------ reward


@pytest.mark.parametrize("bleu4", [0.0, 0.5])
def test_a_perfect_sample_gets_the_highest_reward(bleu4: float) -> None:
    """Above one that breaks off before <end>, one that lacks a word, and another image's."""
    perfect = [of_image[0] for of_image in IDS]
    samples = [
        [ids, ids[:-1], [*ids[:-2], ids[-1]], perfect[(b + 1) % IMAGES], [TOKENIZER.start, TOKENIZER.end]]
        for b, ids in enumerate(perfect)
    ]
    rewards = sum(scripted(samples, bleu4=bleu4).rewards(ROWS, samples).values())
    others = [
        (b, k) for b in range(IMAGES) for k in range(1, 5) if samples[b][k] not in IDS[b]
    ]  # two scenes may be described alike
    assert all(rewards[b, 0] > rewards[b, k] for b, k in others)
    assert (rewards[:, 0] > rewards[:, 1]).all()


def test_rewards_follow_the_images_of_the_batch() -> None:
    """Rows number the training set, not the batch."""
    samples = [[of_image[0], of_image[1]] for of_image in IDS]
    objective = scripted(samples, bleu4=1.0)
    all_images = objective.rewards(ROWS, samples)
    for name, some in objective.rewards(ROWS[[4, 1]], [samples[4], samples[1]]).items():
        np.testing.assert_allclose(some, all_images[name][[4, 1]])


# ------------------------------------------------------------------ layout


def test_padding_never_counts() -> None:
    """The words' loss of a batch is that of its images, each alone, weighed by their words; with references or not."""
    samples = [[of_image[0], of_image[1][: 3 + b], [TOKENIZER.start, TOKENIZER.end]] for b, of_image in enumerate(IDS)]
    model, inputs = model_of(), grids()
    for weight in (0.0, 0.5):
        objective = scripted(samples, cross_entropy=weight, normalise=False)
        together = next(objective(model, inputs, batch_of(ROWS, IDS), 0.0)).terms
        words = [sum(len(ids) - 1 for ids in of_image) for of_image in samples]
        given = [sum(len(ids) - 1 for ids in of_image) for of_image in IDS]
        alone = [
            next(objective(model, inputs[b : b + 1], batch_of(ROWS[b : b + 1], [IDS[b]]), 0.0)).terms
            for b in range(IMAGES)
        ]
        for name, counts in (("words", words), ("references", given)):
            if name in together:
                mean = sum(one[name] * count for one, count in zip(alone, counts, strict=True)) / sum(counts)
                torch.testing.assert_close(together[name], mean, rtol=1e-4, atol=1e-6)


def test_each_position_knows_what_its_sample_is_worth() -> None:
    samples = [[[1, 5, 2], [1, 6, 7, 8]], [[1, 5, 6, 7, 2], [1, 2]]]
    references = [[[1, 9, 9, 9, 2]], [[1, 9, 2]]]
    gains = np.array([[0.5, -0.5], [2.0, -2.0]])
    batch, gain, drawn = mixed_batch(np.arange(2), samples, gains, references)
    for b in range(2):
        for k, sample in enumerate(samples[b]):
            worth = drawn[b] & (gain[b] == gains[b, k])
            assert batch.targets[b, worth].tolist() == list(sample[1:])
        assert (batch.real[b] & ~drawn[b]).sum() == len(references[b][0]) - 1
    assert captions_of(batch_of(np.arange(2), references)) == [[tuple(ids) for ids in r] for r in references]


# ------------------------------------------------------------------ samples


def test_samples_are_drawn_as_they_will_be_said() -> None:
    """Dropout off while drawing and on again after it; a cut sample has no <end>; nothing is said that may not be."""
    model = model_of(LSTM.model_copy(update={"dropout": 0.5}))
    objective = PolicyGradient(SelfCritical(samples=4, max_words=3), IDS, TOKENIZER)
    torch.manual_seed(3)
    samples = objective.draw(model, grids(), ROWS)
    assert model.training
    assert all(len(of_image) == 4 for of_image in samples)
    flat = [ids for of_image in samples for ids in of_image]
    assert all(ids[0] == TOKENIZER.start and not {0, 1, 3} & set(ids[1:]) for ids in flat)
    cut = [ids for ids in flat if ids[-1] != TOKENIZER.end]
    assert cut
    assert all(len(ids) == 4 for ids in cut)
    torch.manual_seed(3)
    assert objective.draw(model, grids(), ROWS) == samples
    assert objective.draw(model, grids(), ROWS) != samples  # the next step draws others
    measures = next(objective(model, grids(), batch_of(ROWS, IDS), 0.0)).measures
    assert 0 < measures["unfinished"] <= 1
    assert measures["sample_words"] <= 3


def test_live_pictures_are_encoded_for_the_samples_too() -> None:
    encoder = build_encoder({"name": "efficientnet_lite0", "weights": "random", "size": 32})
    model = CaptioningModel(encoder, build_decoder(LSTM, encoder.width, len(TOKENIZER))).train()
    stage = SelfCritical(samples=2, max_words=5, encoder_stages=1)
    optimizer = torch.optim.AdamW(parameter_groups(model, stage, len(TOKENIZER)))
    pictures = torch.randn(3, 3, 32, 32)
    loss = next(stage.objective(IDS, TOKENIZER)(model, pictures, batch_of(ROWS[:3], IDS[:3]), 0.0))
    torch.stack(list(loss.terms.values())).sum().backward()
    encoders = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    assert {id(p) for p in encoders} & {id(p) for p in model.encoder.parameters()}


def test_a_model_raises_its_own_reward() -> None:
    """From a few steps of cross-entropy on: the mean reward of samples rises well above where it was."""
    model, inputs, batch = model_of(), grids(), batch_of(ROWS, IDS)
    rewards = []
    for stage, steps in (
        (CrossEntropy(label_smoothing=0.0, learning_rate=5e-3), 20),
        (SelfCritical(samples=5, cross_entropy=0.0, learning_rate=5e-3), 50),
    ):
        objective = stage.objective(IDS, TOKENIZER)
        optimizer = torch.optim.AdamW(parameter_groups(model, stage, len(TOKENIZER)))
        for _ in range(steps):
            optimizer.zero_grad()
            loss = next(objective(model, inputs, batch, 0.0))
            loss.terms["words"].backward()
            optimizer.step()
            rewards += [loss.measures["reward"]] if stage.kind == "self_critical" else []
    assert np.mean(rewards[-10:]) > 1.4 * np.mean(rewards[:10])


def test_objects_that_nobody_names_cost_reward() -> None:
    """Of images that people describe three times or more; of others one can't know."""
    said = [["a man", "a man runs", "grass"], ["a dog"]]
    tokenizer = Tokenizer.train([text for of_image in said for text in of_image], TokenizerConfig(min_count=1))
    captions = [tokenizer.encode_batch(of_image) for of_image in said]
    samples = [tokenizer.encode_batch(["a man", "a dog runs"])] * 2
    stage = SelfCritical(samples=2, invented=0.5)
    rewards = PolicyGradient(stage, captions, tokenizer).rewards(np.array([0, 1]), samples)
    assert rewards["invented"].tolist() == [[0, 1], [0, 0]]
    assert "invented" not in PolicyGradient(SelfCritical(samples=2), captions, tokenizer).rewards(
        np.array([0, 1]), samples
    )
