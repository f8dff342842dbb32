"""Batches: every caption once an epoch, hardly any padding, and an order that only the seed decides."""

from collections import Counter

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from showtell.tokenizer import Tokenizer
from showtell.training.inputs.batches import Batch, batch_of, epoch_of_batches, images_of_epoch, rows_of_epoch

captions_of_images = st.lists(
    st.lists(st.lists(st.integers(4, 9), min_size=0, max_size=12), min_size=1, max_size=6),
    min_size=1,
    max_size=30,
)


def framed(images: list[list[list[int]]]) -> list[list[list[int]]]:
    return [[[Tokenizer.start, *words, Tokenizer.end] for words in captions] for captions in images]


def captions_in(batch: Batch) -> list[tuple[int, tuple[int, ...]]]:
    """What a batch teaches, read back from its tokens and targets: (row, ids)."""
    targets = batch.packing.unpack(batch.targets, fill=-1)
    real = batch.packing.unpack(batch.real, fill=False)
    found = []
    for b, row in enumerate(batch.rows):
        for k in range(batch.tokens.shape[1]):
            steps = int(real[b, k].sum())
            if steps:
                tokens, next_tokens = batch.tokens[b, k, :steps].tolist(), targets[b, k, :steps].tolist()
                assert tokens[1:] == next_tokens[:-1], "a target is the token that follows"
                found.append((int(row), (*tokens, next_tokens[-1])))
    return found


@settings(deadline=None, max_examples=60)
@given(captions_of_images, st.integers(1, 7))
def test_an_epoch_teaches_every_caption_once(images: list[list[list[int]]], size: int) -> None:
    captions = framed(images)
    batches = list(epoch_of_batches(captions, size, 6, np.random.default_rng(0)))
    taught = Counter(caption for batch in batches for caption in captions_in(batch))
    assert taught == Counter((row, tuple(ids)) for row, of_image in enumerate(captions) for ids in of_image)
    assert sum(batch.captions for batch in batches) == sum(map(len, captions))
    assert sorted(len(batch.rows) for batch in batches)[1:] == [size] * (len(batches) - 1)


def test_the_seed_decides_the_order() -> None:
    captions = framed([[[4] * (1 + i % 5), [5]] for i in range(40)])
    first, again, other = (
        [batch.rows.tolist() for batch in epoch_of_batches(captions, 4, 5, np.random.default_rng(seed))]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@given(st.lists(st.sampled_from([1.0, 0.5, 0.3]), min_size=1, max_size=60), st.integers(0, 99))
def test_a_pass_shows_images_as_often_as_asked(times: list[float], seed: int) -> None:
    """Over passes, too: who is left out changes, and how many are shown does not."""
    rows = rows_of_epoch(times, np.random.default_rng(seed))
    assert len(rows) == images_of_epoch(times)
    assert len(set(rows.tolist())) == len(rows)
    for value in set(times):
        images = {row for row, each in enumerate(times) if each == value}
        assert len(images & set(rows.tolist())) == round(value * len(images))


def test_batches_name_images_by_their_places_in_the_data() -> None:
    captions = framed([[[4 + i]] for i in range(40)])
    batches = list(epoch_of_batches(captions, 4, 5, np.random.default_rng(0), times=[1.0] * 20 + [0.5] * 20))
    assert sum(len(batch.rows) for batch in batches) == 30
    assert all(ids[1] == 4 + row for batch in batches for row, ids in captions_in(batch))


def test_groups_change_from_epoch_to_epoch() -> None:
    """Fixed groups would be the same few hundred gradients over and over."""
    generator = np.random.default_rng(0)
    captions = framed([[[4] * int(n) for n in generator.integers(5, 15, 5)] for _ in range(200)])
    one, two = (
        {frozenset(batch.rows.tolist()) for batch in epoch_of_batches(captions, 8, 5, np.random.default_rng(epoch))}
        for epoch in (1, 2)
    )
    assert len(one & two) < len(one) / 4


def test_padding_stays_under_a_tenth() -> None:
    """On lengths like Flickr8k's: 5 captions an image, 10.8 words on average, a standard deviation of 3.8."""
    generator = np.random.default_rng(0)
    easy = generator.normal(10.8, 2, 6000)  # some images are said in fewer words than others
    captions = framed([[[4] * int(max(1, n)) for n in generator.normal(mean, 3.2, 5)] for mean in easy])
    batches = list(epoch_of_batches(captions, 20, 5, generator))
    words, positions = sum(b.words for b in batches), sum(b.real.numel() for b in batches)
    assert 1 - words / positions < 0.10


def test_takes_a_random_choice_of_many_captions() -> None:
    captions = framed([[[4 + i] for i in range(6)]])
    chosen = {
        ids[1] for epoch in range(20)
        for batch in epoch_of_batches(captions, 1, 2, np.random.default_rng(epoch))
        for _, ids in captions_in(batch)
    }  # fmt: skip
    assert chosen == set(range(4, 10))


def test_an_image_with_fewer_captions_pads_last() -> None:
    batch = batch_of(np.array([7, 8]), framed([[[4, 5]], [[4], [5, 6, 7]]]))
    assert batch.packing.running == (2, 2, 1, 1)
    assert batch.words == 3 + 2 + 4
    assert batch.tokens[0, 1].eq(Tokenizer.pad).all()
    assert torch.equal(batch.tokens[1, 0], torch.tensor([1, 5, 6, 7]))
