"""What every decoder promises training and search, whatever it is inside: see `decoder.Decoder`."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from showtell.models.attention_decoder import AttentionDecoder
from showtell.models.captioning_model import build_decoder
from showtell.models.packing import Packing
from showtell.models.show_and_tell import ShowAndTell
from tests.contracts.decoders import small, small_decoders

B, K, T, N, D, V = 3, 4, 6, 9, 10, 17
CONFIGS = small_decoders(side=3) | {"transformer, kernel": small("transformer", encode_size=3, kernel=3)}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def decoder(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return build_decoder(request.param, D, V).eval()  # batch norm in training makes images feel each other


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(B, N, D), torch.randint(0, V, (B, K, T))


def test_repeated_step_is_forward(decoder: Any, batch: tuple[Tensor, Tensor]) -> None:
    grid, tokens = batch
    memory = decoder.memory(grid)
    whole = decoder(memory, tokens)
    packing = Packing.full(K, T)
    attention = decoder.forced(memory, tokens, packing).attention
    assert (attention is not None) == decoder.attends_in_training
    state = {name: value[:, [0] * K] for name, value in decoder.start(memory).items()}
    for t in range(T):
        logits, alpha, state = decoder.step(memory, state, tokens[:, :, t])
        torch.testing.assert_close(logits, whole[:, :, t], rtol=1e-5, atol=1e-5)
        assert {value.shape[:2] for value in state.values()} == {(B, K)}
        if alpha is not None:
            assert alpha.shape == (B, K, N)
            torch.testing.assert_close(alpha.sum(-1), torch.ones(B, K))
        if attention is not None:
            torch.testing.assert_close(alpha, packing.unpack(attention)[:, :, t], rtol=1e-5, atol=1e-5)


def test_words_to_come_are_not_seen(decoder: Any, batch: tuple[Tensor, Tensor]) -> None:
    """Guards the causal mask: logits up to a word don't feel what follows it."""
    grid, tokens = batch
    memory = decoder.memory(grid)
    changed = tokens.clone()
    changed[:, :, 3:] = (tokens[:, :, 3:] + 1) % V
    torch.testing.assert_close(decoder(memory, tokens)[:, :, :3], decoder(memory, changed)[:, :, :3])


def test_shared_image_is_k_copies(decoder: Any, batch: tuple[Tensor, Tensor]) -> None:
    """Values and gradients: an image with K captions is K images with one caption each."""
    grid, tokens = batch
    results = []
    for shared in (True, False):
        decoder.zero_grad()
        g = grid if shared else grid.repeat_interleave(K, 0)
        t = tokens if shared else tokens.reshape(B * K, 1, T)
        logits = decoder(decoder.memory(g), t).reshape(B, K, T, V)
        logits.square().mean().backward()
        results.append([logits, *(p.grad for p in decoder.parameters() if p.grad is not None)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_packed_is_the_rectangle_without_its_padding(decoder: Any, batch: tuple[Tensor, Tensor]) -> None:
    grid, tokens = batch
    packing = Packing.of_widths([6, 4, 3, 1])
    memory = decoder.memory(grid)
    packed = packing.unpack(decoder.forced(memory, tokens, packing).logits)
    whole = decoder(memory, tokens)
    for k, width in enumerate((6, 4, 3, 1)):
        torch.testing.assert_close(packed[:, k, :width], whole[:, k, :width], rtol=1e-5, atol=1e-5)


def test_every_parameter_learns(decoder: Any, batch: tuple[Tensor, Tensor]) -> None:
    """A parameter without a gradient is one that the model does not use (hard attention uses all in training only)."""
    grid, tokens = batch
    decoder.train()
    decoder(decoder.memory(grid), tokens).square().mean().backward()
    silent = [name for name, p in decoder.named_parameters() if p.numel() and (p.grad is None or not p.grad.any())]
    assert silent == []


def test_memory_is_never_repeated_for_captions(decoder: Any, batch: tuple[Tensor, Tensor]) -> None:
    """And it is one row an image, which is how engines count and drop images."""
    memory = decoder.memory(batch[0])
    assert {len(value) for value in memory.values()} == {B}


def test_a_batch_of_one_image_can_be_learnt_from(decoder: Any, batch: tuple[Tensor, Tensor]) -> None:
    """The last batch of an epoch may hold a single image, whose mean feature has no variance."""
    grid, tokens = batch
    decoder.train()
    assert decoder(decoder.memory(grid[:1]), tokens[:1]).isfinite().all()


def test_mixed_precision_is_nearly_the_same(decoder: Any, batch: tuple[Tensor, Tensor]) -> None:
    """`precision: bf16` of a recipe: no mixture of types inside stops the forward or the backward pass."""
    grid, tokens = batch
    exact = decoder(decoder.memory(grid), tokens)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = decoder(decoder.memory(grid), tokens)
    if getattr(decoder.config, "attention", None) != "hard":  # which of two like cells is chosen may change
        torch.testing.assert_close(mixed.float(), exact, rtol=0.1, atol=0.1)
    mixed.float().square().mean().backward()
    assert {p.grad.dtype for p in decoder.parameters() if p.grad is not None} == {torch.float32}


def test_mixed_precision_keeps_float32_where_it_must(decoder: Any, batch: tuple[Tensor, Tensor]) -> None:
    """Cells of an LSTM, attention and losses: the sums over steps, cells and words that bfloat16 would round."""
    grid, tokens = batch
    with torch.autocast("cpu", torch.bfloat16):
        memory = decoder.memory(grid)
        start = decoder.start(memory)
        logits, attention, state = decoder.step(memory, start, tokens[:, :1, 0])
        forced = decoder.forced(memory, tokens, Packing.full(K, T))
        loss = F.cross_entropy(forced.logits.flatten(0, 1), tokens[:, :, :T].reshape(-1))
    assert logits.dtype == torch.bfloat16, "the products are what is meant to be fast"
    cells = [of[name] for of in (start, state) for name in of if name.rstrip("12") == "c"]
    found = [*cells, loss, *(each for each in (attention, forced.attention) if each is not None)]
    assert {each.dtype for each in found} == {torch.float32}
    assert cells or not isinstance(decoder, ShowAndTell | AttentionDecoder)
