"""Packing a decoder's matrices for inference changes how fast it is, and nothing that it says."""

import copy

import pytest
import torch
from torch.nn import functional as F

from showtell.engines.torch import with_packed_weights
from showtell.models.captioning_model import build_decoder
from showtell.models.decoder import DecoderConfig
from tests.contracts.decoders import small_decoders

D, V = 24, 31


DECODERS = small_decoders(side=3)


@pytest.mark.parametrize("config", DECODERS.values(), ids=DECODERS.keys())
@pytest.mark.parametrize("captions", [1, 40])
@torch.inference_mode()
def test_packed_decoder_says_the_same(config: DecoderConfig, captions: int) -> None:
    """Guards a weight that is used otherwise than by `linear` (looked up, sliced, tied), and other numbers of rows."""
    torch.manual_seed(0)
    decoder = build_decoder(config, D, V).eval()
    fast = with_packed_weights(copy.deepcopy(decoder))
    grid, tokens = torch.randn(3, 9, D), torch.randint(4, V, (3, captions, 5))
    logits = fast(fast.memory(grid), tokens)
    assert type(logits) is torch.Tensor
    torch.testing.assert_close(logits, decoder(decoder.memory(grid), tokens), rtol=1e-4, atol=1e-5)
    assert fast.state_dict().keys() == decoder.state_dict().keys()


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this PyTorch has no MKL to go around")
def test_products_are_the_packed_ones() -> None:
    """Guards a PyTorch that no longer asks the weight how to multiply: all would be right, and slow."""
    linear = with_packed_weights(torch.nn.Linear(8, 4))
    assert [name for name, _ in linear.named_parameters()] == ["bias"]
    linear.weight.packed = torch.ops.mkldnn._reorder_linear_weight(torch.zeros(4, 8), 80)
    with torch.inference_mode():
        assert torch.equal(linear(torch.ones(2, 8)), linear.bias.expand(2, 4))
        assert torch.equal(F.linear(torch.ones(2, 8), linear.weight), torch.zeros(2, 4))
