"""The text half of captioners that were trained elsewhere: BLIP, GIT, a ViT with GPT-2 or BERT, BLIP-2.

They are one decoder with options, with the layers of `transformer.py`. They differ in how words attend to the image:

    cross     (BLIP, vision-encoder-decoder) each layer has a second attention, to the image's cells
    prefix    (GIT, BLIP-2) the cells come before the words, and one attention covers both

Either way a layer's keys and values of the image are the same for all words and all K captions. They are computed once
per image and are its memory, `[B, heads, M, d]`; the words' keys and values are the state, `[B, K, heads, t, d]`.

`families.py` has the options and weights for each model of `transformers`. `decoder.py` one folder up has the letters;
here E is the width of a layer, M the cells that the words attend to, d = E / heads.
"""

import math
from typing import ClassVar, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from showtell.errors import UsageError
from showtell.models.decoder import Arrays, Decoder, Forced
from showtell.models.dropout import Dropout
from showtell.models.packing import Packing
from showtell.models.transformer import DecoderLayer, LayerConfig, attend, own_past


class PretrainedConfig(LayerConfig):
    """Sizes and options. Nobody writes them: they follow from the model that was loaded."""

    name: Literal["pretrained"] = "pretrained"
    layers: int = Field(12, gt=0, description="layers over the words")
    image: Literal["cross", "prefix"] = Field("cross", description="how words look at the image's cells")
    prefix_causal: bool = Field(False, description="cells of a prefix see only those before them")
    prefix_positions: int = Field(0, ge=0, description="how many cells of a prefix have learned positions")
    projection: Literal["none", "linear", "linear_norm"] = Field(
        "none", description="what brings the image's cells to the layers' width"
    )
    projection_epsilon: float = Field(1e-5, gt=0, description="of the projection's layer norm")
    max_positions: int = Field(512, gt=0, description="the most words that there are positions for")
    embedding_norm: bool = Field(False, description="a layer norm after words and positions are added")
    last_norm: bool = Field(False, description="a layer norm after the last layer")
    head: bool = Field(False, description="a layer of its own before the output, as BERT has it")
    tied: bool = Field(True, description="the output's weights are the embedding's")
    before_grid: int | None = Field(
        0, ge=0, description="cells before those of the grid (a class token); none: no cell is a place in the image"
    )

    @model_validator(mode="after")
    def _widths_fit(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class PretrainedDecoder(Decoder):
    """A causal Transformer over a vocabulary of pieces of words.

    Memory is, for each layer l, {l.image_key, l.image_value `[B, heads, M, d]`}; state is {l.key, l.value
    `[B, K, heads, t, d]`}. Attention is the last layer's to the grid's cells, the mean of its heads.
    """

    config: PretrainedConfig
    layered: ClassVar[bool] = True

    def __init__(self, config: PretrainedConfig, feature_width: int, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.projection = projection(config, feature_width)
        if config.prefix_positions:
            self.cell_positions = nn.Parameter(torch.zeros(config.prefix_positions, config.width))
        self.embedding = nn.Embedding(vocabulary, config.width)
        self.positions = nn.Embedding(config.max_positions, config.width)
        self.embedding_norm = self.norm(config.embedding_norm)
        image_width = feature_width if config.projection == "none" else config.width
        layers = nn.ModuleList(
            DecoderLayer(config, image_width if config.image == "cross" else None) for _ in range(config.layers)
        )
        self.layers = cast(list[DecoderLayer], layers)
        self.last_norm = self.norm(config.last_norm)
        if config.head:
            self.head = nn.Sequential(nn.Linear(config.width, config.width), nn.GELU(), self.norm(True))
        if not config.tied:
            self.output_weight = nn.Parameter(torch.empty(vocabulary, config.width))
        self.output_bias = nn.Parameter(torch.zeros(vocabulary))
        self.dropout = Dropout(config.dropout)
        self.reset_parameters()

    def norm(self, there: bool) -> nn.Module:
        """A layer norm, or nothing."""
        return nn.LayerNorm(self.config.width, self.config.norm_epsilon) if there else nn.Identity()

    def reset_parameters(self) -> None:
        """As BERT and GPT-2: normal, with standard deviation 0.02."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @property
    def max_words(self) -> int | None:
        """Learned positions limit the length."""
        return self.config.max_positions

    # ---------------------------------------------------------------- an image, once

    def memory(self, grid: Tensor) -> Arrays:
        """Each layer's keys and values of the image, from its cells `[B, N, D]`."""
        image = self.projection(grid)  # [B, M, E]
        memory = {}
        if self.config.image == "cross":
            for n, layer in enumerate(self.layers):
                memory[f"{n}.image_key"], memory[f"{n}.image_value"] = layer.remember(image)
            return memory
        if self.config.prefix_positions:
            image = image + self.cell_positions
        for n, layer in enumerate(self.layers):  # cells never attend to words, so their layers need no words
            query, key, value = layer.ask(image)
            memory[f"{n}.image_key"], memory[f"{n}.image_value"] = key, value
            seen = attend(query, key, value, is_causal=self.config.prefix_causal)
            image = layer.feed(layer.hear(image, seen))
        return memory

    def start(self, memory: Arrays) -> Arrays:
        """The state before the first word: no keys and no values, `[B, 1, heads, 0, d]`."""
        values = memory["0.image_value"]
        nothing = values.new_empty(values.shape[0], 1, self.config.heads, 0, values.shape[-1])
        return {f"{n}.{part}": nothing for n in range(self.config.layers) for part in ("key", "value")}

    # ---------------------------------------------------------------- words

    def embedded(self, tokens: Tensor, steps: Tensor, last: int) -> Tensor:
        """Words and their positions, `[B, R, E]`, from ids `[B, R]` at steps `[R]`, none of which is after `last`."""
        if last >= self.config.max_positions:
            raise UsageError(
                f"This model has positions for captions of at most {self.config.max_positions} words.",
                "Lower max_words.",
            )
        embedded: Tensor = self.dropout(self.embedding_norm(self.embedding(tokens) + self.positions(steps)))
        return embedded

    def step(self, memory: Arrays, state: Arrays, tokens: Tensor) -> tuple[Tensor, Tensor | None, Arrays]:
        so_far = state["0.key"].shape[3]  # t
        x, longer = self.embedded(tokens, torch.full((1,), so_far, device=tokens.device), so_far), {}
        for n, layer in enumerate(self.layers):
            query, key, value = (each.transpose(1, 2) for each in layer.ask(x))  # [B, K, heads, d]
            for part, added in (("key", key), ("value", value)):
                longer[f"{n}.{part}"] = torch.cat([state[f"{n}.{part}"], added[:, :, :, None]], 3)
            image = memory[f"{n}.image_key"], memory[f"{n}.image_value"]
            words = longer[f"{n}.key"], longer[f"{n}.value"]
            if self.config.image == "prefix":
                heard, alpha = attend_to_both(query, *image, *words)
                x = layer.hear(x, heard.transpose(1, 2))
            else:
                past_key, past_value = (each.flatten(0, 1) for each in words)
                heard = attend(query.flatten(0, 1)[:, :, None], past_key, past_value)
                x, asked = layer.look(layer.hear(x, heard.view_as(query).transpose(1, 2)), *image)
            x = layer.feed(x)
        if self.config.before_grid is None:
            return self.logits(x), None, longer
        if self.config.image == "cross":  # the last layer's attention once more, unfused
            alpha = (asked @ image[0].mT / math.sqrt(asked.shape[-1])).softmax(-1).transpose(1, 2)
        of_grid = alpha.float().mean(2)[:, :, self.config.before_grid :]  # [B, K, N]
        return self.logits(x), of_grid / of_grid.sum(-1, keepdim=True), longer

    def forced(self, memory: Arrays, tokens: Tensor, packing: Packing) -> Forced:
        """See `Decoder`; fused attention returns no weights."""
        steps, visible = packing.steps.to(tokens.device), own_past(packing).to(tokens.device)
        x = self.embedded(packing.pack(tokens), steps, len(packing.running) - 1)
        for n, layer in enumerate(self.layers):
            query, key, value = layer.ask(x)  # [B, heads, P, d]
            image_key, image_value = memory[f"{n}.image_key"], memory[f"{n}.image_value"]
            if self.config.image == "prefix":
                seen = torch.cat([visible.new_ones(len(visible), image_key.shape[2]), visible], 1)  # [P, M + P]
                heard = attend(query, torch.cat([image_key, key], 2), torch.cat([image_value, value], 2), seen)
                x = layer.hear(x, heard)
            else:
                x, _ = layer.look(layer.hear(x, attend(query, key, value, visible)), image_key, image_value)
            x = layer.feed(x)
        return Forced(self.logits(x))

    def logits(self, x: Tensor) -> Tensor:
        """`[B, R, E]` -> `[B, R, V]`."""
        x = self.last_norm(x)
        weight = self.embedding.weight if self.config.tied else self.output_weight
        return F.linear(self.head(x) if self.config.head else x, weight, self.output_bias)


def projection(config: PretrainedConfig, feature_width: int) -> nn.Module:
    """The projection of cells `[B, N, D]` to the layers' width."""
    if config.projection == "none":
        return nn.Identity()
    linear = nn.Linear(feature_width, config.width)
    if config.projection == "linear":
        return linear
    return nn.Sequential(linear, nn.LayerNorm(config.width, config.projection_epsilon))


def attend_to_both(
    query: Tensor, image_key: Tensor, image_value: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """One attention of K words to their shared image and to each one's own past, without joining the two.

    Args:
        query: `[B, K, heads, d]`.
        image_key: `[B, heads, M, d]`.
        image_value: the same.
        key: `[B, K, heads, t, d]`.
        value: the same.

    Returns:
        The attended values, `[B, K, heads, d]`, and the weights of the image's cells, `[B, K, heads, M]`.
    """
    query = query / math.sqrt(query.shape[-1])
    of_image = (query.transpose(1, 2) @ image_key.mT).transpose(1, 2)  # [B, K, heads, M]
    of_words = (query[:, :, :, None] @ key.mT)[:, :, :, 0]  # [B, K, heads, t]
    weights = torch.cat([of_image, of_words], 3).softmax(3)
    of_image, of_words = weights.split([of_image.shape[3], of_words.shape[3]], 3)
    from_image = (of_image.transpose(1, 2) @ image_value).transpose(1, 2)
    return from_image + (of_words[:, :, :, None] @ value)[:, :, :, 0], of_image
