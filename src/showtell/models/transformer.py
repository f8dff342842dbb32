"""The CNN-Transformer: Attention Is All You Need (Vaswani et al. 2017, arXiv:1706.03762v7), reading an image.

The encoder's grid goes through a neck, is resized to M = encode_size ** 2 cells with learned positions, and passes
Transformer encoder layers; a Transformer decoder writes the caption. Section numbers below are the paper's. Differences
from it:

- The encoder's feed-forward network is two 1-D convolutions over the cells; with kernel size 1 it is the paper's.
- Dropout is on embeddings, sub-layers and inside the feed-forward network, not on attention weights.
- The image is encoded once for its K captions: the queries of the captions' P packed positions attend to each layer's
  keys and values of it, `[B, heads, M, d]`. Each position also sees those of the same caption up to its own step;
  since a caption's padding comes after it, padding needs no other mask.
- In search the keys and values of the words so far are the state, one array per layer that grows along t.

Options give the modern variant: norm "pre", activation "gelu", positions "rotary" (Su et al. 2021) or "learned". The
attention that is returned is the last decoder layer's attention to the image, averaged over its heads.

`decoder.py` has the letters of the shapes. Here E is the width of everything but features; M is the cells after
resizing, R any number of rows, t the words so far, and d = E / heads.
"""

import math
from typing import ClassVar, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from showtell.errors import UsageError
from showtell.models.decoder import Arrays, Decoder, DecoderConfig, Forced
from showtell.models.dropout import Dropout
from showtell.models.packing import Packing

attend = F.scaled_dot_product_attention  # equation 1, fused


class LayerConfig(DecoderConfig):
    """Sizes and options of a layer."""

    width: int = Field(512, gt=0, description="E, width of every layer and of a word's embedding")
    heads: int = Field(8, gt=0, description="attention heads; they divide the width")
    feed_forward_width: int = Field(2048, gt=0, description="hidden width of the feed-forward networks")
    norm: Literal["post", "pre"] = Field(
        "post", description="layer norm after each sub-layer, as in the paper, or before it"
    )
    norm_epsilon: float = Field(1e-5, gt=0, description="added to the variance in layer norms")
    activation: Literal["relu", "gelu", "gelu_tanh"] = Field("relu", description="of the feed-forward networks")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of embeddings and of sub-layers' units dropped")


class TransformerConfig(LayerConfig):
    """Sizes and options of the encoder layers and the decoder."""

    name: Literal["transformer"] = "transformer"
    encoder_layers: int = Field(3, ge=0, description="layers over the image's cells")
    decoder_layers: int = Field(3, gt=0, description="layers over the words")
    encode_size: int = Field(
        16, gt=0, description="the grid is resized to this many cells on a side; its own size leaves it as it is"
    )
    kernel: int = Field(1, gt=0, description="width in cells of the encoder's feed-forward convolutions; odd")
    positions: Literal["sinusoidal", "learned", "rotary"] = Field(
        "sinusoidal", description="how the decoder knows the order of words"
    )
    max_positions: int = Field(
        64, gt=0, description="with learned positions, the most words of a caption; other positions have no limit"
    )

    @model_validator(mode="after")
    def _widths_fit(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of twice heads {self.heads}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} must be odd")
        return self


class SubLayer(nn.Module):
    """What surrounds attention and feed-forward networks: residual, dropout, and layer norm (section 5.4)."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.norm = nn.LayerNorm(config.width, config.norm_epsilon)
        self.dropout = Dropout(config.dropout)

    def before(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x) if self.pre else x
        return normed

    def after(self, x: Tensor, y: Tensor) -> Tensor:
        """The output, from the sub-layer's input `x` and its result `y`."""
        x = x + self.dropout(y)
        return x if self.pre else self.norm(x)


class EncoderLayer(nn.Module):
    """Self-attention of the cells, then convolutions over them: `[B, M, E]` -> `[B, M, E]` (section 3.1)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.around_attention, self.around_feed_forward = SubLayer(config), SubLayer(config)
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.attention_output = nn.Linear(config.width, config.width)
        self.feed_forward = nn.Sequential(
            nn.Conv1d(config.width, config.feed_forward_width, config.kernel, padding="same"),
            activation(config),
            Dropout(config.dropout),
            nn.Conv1d(config.feed_forward_width, config.width, config.kernel, padding="same"),
        )

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = in_heads(self.query_key_value(self.around_attention.before(x)), 3, self.heads)
        x = self.around_attention.after(x, self.attention_output(merged(attend(query, key, value))))
        cells = self.around_feed_forward.before(x).transpose(1, 2)  # [B, E, M]
        return self.around_feed_forward.after(x, self.feed_forward(cells).transpose(1, 2))


class DecoderLayer(nn.Module):
    """Attention to the words so far, attention to the image, feed-forward (section 3.1), for rows `[B, R, E]`.

    The R rows are the P positions of teacher forcing or the K hypotheses of search. They differ only in which words a
    row may look back at, so the caller does that between `ask` and `hear`.

    Args:
        config: sizes and options.
        image_width: width of the image's cells; None leaves out the attention to the image.
    """

    def __init__(self, config: LayerConfig, image_width: int | None) -> None:
        super().__init__()
        self.heads = config.heads
        self.around_words, self.around_feed_forward = SubLayer(config), SubLayer(config)
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.words_output = nn.Linear(config.width, config.width)
        if image_width is not None:
            self.around_image = SubLayer(config)
            self.image_query = nn.Linear(config.width, config.width)
            self.image_key_value = nn.Linear(image_width, 2 * config.width)
            self.image_output = nn.Linear(config.width, config.width)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.width, config.feed_forward_width),
            activation(config),
            Dropout(config.dropout),
            nn.Linear(config.feed_forward_width, config.width),
        )

    def remember(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The image's keys and values, each `[B, heads, M, d]`, from its cells `[B, M, image_width]`."""
        key, value = in_heads(self.image_key_value(image), 2, self.heads)
        return key, value

    def ask(self, x: Tensor) -> tuple[Tensor, ...]:
        """The rows' queries, keys and values of the self-attention, each `[B, heads, R, d]`."""
        return in_heads(self.query_key_value(self.around_words.before(x)), 3, self.heads)

    def hear(self, x: Tensor, words: Tensor) -> Tensor:
        """The rows `[B, R, E]`, after the self-attention has returned `words` `[B, heads, R, d]`."""
        return self.around_words.after(x, self.words_output(merged(words)))

    def look(self, x: Tensor, image_key: Tensor, image_value: Tensor) -> tuple[Tensor, Tensor]:
        """The rows after the attention to the image, and its queries, `[B, heads, R, d]`."""
        (query,) = in_heads(self.image_query(self.around_image.before(x)), 1, self.heads)
        return self.around_image.after(x, self.image_output(merged(attend(query, image_key, image_value)))), query

    def feed(self, x: Tensor) -> Tensor:
        """The rows after the feed-forward network."""
        return self.around_feed_forward.after(x, self.feed_forward(self.around_feed_forward.before(x)))


class Transformer(Decoder):
    """Encoder layers and decoder of the captioning Transformer.

    Memory is, for each decoder layer l, {l.image_key, l.image_value `[B, heads, M, d]`}, and cells `[B, M, N]` if the
    grid was resized; state is {l.key, l.value `[B, K, heads, t, d]`}.
    """

    config: TransformerConfig
    layered: ClassVar[bool] = True

    def __init__(self, config: TransformerConfig, feature_width: int, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.neck = nn.Sequential(
            nn.Conv1d(feature_width, config.width, 1),  # over a row of N cells: a 1 x 1 convolution over the grid
            nn.BatchNorm1d(config.width),
            nn.ReLU(),
        )
        self.cell_positions = nn.Parameter(torch.empty(config.encode_size**2, config.width))
        encoder_layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.encoder_layers = cast(list[EncoderLayer], encoder_layers)
        self.encoder_norm = self.last_norm()
        self.embedding = nn.Embedding(vocabulary, config.width)
        if config.positions == "learned":
            self.word_positions = nn.Embedding(config.max_positions, config.width)
        decoder_layers = nn.ModuleList(DecoderLayer(config, config.width) for _ in range(config.decoder_layers))
        self.decoder_layers = cast(list[DecoderLayer], decoder_layers)
        self.decoder_norm = self.last_norm()
        self.output_bias = nn.Parameter(torch.zeros(vocabulary))  # the weight is the embedding's (section 3.4)
        self.dropout = Dropout(config.dropout)
        self.reset_parameters()

    def last_norm(self) -> nn.Module:
        """With norms before the sub-layers, the last sum still needs one."""
        return nn.LayerNorm(self.config.width, self.config.norm_epsilon) if self.config.norm == "pre" else nn.Identity()

    def reset_parameters(self) -> None:
        """Glorot's initialisation; embeddings get unit size after multiplication by the root of E."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        nn.init.normal_(self.embedding.weight, std=self.config.width**-0.5)
        nn.init.normal_(self.cell_positions, std=0.02)
        if self.config.positions == "learned":
            nn.init.normal_(self.word_positions.weight, std=0.02)

    @property
    def max_words(self) -> int | None:
        """Learned positions limit the length."""
        return self.config.max_positions if self.config.positions == "learned" else None

    # ---------------------------------------------------------------- an image, once

    def memory(self, grid: Tensor) -> Arrays:
        """Each decoder layer's keys and values of the image, from its grid `[B, N, D]`."""
        cells = self.resized(self.neck(grid.transpose(1, 2)).transpose(1, 2))  # [B, M, E]
        image = self.dropout(cells + self.cell_positions)
        for encoder_layer in self.encoder_layers:
            image = encoder_layer(image)
        image = self.encoder_norm(image)
        memory = {}
        for n, layer in enumerate(self.decoder_layers):
            memory[f"{n}.image_key"], memory[f"{n}.image_value"] = layer.remember(image)
        if grid.shape[1] != cells.shape[1]:
            one_hot = torch.eye(grid.shape[1], dtype=cells.dtype, device=cells.device)[None]
            memory["cells"] = self.resized(one_hot).expand(grid.shape[0], -1, -1)
        return memory

    def resized(self, cells: Tensor) -> Tensor:
        """The adaptive resize: cells `[B, N, E]` of a square grid -> `[B, M, E]`, each the mean of those it covers."""
        side = math.isqrt(cells.shape[1])
        if side == self.config.encode_size:
            return cells
        maps = cells.transpose(1, 2).unflatten(2, (side, side))
        return F.adaptive_avg_pool2d(maps, self.config.encode_size).flatten(2).transpose(1, 2)

    def start(self, memory: Arrays) -> Arrays:
        """The state before the first word: no keys and no values, `[B, 1, heads, 0, d]`."""
        values = memory["0.image_value"]
        nothing = values.new_empty(values.shape[0], 1, self.config.heads, 0, values.shape[-1])
        return {f"{n}.{part}": nothing for n in range(self.config.decoder_layers) for part in ("key", "value")}

    # ---------------------------------------------------------------- words

    def embedded(self, tokens: Tensor, steps: Tensor, last: int) -> Tensor:
        """Words and their positions, `[B, R, E]`, from ids `[B, R]` at steps `[R]`, none of which is after `last`."""
        words = self.embedding(tokens) * math.sqrt(self.config.width)
        if self.config.positions == "sinusoidal":
            angles = angles_at(steps, self.config.width)
            words = words + torch.stack([angles.sin(), angles.cos()], -1).flatten(1)  # section 3.5
        elif self.config.positions == "learned":
            if last >= self.config.max_positions:
                raise UsageError(
                    f"This model has positions for captions of at most {self.config.max_positions} words.",
                    "Lower max_words, or train with a higher decoder.max_positions.",
                )
            words = words + self.word_positions(steps)
        embedded: Tensor = self.dropout(words)
        return embedded

    def turned(self, query: Tensor, key: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys `[B, heads, R, d]`; with rotary positions, rotated by their steps `[R]`."""
        if self.config.positions != "rotary":
            return query, key
        angles = angles_at(steps, query.shape[-1])
        return rotated(query, angles), rotated(key, angles)

    def step(self, memory: Arrays, state: Arrays, tokens: Tensor) -> tuple[Tensor, Tensor, Arrays]:
        batch, hypotheses = tokens.shape
        so_far = state["0.key"].shape[3]  # t
        now = torch.full((1,), so_far, device=tokens.device)
        x, longer = self.embedded(tokens, now, so_far), {}
        for n, layer in enumerate(self.decoder_layers):
            query, key, value = layer.ask(x)  # [B, heads, K, d]
            query, key = self.turned(query, key, now)
            for part, added in (("key", key), ("value", value)):
                longer[f"{n}.{part}"] = torch.cat([state[f"{n}.{part}"], added.transpose(1, 2)[:, :, :, None]], 3)
            words = attend(
                query.transpose(1, 2).reshape(batch * hypotheses, self.config.heads, 1, -1),
                longer[f"{n}.key"].flatten(0, 1),
                longer[f"{n}.value"].flatten(0, 1),
            ).view(batch, hypotheses, self.config.heads, -1)
            image_key = memory[f"{n}.image_key"]
            x, query = layer.look(layer.hear(x, words.transpose(1, 2)), image_key, memory[f"{n}.image_value"])
            x = layer.feed(x)
        # The last layer's attention once more, unfused. [B, heads, K, M] -> [B, K, M]
        alpha = (query @ image_key.mT / math.sqrt(query.shape[-1])).float().softmax(-1).mean(1)
        # A resized cell is the mean of cells of the grid, which share its weight.
        return self.logits(x), (alpha @ memory["cells"]).float() if "cells" in memory else alpha, longer

    def forced(self, memory: Arrays, tokens: Tensor, packing: Packing) -> Forced:
        """See `Decoder`; fused attention returns no weights."""
        steps, visible = packing.steps.to(tokens.device), own_past(packing).to(tokens.device)
        x = self.embedded(packing.pack(tokens), steps, len(packing.running) - 1)
        for n, layer in enumerate(self.decoder_layers):
            query, key, value = layer.ask(x)  # [B, heads, P, d]
            query, key = self.turned(query, key, steps)
            words = attend(query, key, value, attn_mask=visible)
            x, _ = layer.look(layer.hear(x, words), memory[f"{n}.image_key"], memory[f"{n}.image_value"])
            x = layer.feed(x)
        return Forced(self.logits(x))

    def logits(self, x: Tensor) -> Tensor:
        """`[B, R, E]` -> `[B, R, V]`."""
        return F.linear(self.decoder_norm(x), self.embedding.weight, self.output_bias)


def own_past(packing: Packing) -> Tensor:
    """Bool `[P, P]`: which positions each may look back at, those of its own caption up to its own step."""
    captions, steps = packing.captions, packing.steps
    return (captions[:, None] == captions) & (steps[:, None] >= steps)


def activation(config: LayerConfig) -> nn.Module:
    """The feed-forward networks' non-linearity."""
    if config.activation == "relu":
        return nn.ReLU()
    return nn.GELU("tanh" if config.activation == "gelu_tanh" else "none")


def in_heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """`[B, R, parts * E]` -> `parts` arrays `[B, heads, R, d]` (section 3.2.2)."""
    of_parts: tuple[Tensor, ...] = x.unflatten(2, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return of_parts


def merged(x: Tensor) -> Tensor:
    """`[B, heads, R, d]` -> `[B, R, E]`."""
    return x.transpose(1, 2).flatten(2)


def angles_at(steps: Tensor, width: int) -> Tensor:
    """Angles `[R, width / 2]` that grow more slowly from pair to pair (section 3.5; rotary positions use the same)."""
    frequencies = torch.exp(torch.arange(0, width, 2, device=steps.device) * (-math.log(10000) / width))
    return steps[:, None] * frequencies


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Each pair of `[B, heads, R, d]` rotated by its angle, `[R, d / 2]`."""
    cos, sin = angles.cos(), angles.sin()
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2).type_as(x)
