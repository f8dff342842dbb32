"""Att2in, adaptive attention and Up-Down: packed steps and shared images give what the papers' equations give.

Each `*_by_its_paper` says one caption of one image word by word, `[N, D]`, `[T]` -> logits `[T, V]` and alpha `[T, N]`.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, relu, sigmoid, tanh

from showtell.models.adaptive_attention import AdaptiveAttention, AdaptiveAttentionConfig
from showtell.models.att2in import Att2in, Att2inConfig
from showtell.models.packing import Packing
from showtell.models.up_down import UpDown, UpDownConfig

B, K, T, N, D, H, V = 2, 3, 5, 9, 10, 7, 17
SIZES: dict[str, Any] = {"embedding_width": 8, "hidden_width": H, "attention_width": 6}
Said = tuple[list[Tensor], list[Tensor]]


def att2in_by_its_paper(decoder: Att2in, grid: Tensor, tokens: Tensor) -> Said:
    cells = relu(decoder.cell(grid))
    query, *hidden = decoder.from_hidden.weight.split([6] + [H] * 5)
    word = decoder.gates_from_word.weight.split(H)
    bias = decoder.gates_from_word.bias.split(H)
    image = decoder.content_from_context.weight.split(H)
    h, c = torch.zeros(H), torch.zeros(H)
    logits, alphas = [], []
    for token in tokens:
        x = decoder.embedding(token)
        alpha = torch.stack([decoder.score(tanh(decoder.key(cell) + query @ h))[0] for cell in cells]).softmax(0)
        seen = (alpha[:, None] * cells).sum(0)
        i, f, o = (sigmoid(word[n] @ x + hidden[n] @ h + bias[n]) for n in range(3))
        first, second = (word[n] @ x + image[n - 3] @ seen + hidden[n] @ h + bias[n] for n in (3, 4))
        c = i * torch.max(first, second) + f * c
        h = o * tanh(c)
        logits.append(decoder.output(h))
        alphas.append(alpha)
    return logits, alphas


def adaptive_by_its_paper(decoder: AdaptiveAttention, grid: Tensor, tokens: Tensor) -> Said:
    cells, image = relu(decoder.cell(grid)), relu(decoder.image(grid.mean(0)))
    from_word, from_image = decoder.gates_from_word, decoder.gates_from_image
    h, c = torch.zeros(H), torch.zeros(H)
    logits, alphas = [], []
    for token in tokens:
        gates = from_word(decoder.embedding(token)) + from_image(image) + decoder.gates_from_hidden(h)
        i, f, o, g, s = gates.split(H)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        sentinel = sigmoid(s) * tanh(c)
        z = torch.stack([decoder.score(tanh(decoder.key(v) + decoder.query(h)))[0] for v in cells])
        last = decoder.score(tanh(decoder.sentinel_key(sentinel) + decoder.query(h)))
        beta = torch.cat([z, last]).softmax(0)[-1]
        context = beta * sentinel + (1 - beta) * (z.softmax(0)[:, None] * cells).sum(0)
        logits.append(decoder.output(context + h))
        alphas.append(z.softmax(0))
    return logits, alphas


def up_down_by_its_paper(decoder: UpDown, grid: Tensor, tokens: Tensor) -> Said:
    cells = relu(decoder.cell(grid))

    def cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, g = gates.split(H)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c

    (h1, c1), (h2, c2) = ((torch.zeros(H), torch.zeros(H)) for _ in range(2))
    own, of_language = decoder.gates_from_hidden.weight.split(H, dim=1)
    logits, alphas = [], []
    for token in tokens:
        read = decoder.gates_from_word(decoder.embedding(token)) + decoder.gates_from_image(cells.mean(0))
        h1, c1 = cell(read + own @ h1 + of_language @ h2, c1)
        alpha = torch.stack([decoder.score(tanh(decoder.key(v) + decoder.query(h1)))[0] for v in cells]).softmax(0)
        seen = (alpha[:, None] * cells).sum(0)
        h2, c2 = cell(decoder.gates_from_seen(torch.cat([seen, h1, h2])), c2)
        logits.append(decoder.output(h2))
        alphas.append(alpha)
    return logits, alphas


@pytest.mark.parametrize(
    ("decoder", "by_its_paper"),
    [
        (Att2in(Att2inConfig(**SIZES), D, V), att2in_by_its_paper),
        (AdaptiveAttention(AdaptiveAttentionConfig(**SIZES), D, V), adaptive_by_its_paper),
        (UpDown(UpDownConfig(**SIZES), D, V), up_down_by_its_paper),
    ],
    ids=["att2in", "adaptive attention", "up-down"],
)
def test_forward_is_the_paper(decoder: Any, by_its_paper: Callable[[Any, Tensor, Tensor], Said]) -> None:
    torch.manual_seed(1)
    decoder.eval()
    decoder.score.weight.data *= 5  # far from even attention
    grid, tokens = torch.randn(B, N, D), torch.randint(0, V, (B, K, T))
    packing = Packing.full(K, T)
    forced = decoder.forced(decoder.memory(grid), tokens, packing)
    logits, attention = packing.unpack(forced.logits), packing.unpack(forced.attention)
    for b in range(B):
        for k in range(K):
            said, looked = by_its_paper(decoder, grid[b], tokens[b, k])
            torch.testing.assert_close(logits[b, k], torch.stack(said), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(attention[b, k], torch.stack(looked), rtol=1e-5, atol=1e-5)
