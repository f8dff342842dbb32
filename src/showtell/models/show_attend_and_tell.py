"""Show, Attend and Tell: Neural Image Caption Generation with Visual Attention (Xu et al. 2015, arXiv:1502.03044v3).

An LSTM writes the caption; before each word it looks at the encoder's grid of N cells: soft attention takes their
weighted mean (section 4.2), hard attention chooses one (section 4.1). Equation numbers below are the paper's. What
differs from it:

- One LSTM bias instead of two, and the deep output of equation 7 has dropout before the vocabulary.
- Hard attention rewards a choice by the words from its own on, which are all that it can change, and its baseline is
  the moving average of a word's log-probability: see `training/losses.py`.

`attention_decoder.py` has what the recurrent attention decoders share, and the letters of the shapes.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from showtell.models.attention_decoder import Arrays, AttentionDecoder, AttentionDecoderConfig, Look
from showtell.models.packing import Choices, Forced, Packing
from showtell.models.recurrence import RecurrentLinear, additive_scores, lstm, reset_lstm


class ShowAttendAndTellConfig(AttentionDecoderConfig):
    """The decoder's sizes and the paper's options."""

    name: Literal["show_attend_and_tell"] = "show_attend_and_tell"
    initial_state: Literal["mean", "zeros"] = Field("mean", description="h0 and c0: from the mean feature, or zeros")
    gate: bool = Field(True, description="the scalar beta on the context vector (section 4.2.1)")
    output: Literal["deep", "hidden"] = Field("deep", description="equation 7, or the hidden state alone")
    attention: Literal["soft", "hard"] = Field("soft", description="the cells' weighted mean, or one cell a word")
    expected: float = Field(
        0.5, ge=0, le=1, description="hard attention: share of the training images that are looked at softly"
    )
    choice: Literal["likeliest", "drawn"] = Field(
        "likeliest", description="hard attention's cell in captioning; drawn ones differ from run to run"
    )


class ShowAttendAndTell(AttentionDecoder):
    """Memory is {grid `[B, N, D]`, keys `[B, N, A]`}, state is {h, c `[B, K, H]`}."""

    def __init__(self, config: ShowAttendAndTellConfig, feature_width: int, vocabulary: int) -> None:
        features, words, hidden = feature_width, config.embedding_width, config.hidden_width
        super().__init__(
            config,
            feature_width,
            vocabulary,
            cell_width=features,
            gates_width=4 * hidden,
            output_width=words if config.output == "deep" else hidden,
        )
        self.config = config
        if config.initial_state == "mean":
            self.initial_h = nn.Linear(features, hidden)
            self.initial_c = nn.Linear(features, hidden)
        # One product gives what h decides at a step: the query of the attention, the gate beta, its part of the LSTM.
        self.sizes = (config.attention_width, 1 if config.gate else 0, 4 * hidden)
        self.from_hidden = nn.Linear(hidden, sum(self.sizes), bias=False)
        self.beta_bias = nn.Parameter(torch.zeros(self.sizes[1]))
        self.gates_from_context = nn.Linear(features, 4 * hidden, bias=False)
        if config.output == "deep":
            self.output_h = nn.Linear(hidden, words)
            self.output_z = nn.Linear(features, words, bias=False)
        if config.attention == "hard":
            # What REINFORCE compares rewards with: a word's log-probability, from that of a blind guess on.
            self.register_buffer("baseline", torch.tensor(-math.log(vocabulary)))
        reset_lstm(self.from_hidden.weight.data[-4 * hidden :], self.gates_from_word.bias)

    def memory(self, grid: Tensor) -> Arrays:
        """The cells and their keys; with hard attention in training also which images are looked at softly."""
        grid = self.feature_dropout(self.normalise(grid))
        memory = {"grid": grid, "keys": self.key(grid)}
        if self.config.attention == "hard" and self.training:
            memory["expected"] = torch.rand(len(grid), 1, 1, device=grid.device) < self.config.expected
        return memory

    def start(self, memory: Arrays) -> Arrays:
        """The state before the first word, h and c `[B, 1, H]` (section 3.1.2)."""
        if self.config.initial_state == "zeros":
            return super().start(memory)
        mean = memory["grid"].mean(1, keepdim=True)  # [B, 1, D]
        return {"h": torch.tanh(self.initial_h(mean)), "c": torch.tanh(self.initial_c(mean).float())}

    def products(self) -> tuple[RecurrentLinear, ...]:
        """From the hidden state, and from the context vector."""
        return RecurrentLinear(self.from_hidden.weight), RecurrentLinear(self.gates_from_context.weight)

    def look_and_think(
        self, memory: Arrays, state: Arrays, word_gates: Tensor, products: tuple[RecurrentLinear, ...]
    ) -> Look:
        """Equations 1 to 6 and the gate beta; the outputs are h, beta `[B, K, 1]` and, if it is hard, soft alpha."""
        from_hidden, from_context = products
        query, beta, hidden_gates = from_hidden(state["h"]).split(self.sizes, dim=-1)
        scores = additive_scores(memory["keys"], query, self.score.weight[0])  # equation 4, [B, K, N]
        alpha = scores.softmax(-1)  # equation 5
        attention = self.chosen(alpha, memory) if self.config.attention == "hard" else alpha
        context = attention @ memory["grid"]  # equations 6 and 13, or 9; [B, K, D]
        beta = torch.sigmoid(beta + self.beta_bias) if self.config.gate else beta.new_ones(*alpha.shape[:2], 1)
        gates = word_gates + hidden_gates + from_context(beta * context)
        h, c = lstm(gates, state["c"])  # equations 1 to 3
        return Look({"h": h, "c": c}, attention, (h, beta) if attention is alpha else (h, beta, alpha))

    def chosen(self, alpha: Tensor, memory: Arrays) -> Tensor:
        """Hard attention's s of equations 8 and 9: alpha `[B, K, N]` -> one cell each, as ones and zeros."""
        draw = self.training or self.config.choice == "drawn"
        # The smallest of exponential waiting times draws a cell by its probability (equation 12).
        cell = (alpha / torch.empty_like(alpha).exponential_() if draw else alpha).argmax(-1, keepdim=True)
        one_hot = torch.zeros_like(alpha).scatter_(-1, cell, 1.0)
        return torch.where(memory["expected"], alpha, one_hot) if "expected" in memory else one_hot

    def logits(self, memory: Arrays, embedded: Tensor, look: Look) -> Tensor:
        """Equation 7, for any number of positions at once."""
        hidden, beta, *_ = look.outputs
        if self.config.output == "deep":
            context = beta * (look.attention @ memory["grid"])
            hidden = embedded + self.output_h(hidden) + self.output_z(context)
        logits: Tensor = self.output(self.dropout(hidden))
        return logits

    def forced(self, memory: Arrays, tokens: Tensor, packing: Packing) -> Forced:
        """See `AttentionDecoder.forced`; hard attention adds its choices."""
        embedded, look = self.looks(memory, tokens, packing)
        logits = self.logits(memory, embedded, look)
        if self.config.attention == "soft":
            return Forced(logits, look.attention)
        alpha = look.outputs[2]
        log_alpha = alpha.clamp_min(torch.finfo(alpha.dtype).tiny).log()
        choices = Choices(
            log_probs=(look.attention.detach() * log_alpha).sum(-1),
            drawn=~memory["expected"][..., 0]
            if "expected" in memory
            else torch.ones_like(alpha[:, :1, 0], dtype=torch.bool),
            entropy=-(alpha * log_alpha).sum(-1),
        )
        return Forced(logits, look.attention, choices)


def doubly_stochastic_penalty(attention: Tensor, packing: Packing) -> Tensor:
    """Equation 14's second term: how far each cell's attention, summed over a caption's steps, is from 1.

    Args:
        attention: alpha `[B, P, N]`, zero where a shorter caption has ended.
        packing: where P comes from.

    Returns:
        The sum over the N cells for each caption, `[B, K]`.
    """
    seen = attention.new_zeros(len(attention), packing.running[0], attention.shape[-1])
    seen.index_add_(1, packing.captions.to(attention.device), attention)  # [B, K, N]
    return (1 - seen).square().sum(-1)
