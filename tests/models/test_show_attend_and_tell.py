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


def test_hard_attention_says_which_cell_it_chose(batch: tuple[Tensor, Tensor]) -> None:
    """In captioning the likeliest cell, as ones and zeros, and the context is that cell (equation 9)."""
    soft, hard = hard_and_soft()
    grid, tokens = batch
    memory = soft.memory(grid)
    state = soft.start(memory)
    _, alpha, _ = soft.step(memory, state, tokens[:, :1, 0])
    _, cell, _ = hard.step(memory, state, tokens[:, :1, 0])
    assert torch.equal(cell, (alpha == alpha.amax(-1, keepdim=True)).float())


def test_drawn_cells_come_as_often_as_alpha_says(batch: tuple[Tensor, Tensor]) -> None:
    soft, hard = hard_and_soft(choice="drawn")
    memory = {name: value[:1] for name, value in soft.memory(batch[0]).items()}
    tokens = torch.full((1, 4000), 5)
    state = {name: value.expand(-1, 4000, -1) for name, value in soft.start(memory).items()}
    _, alpha, _ = soft.step(memory, state, tokens)
    _, cells, _ = hard.step(memory, state, tokens)
    torch.testing.assert_close(cells.mean(1), alpha[:, 0], rtol=0, atol=0.04)


def test_some_training_images_are_looked_at_softly(batch: tuple[Tensor, Tensor]) -> None:
    """The end of section 4.1: an image is looked at in one way throughout; nothing was chosen where it is softly."""
    _, hard = hard_and_soft()
    grid, tokens = batch[0].repeat(20, 1, 1), batch[1].repeat(20, 1, 1)
    hard.train()
    forced = hard.forced(hard.memory(grid), tokens, Packing.full(K, T))
    assert forced.attention is not None
    assert forced.choices is not None
    one_hot = (forced.attention.amax(-1) == 1).all(-1)
    assert torch.equal(one_hot, forced.choices.drawn[:, 0])
    assert 10 < one_hot.sum() < 50
    torch.testing.assert_close(forced.attention.sum(-1), torch.ones(60, K * T))


def hard_and_soft(**options: str) -> tuple[ShowAttendAndTell, ShowAttendAndTell]:
    """The same weights with soft and with hard attention, whose alpha is far from even."""
    sizes = {"embedding_width": 8, "hidden_width": 7, "attention_width": 6}
    torch.manual_seed(0)
    soft = ShowAttendAndTell(ShowAttendAndTellConfig(**sizes), D, V).eval()
    soft.score.weight.data *= 10
    hard = ShowAttendAndTell(ShowAttendAndTellConfig(**sizes, attention="hard", **options), D, V).eval()
    hard.load_state_dict(soft.state_dict() | {"baseline": hard.baseline})
    return soft, hard


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
