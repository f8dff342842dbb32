"""Distillation (Hinton et al. 2015): besides people's words, a student learns the mean prediction of trained models.

Different models make different errors, so the mean of their probabilities is better than any of them. It is also a
target that says which other words would do, which matters if there are few photos with five captions each.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from showtell.bundle import load_bundle
from showtell.engines.torch import model_of
from showtell.errors import UsageError
from showtell.models.captioning_model import CaptioningModel
from showtell.models.encoders import Encoder, folded
from showtell.tokenizer import Tokenizer
from showtell.training.inputs.batches import Batch
from showtell.training.inputs.features import fingerprint

NEVER = -1e4
"""The logit of a word that a teacher does not know. Not -inf: its captions' log-probabilities must stay numbers."""


class Teachers:
    """Trained models whose predictions are averaged. Teachers with the same encoder share its work.

    Args:
        folders: folders of models or training runs.
        tokenizer: the student's. A teacher has the same words, or only the first of them, like the model from which
            the student started; it never says the others.
        specialists: for each image, a teacher's weight in the mean is the chance that it, and no other teacher, wrote
            the image's captions (Bayes' rule; all are equally likely before). Otherwise all weigh the same.

    Raises:
        BundleError: there is no model, or it is exported.
        UsageError: a teacher has other words.
    """

    def __init__(self, folders: Sequence[str], tokenizer: Tokenizer, *, specialists: bool = False) -> None:
        self._specialists = specialists
        self._unknown, self._words = tokenizer.unk, len(tokenizer)
        self._encoders: dict[str, Encoder] = {}
        self._models: list[tuple[str, CaptioningModel, int]] = []
        self._see_alike = False
        for folder in folders:
            bundle = load_bundle(folder)
            if not bundle.tokenizer.begins(tokenizer):
                raise UsageError(f"The teacher {folder} has a different vocabulary.", "Train it on the same captions.")
            model = model_of(bundle)
            looks = fingerprint(model.encoder)
            self._encoders.setdefault(looks, folded(model.encoder))
            self._models.append((looks, model.eval().requires_grad_(False), len(bundle.tokenizer)))

    @torch.no_grad()
    def probabilities(self, student: CaptioningModel, inputs: Tensor, batch: Batch) -> Tensor:
        """The teachers' mean probabilities of the next words, `[W, V]`, at the batch's W real positions.

        Args:
            student: the model that learns.
            inputs: images `[B, 3, S, S]`, for each teacher's encoder, or grids `[B, N, D]` of the student's encoder.
            batch: people's captions.

        Raises:
            UsageError: there are only grids, and a teacher has a different encoder from the student's.
        """
        if inputs.ndim == 3 and not self._see_alike:
            self._refuse_unless_alike(student)
        grids = {looks: self._grid(looks, inputs) for looks in self._encoders}
        each = torch.stack(
            [self._logits(model.to(inputs.device), words, grids[looks], batch) for looks, model, words in self._models]
        ).log_softmax(-1)  # [teachers, W, V]
        if not self._specialists:
            return each.exp().mean(0)
        said = batch.targets[batch.real].expand(len(each), -1)  # [teachers, W]
        log_probs = each.gather(-1, said[..., None]).squeeze(-1)
        images = torch.nonzero(batch.real)[:, 0]  # [W]: the image of each position
        of_images = log_probs.new_zeros(len(each), len(batch.real)).index_add_(1, images, log_probs)
        weights = of_images.softmax(0)  # [teachers, B]
        return torch.einsum("tw,twv->wv", weights[:, images], each.exp())

    def _logits(self, model: CaptioningModel, words: int, grid: Tensor, batch: Batch) -> Tensor:
        """The logits, at the real positions, of a teacher that knows so many words: `[W, V]`."""
        tokens = batch.tokens.where(batch.tokens < words, self._unknown)
        logits = model(grid, tokens, batch.packing).logits[batch.real].float()
        return F.pad(logits, (0, self._words - words), value=NEVER)

    def _grid(self, looks: str, inputs: Tensor) -> Tensor:
        if inputs.ndim == 3:
            return inputs
        grid: Tensor = self._encoders[looks].to(inputs.device)(inputs)
        return grid

    def _refuse_unless_alike(self, student: CaptioningModel) -> None:
        if set(self._encoders) != {fingerprint(student.encoder)}:
            raise UsageError(
                "A teacher has a different encoder, so it can't use the student's cached features.",
                "Train on live photos (encoder_stages over 0), or leave it out of teachers.",
            )
        self._see_alike = True
