"""Show, Attend and Tell: Neural Image Caption Generation with Visual Attention (Xu et al. 2015, arXiv:1502.03044v3).

An LSTM writes the caption; before each word it attends to the encoder's grid, cells a_1 .. a_N. With the paper's
equation numbers, where E y is the last word's embedding and `*` is elementwise:

    i, f, o, g = sigm, sigm, sigm, tanh of T (E y, h, z)        (1)    T is one affine map
    c = f * c + i * g                                           (2)
    h = o * tanh(c)                                             (3)
    e_i = f_att(a_i, h) = w . tanh(U a_i + W h)                 (4)    h is of the step before
    alpha = softmax(e)                                          (5)
    z = phi(a, alpha)                                           (6)    soft: beta sum_i alpha_i a_i   (13 and 4.2.1)
                                                                       hard: one cell, drawn by alpha (8 and 9)
    p(y) ~ exp(L_o (E y + L_h h + L_z z))                       (7)

`recurrent_step` computes 4, 5, 6, 1, 2, 3, in this order, and `logits` 7. Differences from the paper:

- Equation 7 has dropout before the vocabulary.
- Hard attention has the gate beta, too. A choice is rewarded by the words from its own on, since it can't change
  earlier ones, and the baseline is the moving average of a word's log-probability: see `training/stages/losses.py`.

`attention_decoder.py` has what the recurrent attention decoders share, `decoder.py` the letters of the shapes.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from showtell.models.attention_decoder import AttentionDecoder, AttentionDecoderConfig, Recurrence
from showtell.models.decoder import Arrays, Choices, Forced
from showtell.models.packing import Packing
from showtell.models.recurrence import RecurrentLinear, additive_scores, lstm, reset_lstm


class ShowAttendAndTellConfig(AttentionDecoderConfig):
    """The decoder's sizes and the paper's options."""

    name: Literal["show_attend_and_tell"] = "show_attend_and_tell"
    initial_state: Literal["mean", "zeros"] = Field(
        "mean", description="the first state: from the mean feature, or zeros"
    )
    gate: bool = Field(True, description="the scalar beta on the context vector (section 4.2.1)")
    output: Literal["deep", "hidden"] = Field("deep", description="equation 7, or the hidden state alone")
    attention: Literal["soft", "hard"] = Field("soft", description="the cells' weighted mean, or one cell a word")
    expected: float = Field(
        0.5, ge=0, le=1, description="hard attention: share of the training images that use soft attention"
    )
    choice: Literal["likeliest", "drawn"] = Field(
        "likeliest", description="hard attention: how a cell is chosen for captions; drawn cells differ from run to run"
    )


class ShowAttendAndTell(AttentionDecoder):
    """Memory is {grid `[B, N, D]`, keys `[B, N, A]`}, state is {h, c `[B, K, H]`}."""

    config: ShowAttendAndTellConfig
    baseline: Tensor
    """The baseline of REINFORCE's rewards: the moving average of a word's log-probability."""

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
        if config.initial_state == "mean":
            self.initial_h = nn.Linear(features, hidden)
            self.initial_c = nn.Linear(features, hidden)
        # One product gives all that h decides in a step: W h of equation 4, the gate beta, its part of T in equation 1.
        self.sizes = (config.attention_width, 1 if config.gate else 0, 4 * hidden)
        self.from_hidden = nn.Linear(hidden, sum(self.sizes), bias=False)
        self.beta_bias = nn.Parameter(torch.zeros(self.sizes[1]))
        self.gates_from_context = nn.Linear(features, 4 * hidden, bias=False)
        if config.output == "deep":
            self.output_h = nn.Linear(hidden, words)
            self.output_z = nn.Linear(features, words, bias=False)
        if config.attention == "hard":
            self.register_buffer("baseline", torch.tensor(-math.log(vocabulary)))  # a uniform guess
        reset_lstm(self.from_hidden.weight.data[-4 * hidden :], self.gates_from_word.bias)

    def memory(self, grid: Tensor) -> Arrays:
        """The cells and their keys; with hard attention in training also which images use soft attention."""
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

    def recurrent_step(self, memory: Arrays, state: Arrays, word_gates: Tensor, linear: RecurrentLinear) -> Recurrence:
        """Equations 1 to 6."""
        query, beta, hidden_gates = linear(self.from_hidden, state["h"]).split(self.sizes, dim=-1)
        e = additive_scores(memory["keys"], query, self.score.weight[0])  # (4), [B, K, N]
        alpha = e.softmax(-1)  # (5)
        hard = self.config.attention == "hard"
        attention = self.chosen(alpha, memory) if hard else alpha
        beta = torch.sigmoid(beta + self.beta_bias) if self.config.gate else beta.new_ones(*alpha.shape[:2], 1)
        z = beta * (attention @ memory["grid"])  # (6), [B, K, D]
        gates = word_gates + hidden_gates + linear(self.gates_from_context, z)  # (1)'s T, in three parts
        h, c = lstm(gates, state["c"])  # (1) to (3)
        return Recurrence({"h": h, "c": c}, attention, {"h": h, "beta": beta, **({"alpha": alpha} if hard else {})})

    def chosen(self, alpha: Tensor, memory: Arrays) -> Tensor:
        """Hard attention's s of equations 8 and 9: alpha `[B, K, N]` -> one cell each, as ones and zeros."""
        draw = self.training or self.config.choice == "drawn"
        # The smallest of exponential waiting times draws a cell by its probability (equation 12).
        cell = (alpha / torch.empty_like(alpha).exponential_() if draw else alpha).argmax(-1, keepdim=True)
        one_hot = torch.zeros_like(alpha).scatter_(-1, cell, 1.0)
        return torch.where(memory["expected"], alpha, one_hot) if "expected" in memory else one_hot

    def logits(self, memory: Arrays, embedded: Tensor, found: Recurrence) -> Tensor:
        """Equation 7, for any number of positions at once; z is computed again, as keeping it takes more memory."""
        hidden = found.outputs["h"]
        if self.config.output == "deep":
            z = found.outputs["beta"] * (found.attention @ memory["grid"])
            hidden = embedded + self.output_h(hidden) + self.output_z(z)
        logits: Tensor = self.output(self.dropout(hidden))
        return logits

    def forced(self, memory: Arrays, tokens: Tensor, packing: Packing) -> Forced:
        """See `Decoder`; hard attention adds its choices."""
        embedded, found = self.all_steps(memory, tokens, packing)
        logits = self.logits(memory, embedded, found)
        if self.config.attention == "soft":
            return Forced(logits, found.attention)
        alpha = found.outputs["alpha"]
        log_alpha = alpha.clamp_min(torch.finfo(alpha.dtype).tiny).log()
        choices = Choices(
            log_probs=(found.attention.detach() * log_alpha).sum(-1),
            drawn=~memory["expected"][..., 0]
            if "expected" in memory
            else torch.ones_like(alpha[:, :1, 0], dtype=torch.bool),
            entropy=-(alpha * log_alpha).sum(-1),
            baseline=self.baseline,
        )
        return Forced(logits, found.attention, choices)


def doubly_stochastic_penalty(attention: Tensor, packing: Packing) -> Tensor:
    """Equation 14's second term: how far each cell's attention, summed over a caption's steps, is from 1.

    Args:
        attention: alpha `[B, P, N]`, zero where a shorter caption has ended.
        packing: the positions P.

    Returns:
        The sum over the N cells for each caption, `[B, K]`.
    """
    seen = attention.new_zeros(len(attention), packing.running[0], attention.shape[-1])
    seen.index_add_(1, packing.captions.to(attention.device), attention)  # [B, K, N]
    return (1 - seen).square().sum(-1)
