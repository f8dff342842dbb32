"""Adaptive attention: Knowing When to Look (Lu et al. 2017, arXiv:1612.01887v2).

Some words follow from the words before them and not from the image. The LSTM reads the whole image with every word and
attends after its step; besides the N cells it may attend to its own memory, the visual sentinel. Equation numbers below
are the paper's. One difference: there is one bias for each gate.

The attention that is returned is equation 7's alpha over the cells, which sums to 1, however much attention
went to the sentinel.

`attention_decoder.py` has what the recurrent attention decoders share, `decoder.py` the letters of the shapes.
"""

from typing import Literal

from torch import Tensor, cat, nn, relu

from showtell.models.attention_decoder import AttentionDecoder, AttentionDecoderConfig, Recurrence
from showtell.models.decoder import Arrays
from showtell.models.recurrence import RecurrentLinear, additive_scores, lstm, reset_lstm


class AdaptiveAttentionConfig(AttentionDecoderConfig):
    name: Literal["adaptive_attention"] = "adaptive_attention"


class AdaptiveAttention(AttentionDecoder):
    """Memory is {cells `[B, N, H]`, keys `[B, N, A]`, image_gates `[B, 1, 5H]`}, state is {h, c `[B, K, H]`}."""

    config: AdaptiveAttentionConfig

    def __init__(self, config: AdaptiveAttentionConfig, feature_width: int, vocabulary: int) -> None:
        words, hidden = config.embedding_width, config.hidden_width
        super().__init__(
            config,
            feature_width,
            vocabulary,
            cell_width=hidden,
            gates_width=5 * hidden,  # the LSTM's four and the sentinel's
            output_width=hidden,
        )
        self.cell = nn.Linear(feature_width, hidden)
        self.image = nn.Linear(feature_width, words)
        self.gates_from_image = nn.Linear(words, 5 * hidden, bias=False)
        self.gates_from_hidden = nn.Linear(hidden, 5 * hidden, bias=False)
        self.query = nn.Linear(hidden, config.attention_width, bias=False)
        self.sentinel_key = nn.Linear(hidden, config.attention_width)
        reset_lstm(self.gates_from_hidden.weight, self.gates_from_word.bias)

    def memory(self, grid: Tensor) -> Arrays:
        """The cells (equation 15), and the part of all gates that the whole image contributes (equations 14 and 16)."""
        grid = self.feature_dropout(self.normalise(grid))
        cells = relu(self.cell(grid))
        image = relu(self.image(grid.mean(1, keepdim=True)))
        return {"cells": cells, "keys": self.key(cells), "image_gates": self.gates_from_image(image)}

    def recurrent_step(self, memory: Arrays, state: Arrays, word_gates: Tensor, linear: RecurrentLinear) -> Recurrence:
        """Equations 6 to 12."""
        hidden = self.config.hidden_width
        gates = word_gates + memory["image_gates"] + linear(self.gates_from_hidden, state["h"])
        gates, sentinel_gate = gates.split((4 * hidden, hidden), dim=-1)
        h, c = lstm(gates, state["c"])
        sentinel = sentinel_gate.sigmoid() * c.tanh().type_as(h)  # equations 9 and 10, s
        query = linear(self.query, h)
        scores = additive_scores(memory["keys"], query, self.score.weight[0])  # equation 6, z; [B, K, N]
        sentinel_score = (linear(self.sentinel_key, sentinel) + query).tanh() @ self.score.weight[0]  # [B, K]
        shares = cat([scores, sentinel_score[..., None]], -1).softmax(-1)  # equation 12, alpha-hat; [B, K, N + 1]
        of_cells, of_sentinel = shares[..., :-1], shares[..., -1:]
        context = of_cells @ memory["cells"] + of_sentinel * sentinel  # equations 8 and 11, c-hat
        return Recurrence({"h": h, "c": c}, scores.softmax(-1), {"context_plus_h": context + h})

    def logits(self, memory: Arrays, embedded: Tensor, found: Recurrence) -> Tensor:
        """Equation 13."""
        logits: Tensor = self.output(self.dropout(found.outputs["context_plus_h"]))
        return logits
