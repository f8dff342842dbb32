"""The CNN-Transformer: packed, shared and cached, it gives what PyTorch's own Transformer layers give."""

from itertools import product
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from showtell.errors import UsageError
from showtell.models.transformer import Transformer, TransformerConfig, angles_at, rotated

B, K, T, N, D, V, E = 3, 4, 6, 9, 10, 17, 16
SMALL: dict[str, Any] = {
    "width": E, "heads": 2, "feed_forward_width": 12, "encoder_layers": 2, "decoder_layers": 2, "encode_size": 4,
}  # fmt: skip


def built(**options: Any) -> Transformer:
    torch.manual_seed(0)
    return Transformer(TransformerConfig(**{**SMALL, **options}), D, V).eval()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(B, N, D), torch.randint(0, V, (B, K, T))


def copied(theirs: Any, layer: Any) -> None:
    """Put the weights of one of our layers into PyTorch's."""
    decoder = hasattr(layer, "image_query")
    sub_layers = ["around_words", "around_image", "around_feed_forward"]
    for n, name in enumerate(sub_layers if decoder else ["around_attention", "around_feed_forward"], start=1):
        getattr(theirs, f"norm{n}").load_state_dict(getattr(layer, name).norm.state_dict())
    theirs.self_attn.in_proj_weight.data = layer.query_key_value.weight.data
    theirs.self_attn.in_proj_bias.data = layer.query_key_value.bias.data
    output = layer.words_output if decoder else layer.attention_output
    theirs.self_attn.out_proj.load_state_dict(output.state_dict())
    if decoder:
        query, image = layer.image_query, layer.image_key_value
        theirs.multihead_attn.in_proj_weight.data = torch.cat([query.weight.data, image.weight.data])
        theirs.multihead_attn.in_proj_bias.data = torch.cat([query.bias.data, image.bias.data])
        theirs.multihead_attn.out_proj.load_state_dict(layer.image_output.state_dict())
    for mine, name in ((layer.feed_forward[0], "linear1"), (layer.feed_forward[3], "linear2")):
        linear = getattr(theirs, name)
        linear.weight.data = mine.weight.data.reshape(linear.weight.shape)  # a convolution of kernel size 1 is linear
        linear.bias.data = mine.bias.data


def paper(model: Transformer, grid: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """One image `[N, D]`, one caption `[T]` -> logits `[T, V]`, attention `[T, M]`, with PyTorch's own layers."""
    c = model.config
    options = {
        "d_model": E, "nhead": c.heads, "dim_feedforward": c.feed_forward_width, "dropout": 0.0,
        "activation": c.activation, "batch_first": True, "norm_first": c.norm == "pre",
    }  # fmt: skip
    last_norm = nn.LayerNorm(E) if c.norm == "pre" else nn.Identity()
    neck = F.conv2d(grid.T.reshape(1, D, 3, 3), model.neck[0].weight[..., None], model.neck[0].bias)
    neck = F.batch_norm(neck, model.neck[1].running_mean, model.neck[1].running_var, eps=1e-5).relu()
    image = F.adaptive_avg_pool2d(neck, (4, 4)).flatten(2).mT + model.cell_positions
    for layer in model.encoder_layers:
        theirs = nn.TransformerEncoderLayer(**options)
        copied(theirs, layer)
        image = theirs(image)
    image = last_norm(image)
    position = torch.tensor([
        [(torch.sin if i % 2 == 0 else torch.cos)(torch.tensor(t / 10000 ** (i // 2 * 2 / E))) for i in range(E)]
        for t in range(len(words))
    ])  # fmt: skip
    x = (model.embedding(words) * E**0.5 + position)[None]
    looked = {}
    for layer in model.decoder_layers:
        theirs = nn.TransformerDecoderLayer(**options)
        copied(theirs, layer)
        attention = theirs.multihead_attn
        plain = attention.forward
        attention.forward = lambda *a, plain=plain, **k: (
            looked.update(zip(("output", "weights"), plain(*a, **{**k, "need_weights": True}), strict=True))
            or (looked["output"], None)
        )
        x = theirs(x, image, tgt_mask=nn.Transformer.generate_square_subsequent_mask(len(words)))
    x = last_norm(x)
    return (x @ model.embedding.weight.T + model.output_bias)[0], looked["weights"][0]


@pytest.mark.parametrize("options", [{}, {"norm": "pre", "activation": "gelu"}], ids=["post", "pre"])
def test_forward_is_the_paper(options: dict[str, Any], batch: tuple[Tensor, Tensor]) -> None:
    model = built(**options)
    grid, tokens = batch
    memory = model.memory(grid)
    logits = model(memory, tokens)
    state = {name: value.expand(-1, K, -1, -1, -1) for name, value in model.start(memory).items()}
    attention = []
    for t in range(T):
        _, alpha, state = model.step({**memory, "cells": torch.eye(16).expand(B, 16, 16)}, state, tokens[:, :, t])
        attention.append(alpha)
    for b, k in product(range(B), range(K)):
        expected, looked = paper(model, grid[b], tokens[b, k])
        torch.testing.assert_close(logits[b, k], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.stack(attention, 2)[b, k], looked, rtol=1e-4, atol=1e-5)


def test_attention_to_resized_cells_is_given_back_to_the_grid(batch: tuple[Tensor, Tensor]) -> None:
    """2 x 2 cells, each the mean of 3 x 3 of the grid's 36: a ninth of its weight for each of them."""
    model = built(encode_size=2)
    memory = model.memory(torch.randn(1, 36, D))
    assert memory["cells"].shape == (1, 4, 36)
    _, alpha, _ = model.step(memory, model.start(memory), torch.tensor([[1]]))
    blocks = alpha.view(2, 3, 2, 3).transpose(1, 2).reshape(4, 9)
    torch.testing.assert_close(blocks, blocks[:, :1].expand(4, 9))
    torch.testing.assert_close(alpha.sum(), torch.ones(()))


def test_a_grid_of_the_encode_size_is_left_as_it_is() -> None:
    model = built(encode_size=3)
    cells = torch.randn(1, 9, E)
    assert model.resized(cells) is cells
    assert "cells" not in model.memory(torch.randn(1, 9, D))


def test_rotary_scores_depend_on_distance_alone() -> None:
    """Su et al. 2021, equation 16."""
    query, key = torch.randn(1, 1, 1, 8, dtype=torch.double), torch.randn(1, 1, 1, 8, dtype=torch.double)

    def score(at: int, back: int) -> Tensor:
        turned = [rotated(x, angles_at(torch.tensor([t]), 8)) for x, t in ((query, at), (key, at - back))]
        return (turned[0] @ turned[1].mT).squeeze()

    torch.testing.assert_close(score(3, 2), score(30, 2), rtol=1e-5, atol=1e-5)
    assert not torch.isclose(score(3, 2), score(3, 1))


def test_captions_longer_than_the_learned_positions_are_refused(batch: tuple[Tensor, Tensor]) -> None:
    """Not an index error from deep inside, in training and in search."""
    model = built(positions="learned", max_positions=5)
    grid, tokens = batch
    memory = model.memory(grid)
    assert model(memory, tokens[:, :, :5]).shape == (B, K, 5, V)
    with pytest.raises(UsageError, match=r"captions of at most 5 words\. Lower max_words"):
        model(memory, tokens)
    state = model.start(memory)
    for t in range(5):
        _, _, state = model.step(memory, state, tokens[:, :1, t])
    with pytest.raises(UsageError, match="captions of at most 5 words"):
        model.step(memory, state, tokens[:, :1, 5])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"width": 20, "heads": 8}, "width 20 must be a multiple of twice heads 8"), ({"kernel": 2}, "2 must be odd")],
)
def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TransformerConfig(**options)


def test_seed_shapes() -> None:
    """Row 5 of the design: 49 cells of 2048 features become 256 of width 512; the output's weights are tied."""
    model = Transformer(TransformerConfig(encoder_layers=1, decoder_layers=2), 2048, 100).eval()
    assert model.neck[0].weight.shape == (512, 2048, 1)
    assert model.cell_positions.shape == (256, 512)
    assert not any(p.shape == (100, 512) for name, p in model.named_parameters() if name != "embedding.weight")
    memory = model.memory(torch.randn(1, 49, 2048))
    assert memory["1.image_key"].shape == memory["1.image_value"].shape == (1, 8, 256, 64)
    state = model.start(memory)
    assert state["1.key"].shape == (1, 1, 8, 0, 64)
    logits, alpha, state = model.step(memory, state, torch.tensor([[1]]))
    assert (logits.shape, alpha.shape, state["1.value"].shape) == ((1, 1, 100), (1, 1, 49), (1, 1, 8, 1, 64))
