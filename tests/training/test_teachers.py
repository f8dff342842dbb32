"""Distillation: the mean of the teachers, from the right features, and a loss that ends where the student is it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from showtell.bundle import BundleConfig, save_bundle
from showtell.errors import UsageError
from showtell.models.captioning_model import CaptioningModel, build_decoder
from showtell.models.encoders import build_encoder
from showtell.models.show_attend_and_tell import ShowAttendAndTellConfig
from showtell.tokenizer import Tokenizer, TokenizerConfig
from showtell.training.inputs.batches import Batch, batch_of
from showtell.training.stages.cross_entropy import CrossEntropy
from showtell.training.stages.teachers import Teachers

WORDS = Tokenizer.train(["a dog runs", "a red ball on grass"], TokenizerConfig(min_count=1))
ENCODER = {"name": "efficientnet_lite0", "weights": "random", "size": 32}
DECODER = ShowAttendAndTellConfig(embedding_width=12, hidden_width=12, attention_width=8, dropout=0.0)
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def model_of(seed: int, encoder_of: CaptioningModel | None = None) -> CaptioningModel:
    torch.manual_seed(seed)
    encoder = build_encoder(ENCODER) if encoder_of is None else encoder_of.encoder
    return CaptioningModel(encoder, build_decoder(DECODER, encoder.width, len(WORDS))).eval()


def saved(model: CaptioningModel, folder: Path, tokenizer: Tokenizer = WORDS) -> str:
    config = BundleConfig(
        name=folder.name,
        preprocessing=model.encoder.preprocessing,
        encoder=model.encoder.config.model_dump(mode="json"),
        decoder=DECODER.model_dump(mode="json"),
        grid=model.encoder.grid,
    )
    save_bundle(folder, config, tokenizer, {name: value.numpy() for name, value in model.state_dict().items()}, "")
    return str(folder)


@pytest.fixture
def batch() -> Batch:
    captions = [["a dog runs", "a dog"], ["a red ball on grass", "a ball"]]
    return batch_of(np.arange(2), [[WORDS.encode(text) for text in of_image] for of_image in captions])


def expected_of(model: CaptioningModel, inputs: torch.Tensor, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return model(inputs, batch.tokens, batch.packing).logits[batch.real].softmax(-1)


@pytest.mark.parametrize("alike", [True, False], ids=["one encoder", "two encoders"])
def test_the_mean_of_what_each_says_of_the_photos(alike: bool, batch: Batch, tmp_path: Path) -> None:
    first = model_of(1)
    second = model_of(2, first if alike else None)
    teachers = Teachers([saved(first, tmp_path / "a"), saved(second, tmp_path / "b")], WORDS)
    found = teachers.probabilities(model_of(3), IMAGES, batch)
    mean = (expected_of(first, IMAGES, batch) + expected_of(second, IMAGES, batch)) / 2
    torch.testing.assert_close(found, mean, atol=1e-5, rtol=1e-4)


def test_each_specialist_counts_for_the_photos_whose_captions_it_finds_likely(batch: Batch, tmp_path: Path) -> None:
    first, second = model_of(1), model_of(2)
    teachers = Teachers([saved(first, tmp_path / "a"), saved(second, tmp_path / "b")], WORDS, specialists=True)
    found = teachers.probabilities(model_of(3), IMAGES, batch)
    both = [expected_of(first, IMAGES, batch), expected_of(second, IMAGES, batch)]
    image_of = batch.real.nonzero()[:, 0]
    for image in range(2):
        own = image_of == image
        likelihoods = [p[own].gather(1, batch.targets[batch.real][own][:, None]).prod() for p in both]
        share = likelihoods[0] / sum(likelihoods)
        torch.testing.assert_close(found[own], share * both[0][own] + (1 - share) * both[1][own], atol=1e-5, rtol=1e-3)


def test_cached_features_serve_teachers_with_the_students_encoder_only(batch: Batch, tmp_path: Path) -> None:
    student = model_of(1)
    like, unlike = model_of(2, student), model_of(3)
    grids = student.encoder(IMAGES).detach()
    teachers = Teachers([saved(like, tmp_path / "like")], WORDS)
    torch.testing.assert_close(teachers.probabilities(student, grids, batch), expected_of(like, grids, batch))
    for folders in (["unlike"], ["like", "unlike"]):
        saved(unlike, tmp_path / "unlike")
        teachers = Teachers([str(tmp_path / folder) for folder in folders], WORDS)
        with pytest.raises(UsageError, match=r"different encoder, so it can't use the student.*encoder_stages over 0"):
            teachers.probabilities(student, grids, batch)


def test_a_teacher_may_know_fewer_words_and_never_says_the_others(tmp_path: Path) -> None:
    """As `flickr8k` for a student that started from it and learnt more."""
    more = WORDS.grown(["a zebra", "a giraffe"], TokenizerConfig(min_count=1))
    ids = [[more.encode("a zebra runs")], [more.encode("a red ball")]]
    batch, first = batch_of(np.arange(2), ids), model_of(1)
    folder = saved(first, tmp_path / "first")
    found = Teachers([folder], more).probabilities(model_of(2), IMAGES, batch)
    without = batch_of(np.arange(2), [[[i if i < len(WORDS) else WORDS.unk for i in of[0]]] for of in ids])
    torch.testing.assert_close(found[:, : len(WORDS)], expected_of(first, IMAGES, without))
    assert found.shape[1] == len(more) == len(WORDS) + 2
    assert not found[:, len(WORDS) :].any()
    both = Teachers([folder, folder], more, specialists=True).probabilities(model_of(2), IMAGES, batch)
    torch.testing.assert_close(both, found)  # neither knows a zebra, and both are as likely to have said the rest


def test_other_words_are_refused(tmp_path: Path) -> None:
    other = Tokenizer.train(["a cat runs", "a red ball on grass"], TokenizerConfig(min_count=1))
    folder = saved(model_of(1), tmp_path / "teacher", other)
    with pytest.raises(UsageError, match=r"teacher has a different vocabulary\. Train it on the same captions\."):
        Teachers([folder], WORDS)


def test_a_student_that_is_its_teacher_has_nothing_to_learn(batch: Batch, tmp_path: Path) -> None:
    """And one that is not does: the gradient of the teachers' term, alone."""
    teacher = model_of(1)
    stage = CrossEntropy(teachers=(saved(teacher, tmp_path / "teacher"),), distillation=1.0)
    objective = stage.objective([], WORDS)
    grids = teacher.encoder(IMAGES).detach()
    largest = []
    for student in (model_of(1), model_of(2, teacher)):
        student.encoder = teacher.encoder
        loss = next(objective(student, grids, batch, 0.0))
        assert loss.terms["words"] == 0
        loss.terms["teachers"].backward()
        largest.append(max(float(p.grad.abs().max()) for p in student.decoder.parameters() if p.grad is not None))
    assert largest[0] < 1e-6
    assert largest[1] > 1e-3


def test_the_target_is_shared_between_people_and_teachers(batch: Batch, tmp_path: Path) -> None:
    student, folder = model_of(2), saved(model_of(1), tmp_path / "teacher")
    alone = next(CrossEntropy().objective([], WORDS)(student, IMAGES, batch, 0.0)).terms
    stage = CrossEntropy(teachers=(folder,), distillation=0.25)
    mixed = next(stage.objective([], WORDS)(student, IMAGES, batch, 0.0)).terms
    torch.testing.assert_close(mixed["words"], 0.75 * alone["words"])
    assert mixed["teachers"] > 0
