"""Show, Attend and Tell: packed steps and shared images give what the paper's equations give, caption by caption."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from showtell.models.packing import Packing
from showtell.models.show_attend_and_tell import (
    ShowAttendAndTell,
    ShowAttendAndTellConfig,
    doubly_stochastic_penalty,
)

B, K, T, N, D, V = 3, 4, 6, 9, 10, 17
VARIANTS = [
    {"gate": gate, "output": output, "initial_state": start}
    for gate, output, start in product((True, False), ("deep", "hidden"), ("mean", "zeros"))
] + [{"normalise": True}]


@pytest.fixture(params=VARIANTS, ids=lambda v: "-".join(str(x) for x in v.values()))
def decoder(request: pytest.FixtureRequest) -> ShowAttendAndTell:
    torch.manual_seed(0)
    config = ShowAttendAndTellConfig(embedding_width=8, hidden_width=7, attention_width=6, **request.param)
    return ShowAttendAndTell(config, D, V).eval()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(B, N, D), torch.randint(0, V, (B, K, T))


def paper(decoder: ShowAttendAndTell, grid: Tensor, tokens: Tensor) -> Tensor:
    """One caption of one image by the paper's equations, each with its own weights: `[N, D]`, `[T]` -> `[T, V]`."""
    c = decoder.config
    grid = decoder.normalise(grid)
    query, beta, hidden_gates = decoder.from_hidden.weight.split(decoder.sizes)
    cell = nn.LSTMCell(c.embedding_width + D, c.hidden_width)
    cell.weight_ih.data = torch.cat([decoder.gates_from_word.weight, decoder.gates_from_context.weight], 1)
    cell.weight_hh.data, cell.bias_ih.data = hidden_gates, decoder.gates_from_word.bias
    order = torch.cat([torch.arange(c.hidden_width) + c.hidden_width * i for i in (0, 1, 3, 2)])  # ours i f o g
    for parameter in (cell.weight_ih, cell.weight_hh, cell.bias_ih):
        parameter.data = parameter.data[order]
    cell.bias_hh.data.zero_()
    h, m = torch.zeros(1, c.hidden_width), torch.zeros(1, c.hidden_width)
    if c.initial_state == "mean":
        h, m = (
            torch.tanh(decoder.initial_h(grid.mean(0)))[None],
            torch.tanh(decoder.initial_c(grid.mean(0)))[None],
        )
    logits = []
    for token in tokens:
        e = torch.stack([decoder.score.weight[0] @ torch.tanh(decoder.key(a) + query @ h[0]) for a in grid])
        z = (e.softmax(0)[:, None] * grid).sum(0)
        if c.gate:
            z = torch.sigmoid(beta @ h[0] + decoder.beta_bias) * z
        word = decoder.embedding(token)
        h, m = cell(torch.cat([word, z])[None], (h, m))
        out = h[0]
        if c.output == "deep":
            out = word + decoder.output_h(h[0]) + decoder.output_z(z)
        logits.append(decoder.output(out))
    return torch.stack(logits)


def test_forward_is_the_paper(decoder: ShowAttendAndTell, batch: tuple[Tensor, Tensor]) -> None:
    grid, tokens = batch
    logits = decoder(decoder.memory(grid), tokens)
    for b, k in product(range(B), range(K)):
        torch.testing.assert_close(logits[b, k], paper(decoder, grid[b], tokens[b, k]), rtol=1e-5, atol=1e-5)


def test_repeated_step_is_forward(decoder: ShowAttendAndTell, batch: tuple[Tensor, Tensor]) -> None:
    grid, tokens = batch
    memory = decoder.memory(grid)
    packing = Packing.full(K, T)
    forced = decoder.forced(memory, tokens, packing)
    attention = packing.unpack(forced.attention)
    state = {name: value.expand(-1, K, -1) for name, value in decoder.start(memory).items()}
    for t in range(T):
        logits, alpha, state = decoder.step(memory, state, tokens[:, :, t])
        torch.testing.assert_close(logits, decoder(memory, tokens)[:, :, t], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alpha, attention[:, :, t], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alpha.sum(-1), torch.ones(B, K))


def test_shared_image_is_k_copies(decoder: ShowAttendAndTell, batch: tuple[Tensor, Tensor]) -> None:
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
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_packed_is_the_rectangle_without_its_padding(decoder: ShowAttendAndTell, batch: tuple[Tensor, Tensor]) -> None:
    grid, tokens = batch
    packing = Packing.of_widths([6, 4, 3, 1])
    memory = decoder.memory(grid)
    packed = packing.unpack(decoder.forced(memory, tokens, packing).logits)
    whole = decoder(memory, tokens)
    for k, width in enumerate((6, 4, 3, 1)):
        torch.testing.assert_close(packed[:, k, :width], whole[:, k, :width], rtol=1e-5, atol=1e-5)


def test_every_parameter_learns(decoder: ShowAttendAndTell, batch: tuple[Tensor, Tensor]) -> None:
    """A parameter without a gradient is one that the model does not use."""
    grid, tokens = batch
    decoder(decoder.memory(grid), tokens).square().mean().backward()
    silent = [name for name, p in decoder.named_parameters() if p.numel() and (p.grad is None or not p.grad.any())]
    unused = ["initial_"] if decoder.config.initial_state == "zeros" else []
    assert [name for name in silent if not name.startswith(tuple(unused))] == []


def test_seed_shapes() -> None:
    """Rows 2 and 3 of the design: 49 and 196 cells of 2048 features, width 512, give alpha over the cells."""
    for cells in (49, 196):
        decoder = ShowAttendAndTell(ShowAttendAndTellConfig(), 2048, 100)
        memory = decoder.memory(torch.randn(1, cells, 2048))
        assert memory["keys"].shape == (1, cells, 512)
        logits, alpha, state = decoder.step(memory, decoder.start(memory), torch.tensor([[1]]))
        assert (logits.shape, alpha.shape, state["h"].shape) == ((1, 1, 100), (1, 1, cells), (1, 1, 512))


def test_doubly_stochastic_penalty() -> None:
    """Equation 14: zero for a caption that looked at each cell once in all, and only real steps count."""
    packing = Packing.of_widths([2, 1])
    attention = torch.tensor([[[0.5, 0.5], [0.0, 0.0], [0.5, 0.5]]])  # caption 1 has ended: its step is zeroed
    penalty = doubly_stochastic_penalty(attention, packing)
    torch.testing.assert_close(penalty, torch.tensor([[0.0, 2.0]]))
