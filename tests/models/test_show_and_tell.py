"""Show and Tell: packed, shared and hand-ordered, it gives what nn.LSTM gives, caption by caption."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from showtell.models.packing import Packing
from showtell.models.show_and_tell import ShowAndTell, ShowAndTellConfig

B, K, T, N, D, V = 3, 4, 6, 9, 10, 17


@pytest.fixture(params=[1, 3], ids=["1 layer", "3 layers"])
def decoder(request: pytest.FixtureRequest) -> ShowAndTell:
    torch.manual_seed(0)
    return ShowAndTell(ShowAndTellConfig(embedding_width=8, hidden_width=7, layers=request.param), D, V).eval()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(B, N, D), torch.randint(0, V, (B, K, T))


def paper(decoder: ShowAndTell, grid: Tensor, words: Tensor) -> Tensor:
    """One image `[N, D]` and one caption `[T]`, the image put before its words: `[T, V]`."""
    c = decoder.config
    lstm = nn.LSTM(c.embedding_width, c.hidden_width, num_layers=c.layers)
    order = torch.cat([torch.arange(c.hidden_width) + c.hidden_width * i for i in (0, 1, 3, 2)])  # ours i f o g
    for n, layer in enumerate(decoder.layers):
        getattr(lstm, f"weight_ih_l{n}").data = layer.gates_from_input.weight.data[order]
        getattr(lstm, f"weight_hh_l{n}").data = layer.gates_from_hidden.weight.data[order]
        getattr(lstm, f"bias_ih_l{n}").data = layer.gates_from_input.bias.data[order]
        getattr(lstm, f"bias_hh_l{n}").data.zero_()
    image = torch.relu(decoder.image_norm(decoder.image(grid.mean(0))[None]))
    hidden, _ = lstm(torch.cat([image, decoder.embedding(words)]))
    return decoder.output(hidden)[1:]  # what follows the image is <start>, which is given


def test_forward_is_the_paper(decoder: ShowAndTell, batch: tuple[Tensor, Tensor]) -> None:
    grid, tokens = batch
    logits = decoder(decoder.memory(grid), tokens)
    for b, k in product(range(B), range(K)):
        torch.testing.assert_close(logits[b, k], paper(decoder, grid[b], tokens[b, k]), rtol=1e-5, atol=1e-5)


def test_prefixes_are_teacher_forcing(decoder: ShowAndTell, batch: tuple[Tensor, Tensor]) -> None:
    """Seed 003 trains on (prefix -> next word) pairs: summed over a caption's prefixes, that is one forced pass.

    Values and gradients, for captions of different lengths, packed.
    """
    grid, tokens = batch
    widths = [6, 4, 3, 1]
    following = torch.randint(0, V, (B, K, T))
    packing = Packing.of_widths(widths)
    forced = decoder.forced(decoder.memory(grid), tokens, packing).logits
    together = F.cross_entropy(forced.flatten(0, 1), packing.pack(following).flatten(), reduction="sum")
    one_by_one = torch.zeros(())
    for b, k in product(range(B), range(K)):
        memory = decoder.memory(grid[b : b + 1])
        for length in range(1, widths[k] + 1):
            last = decoder(memory, tokens[b : b + 1, k : k + 1, :length])[:, 0, -1]
            one_by_one = one_by_one + F.cross_entropy(last, following[b, k, length - 1, None])
    torch.testing.assert_close(together, one_by_one)
    ours, theirs = (torch.autograd.grad(loss, list(decoder.parameters())) for loss in (together, one_by_one))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_one_image_is_normalised_by_the_running_statistics(decoder: ShowAndTell) -> None:
    decoder.train()
    decoder.image_norm.running_mean.fill_(2.0)
    image = torch.randn(1, 8)
    torch.testing.assert_close(decoder.image_norm(image), (image - 2) / (1 + 1e-5) ** 0.5)
    torch.testing.assert_close(decoder.image_norm.running_mean, torch.full((8,), 2.0))


def test_seed_shapes() -> None:
    """Row 1 of the design: ResNet-50's 49 cells, pooled to 2048, become a first word of width 300."""
    decoder = ShowAndTell(ShowAndTellConfig(layers=2), 2048, 100)
    memory = decoder.memory(torch.randn(32, 49, 2048))
    assert memory["image"].shape == (32, 300)
    state = decoder.start(memory)
    assert state["h"].shape == state["c"].shape == (32, 1, 2, 512)
    logits, attention, state = decoder.step(memory, state, torch.ones(32, 1, dtype=torch.long))
    assert (logits.shape, attention, state["h"].shape) == ((32, 1, 100), None, (32, 1, 2, 512))
