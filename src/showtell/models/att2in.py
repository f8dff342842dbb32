"""Att2in: Self-Critical Sequence Training for Image Captioning (Rennie et al. 2017, arXiv:1612.00563v2), section 2.2.

The attention of Show, Attend and Tell, but the context vector enters only the LSTM's new content: the gates don't see
the image. The new content is the larger of two (maxout). Differences from the paper: the cells are projected to the
width H with a ReLU before attention, as in later public code, and there is one bias for each gate.

`attention_decoder.py` has what the recurrent attention decoders share, `decoder.py` the letters of the shapes.
"""

from typing import Literal

from torch import Tensor, nn, relu

from showtell.models.attention_decoder import AttentionDecoder, AttentionDecoderConfig, Recurrence
from showtell.models.decoder import Arrays
from showtell.models.recurrence import RecurrentLinear, additive_scores, reset_lstm


class Att2inConfig(AttentionDecoderConfig):
    name: Literal["att2in"] = "att2in"


class Att2in(AttentionDecoder):
    """Memory is {cells `[B, N, H]`, keys `[B, N, A]`}, state is {h, c `[B, K, H]`}."""

    config: Att2inConfig

    def __init__(self, config: Att2inConfig, feature_width: int, vocabulary: int) -> None:
        hidden = config.hidden_width
        super().__init__(
            config,
            feature_width,
            vocabulary,
            cell_width=hidden,
            gates_width=5 * hidden,  # input, forget, output, and two new contents
            output_width=hidden,
        )
        self.cell = nn.Linear(feature_width, hidden)
        self.sizes = (config.attention_width, 5 * hidden)
        self.from_hidden = nn.Linear(hidden, sum(self.sizes), bias=False)
        self.content_from_context = nn.Linear(hidden, 2 * hidden, bias=False)
        reset_lstm(self.from_hidden.weight.data[-5 * hidden :], self.gates_from_word.bias)

    def memory(self, grid: Tensor) -> Arrays:
        """The cells and their keys."""
        cells = relu(self.cell(self.feature_dropout(self.normalise(grid))))
        return {"cells": cells, "keys": self.key(cells)}

    def recurrent_step(self, memory: Arrays, state: Arrays, word_gates: Tensor, linear: RecurrentLinear) -> Recurrence:
        """Soft attention, and an LSTM in which only the new content g sees the image."""
        query, hidden_gates = linear(self.from_hidden, state["h"]).split(self.sizes, dim=-1)
        alpha = additive_scores(memory["keys"], query, self.score.weight[0]).softmax(-1)  # [B, K, N]
        context = alpha @ memory["cells"]  # I_t, [B, K, H]
        i, f, o, one, other = (word_gates + hidden_gates).chunk(5, dim=-1)
        one_from_image, other_from_image = linear(self.content_from_context, context).chunk(2, dim=-1)
        g = (one + one_from_image).maximum(other + other_from_image)  # phi, the maxout
        c = f.sigmoid() * state["c"] + i.sigmoid() * g
        h = o.sigmoid() * c.tanh().type_as(o)
        return Recurrence({"h": h, "c": c}, alpha, {"h": h})

    def logits(self, memory: Arrays, embedded: Tensor, found: Recurrence) -> Tensor:
        """From the hidden state alone: s_t = W_s h_t."""
        logits: Tensor = self.output(self.dropout(found.outputs["h"]))
        return logits
