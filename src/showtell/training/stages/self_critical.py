"""The self-critical stage: the model draws K captions of an image, and learns from how much each beats the others.

REINFORCE with CIDEr-D as the reward (Rennie et al. 2017, "Self-critical sequence training for image captioning"). The
baseline of a sample is the mean reward of the image's K - 1 other samples (Luo 2020, "A better variant of self-critical
sequence training"). What is minimised is, over all words of the samples,

    mean of -(reward - baseline) log p(word | words before it, image)

Samples are drawn without gradients by the search that users run, then scored with one teacher-forced pass, packed like
any other batch, which may include people's captions (`cross_entropy`).

They are drawn in evaluation mode, so that the reward is for what the model says in use. With dropout, samples would be
worse, as each word comes from different weights, and they would still not be samples of the policy in the scoring pass,
whose dropout is different. In that pass, dropout does what it does in cross-entropy, where captions also come from
elsewhere.

`<end>` is a word in samples, references and document frequencies: a sample that breaks off lacks a word.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from showtell.engines.torch import TorchEngine
from showtell.metrics.cider_reward import CiderReward
from showtell.metrics.objects import objects_in
from showtell.metrics.official.bleu import bleu_statistics, smoothed_bleu_4
from showtell.models.captioning_model import CaptioningModel
from showtell.search import SearchOptions, search
from showtell.tokenizer import Tokenizer
from showtell.training import processes
from showtell.training.inputs.batches import Batch, Ids, batch_of
from showtell.training.stages.stage import Loss, Objective, Stage

Floats = NDArray[np.float64]
DESCRIBED = 3  # captions that an image needs for its objects to count as known
NEVER_SAID = [Tokenizer.pad, Tokenizer.start, Tokenizer.unk]


class SelfCritical(Stage):
    """A stage that rewards the model's own captions; for a model whose captions are already sensible."""

    kind: Literal["self_critical"] = "self_critical"
    epochs: int = Field(10, gt=0, description="passes over the training images, at most")
    captions_per_image: int = Field(
        1, gt=0, description="how many of people's captions of an image cross_entropy uses; a random choice"
    )
    learning_rate: float = Field(1e-4, gt=0, description="highest learning rate of the decoder")
    samples: int = Field(5, ge=2, description="K, captions drawn of each image")
    temperature: float = Field(
        1.0, gt=0, description="below 1, likely words are drawn more often than the model predicts"
    )
    max_words: int = Field(20, gt=0, description="most words of a sample; longer ones are cut, and lack their <end>")
    bleu4: float = Field(
        0.0, ge=0, description="weight of BLEU-4 (0..1, smoothed) beside CIDEr-D (0..10) in the reward"
    )
    invented: float = Field(
        0.0,
        ge=0,
        description="subtracted from the reward for each of COCO's 80 objects that a sample names but people do not",
    )
    normalise: bool = Field(True, description="divide the batch's advantages by their standard deviation")
    cross_entropy: float = Field(
        0.1, ge=0, description="weight of the loss on people's captions beside that on the samples"
    )

    def objective(self, captions: Sequence[Sequence[Ids]], tokenizer: Tokenizer) -> Objective:
        return PolicyGradient(self, captions, tokenizer)

    def captions_computed(self, captions: int) -> int:
        """The samples, and people's captions if they are included."""
        return self.samples + (super().captions_computed(captions) if self.cross_entropy else 0)


class PolicyGradient:
    """The loss of the stage, and the references for its rewards."""

    def __init__(self, stage: SelfCritical, captions: Sequence[Sequence[Ids]], tokenizer: Tokenizer) -> None:
        self.stage = stage
        self.tokenizer = tokenizer
        self.captions = captions
        self.cider = CiderReward(captions, pad=tokenizer.pad, start=tokenizer.start, end=tokenizer.end)
        self.objects = Objects(captions, tokenizer) if stage.invented else None

    def __call__(self, model: CaptioningModel, inputs: Tensor, batch: Batch, done: float) -> Iterator[Loss]:
        """The terms of a batch, part by part; its captions are used for `cross_entropy`.

        All samples of the step, in all parts and processes, are drawn before the first is used for learning:
        advantages are divided by the standard deviation over all.

        Args:
            model: in training mode.
            inputs: the images or their grids, as `CaptioningModel.forward` takes them.
            batch: which images, and people's captions of them.
            done: how much of the stage has passed; it changes nothing here.
        """
        parts = self.stage.parts(batch)
        with torch.set_grad_enabled(len(parts) == 1):  # in one part, the grid is computed once, to draw and to learn
            grid = model.encoder(inputs) if inputs.ndim == 4 and parts else inputs
        samples = self.draw(model, grid.detach().float(), batch.rows)
        own_scores = self.rewards(batch.rows, samples) if samples else {}
        everyones = processes.everyones((samples, own_scores))
        step_samples = [of_image for drawn, _ in everyones for of_image in drawn]
        scores = {name: np.concatenate([found[name] for _, found in everyones if found]) for name in everyones[0][1]}
        reward = scores["CIDEr"] + self.stage.bleu4 * scores.get("BLEU-4", 0.0)
        reward = reward - self.stage.invented * scores.get("invented", 0.0)
        first = sum(len(drawn) for drawn, _ in everyones[: processes.rank()])
        gains = advantages(reward, normalise=self.stage.normalise)[first : first + len(samples)]
        references = captions_of(batch) if self.stage.cross_entropy else [[] for _ in samples]
        measures = measures_of(step_samples, reward, scores)
        for part in parts:
            mixed, gain, drawn = mixed_batch(batch.rows[part], samples[part], gains[part], references[part])
            mixed, gain, drawn = mixed.to(inputs.device), gain.to(inputs.device), drawn.to(inputs.device)
            logits = model(grid if len(parts) == 1 else inputs[part], mixed.tokens, mixed.packing).logits
            said = logits[drawn].float() / self.stage.temperature  # [W, V], W words of the samples
            said[:, NEVER_SAID] = -torch.inf  # as in sampling
            losses = gain[drawn] * F.cross_entropy(said, mixed.targets[drawn], reduction="none")
            terms = {"words": losses.sum() / sum(len(ids) - 1 for of_image in step_samples for ids in of_image)}
            if self.stage.cross_entropy:
                given = mixed.real & ~drawn
                losses = F.cross_entropy(logits[given], mixed.targets[given], reduction="none")
                weight = batch.weight[part].expand_as(given)[given]
                terms["references"] = self.stage.cross_entropy * (losses * weight).sum() / batch.step_weight
            yield Loss(terms, mixed, measures)

    def draw(self, model: CaptioningModel, grid: Tensor, rows: NDArray[np.int64]) -> list[list[Ids]]:
        """K samples of each image `[B, N, D]`, each `<start>`, its words, and `<end>` unless it was cut.

        They depend on the main process's random state, which a resumed run restores, and on the images' numbers, so
        they are the same for any number of processes.
        """
        seed = processes.everyones(int(torch.randint(2**62, ())))[0]
        if not len(rows):
            return []
        options = SearchOptions(
            sample=True,
            num=self.stage.samples,
            temperature=self.stage.temperature,
            min_words=0,
            max_words=self.stage.max_words,
            seed=seed,
        )
        model.eval()
        engine = TorchEngine(model, grid.device)
        memory = engine.memory_from_grid(grid.cpu().numpy())
        found = search(engine, memory, options, self.tokenizer, image_numbers=rows.tolist())
        model.train()
        return [[(self.tokenizer.start, *sample.tokens) for sample in of_image] for of_image in found]

    def rewards(self, rows: NDArray[np.int64], samples: Sequence[Sequence[Ids]]) -> dict[str, Floats]:
        """The scores of the samples `[B, K]` by metric, with `<end>` as a word; and how many objects they invent."""
        longest = max(len(ids) for of_image in samples for ids in of_image)
        ids = np.full((len(samples), self.stage.samples, longest), self.tokenizer.pad)
        for b, of_image in enumerate(samples):
            for k, sample in enumerate(of_image):
                ids[b, k, : len(sample)] = sample
        scores = {"CIDEr": self.cider(rows, ids)}
        if self.stage.bleu4:
            candidates = [_text(sample) for of_image in samples for sample in of_image]
            gold = [[_text(caption) for caption in self.captions[row]] for row in rows]
            each = [of_image for of_image in gold for _ in range(self.stage.samples)]
            scores["BLEU-4"] = smoothed_bleu_4(bleu_statistics(candidates, each)).reshape(ids.shape[:2])
        if self.objects is not None:
            scores["invented"] = self.objects.invented(rows, samples)
        return scores


class Objects:
    """Which objects people name on each image, and which samples name others (see `metrics/objects.py`).

    A single caption leaves out much of an image, so only images with at least three captions are counted.
    """

    def __init__(self, captions: Sequence[Sequence[Ids]], tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.named = [
            frozenset[str]().union(*map(self.of, of_image)) if len(of_image) >= DESCRIBED else None
            for of_image in captions
        ]

    def of(self, ids: Ids) -> frozenset[str]:
        return objects_in(self.tokenizer.decode(ids))

    def invented(self, rows: NDArray[np.int64], samples: Sequence[Sequence[Ids]]) -> Floats:
        """How many objects each sample names that nobody named on its image, `[B, K]`."""
        named = [self.named[row] for row in rows]
        return np.array(
            [
                [0.0 if there is None else float(len(self.of(ids) - there)) for ids in of_image]
                for there, of_image in zip(named, samples, strict=True)
            ]
        )


def advantages(rewards: Floats, *, normalise: bool) -> Floats:
    """How much each sample's reward `[B, K]` is above the mean of the image's others, the leave-one-out baseline.

    Args:
        rewards: of K >= 2 samples an image.
        normalise: whether to divide by the standard deviation over the batch.
    """
    samples = rewards.shape[1]
    above: Floats = (rewards - rewards.mean(1, keepdims=True)) * (samples / (samples - 1))
    return above / max(float(above.std()), 1e-8) if normalise else above


def measures_of(samples: Sequence[Sequence[Ids]], reward: Floats, scores: Mapping[str, Floats]) -> dict[str, float]:
    """The log's figures for a batch's samples; the mean baseline equals the mean reward."""
    unfinished = np.array([[ids[-1] != Tokenizer.end for ids in of_image] for of_image in samples])
    tokens = np.array([[len(ids) - 1 for ids in of_image] for of_image in samples])
    return {
        "reward": float(reward.mean()),
        "advantage_std": float(advantages(reward, normalise=False).std()),
        **{f"sample_{name}": float(score.mean()) for name, score in scores.items()},
        "sample_words": float((tokens - ~unfinished).mean()),
        "unfinished": float(unfinished.mean()),
    }


def captions_of(batch: Batch) -> list[list[Ids]]:
    """The captions in a batch, as ids from `<start>` to `<end>`."""
    targets = batch.packing.unpack(batch.targets, fill=Tokenizer.pad)  # [B, K, T]
    return [
        [
            (Tokenizer.start, *(word for word in caption if word != Tokenizer.pad))
            for caption in of_image
            if any(caption)
        ]
        for of_image in targets.tolist()
    ]


def mixed_batch(
    rows: NDArray[np.int64], samples: Sequence[Sequence[Ids]], gains: Floats, references: Sequence[Sequence[Ids]]
) -> tuple[Batch, Tensor, Tensor]:
    """Samples and references of the same images in one batch, for one forward pass.

    Args:
        rows: the images' numbers, `[B]`.
        samples: K captions per image.
        gains: the advantage of each sample, `[B, K]`.
        references: any number for each image.

    Returns:
        The batch; float32 `[B, P]`, the gain of each position's sample; and bool `[B, P]`, whether the position
        belongs to a sample and holds a word.
    """
    captions, worth = [], []
    for of_image, worth_of, given in zip(samples, gains.tolist(), references, strict=True):
        pairs = [*zip(of_image, worth_of, strict=True), *((ids, np.nan) for ids in given)]
        pairs.sort(key=lambda pair: len(pair[0]), reverse=True)  # `batch_of` keeps this order
        captions.append([ids for ids, _ in pairs])
        worth.append([gain for _, gain in pairs])
    batch = batch_of(rows, captions)
    of_caption = torch.full(batch.tokens.shape[:2], torch.nan)
    for b, of_image in enumerate(worth):
        of_caption[b, : len(of_image)] = torch.tensor(of_image)
    gain = of_caption[:, batch.packing.captions]
    return batch, gain, batch.real & ~gain.isnan()


def _text(ids: Ids) -> str:
    """A caption as a string for the metrics: one word per id, including `<end>`."""
    return " ".join(str(id) for id in ids if id not in (Tokenizer.pad, Tokenizer.start))
