"""Up-Down: Bottom-Up and Top-Down Attention for Image Captioning (Anderson et al. 2018, arXiv:1707.07998v3).

Section 3.2. Two LSTMs: the first reads the word, the whole image and the second one's state, and attends; the second
reads what was attended to and predicts the next word. Equation numbers below are the paper's. Differences from it: the
cells of a grid replace detected regions and are projected to the width H with a ReLU, as in later public code, and
there is one bias for each gate.

`attention_decoder.py` has what the recurrent attention decoders share, `decoder.py` the letters of the shapes.
"""

from typing import Literal

from torch import Tensor, cat, nn, relu

from showtell.models.attention_decoder import AttentionDecoder, AttentionDecoderConfig, Recurrence
from showtell.models.decoder import Arrays
from showtell.models.recurrence import RecurrentLinear, additive_scores, lstm, reset_lstm


class UpDownConfig(AttentionDecoderConfig):
    name: Literal["up_down"] = "up_down"


class UpDown(AttentionDecoder):
    """Memory is {cells `[B, N, H]`, keys `[B, N, A]`, image_gates `[B, 1, 4H]`}; state is {h1, c1, h2, c2 `[B, K, H]`}:

    1 is the attention LSTM and 2 the language LSTM.
    """

    config: UpDownConfig

    def __init__(self, config: UpDownConfig, feature_width: int, vocabulary: int) -> None:
        hidden = config.hidden_width
        super().__init__(
            config,
            feature_width,
            vocabulary,
            cell_width=hidden,
            gates_width=4 * hidden,
            output_width=hidden,
        )
        self.cell = nn.Linear(feature_width, hidden)
        # The attention LSTM: the word's part of its gates is the common gates_from_word.
        self.gates_from_image = nn.Linear(hidden, 4 * hidden, bias=False)
        self.gates_from_hidden = nn.Linear(2 * hidden, 4 * hidden, bias=False)
        self.query = nn.Linear(hidden, config.attention_width, bias=False)
        # The language LSTM.
        self.gates_from_seen = nn.Linear(3 * hidden, 4 * hidden)
        reset_lstm(self.gates_from_hidden.weight.data[:, :hidden], self.gates_from_word.bias)
        reset_lstm(self.gates_from_seen.weight.data[:, 2 * hidden :], self.gates_from_seen.bias)

    def memory(self, grid: Tensor) -> Arrays:
        """The cells, and their mean's part of the attention LSTM's gates."""
        cells = relu(self.cell(self.feature_dropout(self.normalise(grid))))
        image_gates = self.gates_from_image(cells.mean(1, keepdim=True))
        return {"cells": cells, "keys": self.key(cells), "image_gates": image_gates}

    def start(self, memory: Arrays) -> Arrays:
        """Both LSTMs before the first word: zeros, `[B, 1, H]`."""
        zeros = memory["cells"].new_zeros(memory["cells"].shape[0], 1, self.config.hidden_width)
        return {"h1": zeros, "c1": zeros.float(), "h2": zeros, "c2": zeros.float()}

    def recurrent_step(self, memory: Arrays, state: Arrays, word_gates: Tensor, linear: RecurrentLinear) -> Recurrence:
        """Equations 1 to 6."""
        h1, h2 = state["h1"], state["h2"]
        gates = word_gates + memory["image_gates"] + linear(self.gates_from_hidden, cat([h1, h2], -1))  # of equation 2
        h1, c1 = lstm(gates, state["c1"])  # equation 1, the attention LSTM
        scores = additive_scores(memory["keys"], linear(self.query, h1), self.score.weight[0])  # equation 3, [B, K, N]
        alpha = scores.softmax(-1)  # equation 4
        context = alpha @ memory["cells"]  # equation 5, [B, K, H]
        seen = cat([context, h1, h2], -1)  # equation 6, and the state
        h2, c2 = lstm(linear(self.gates_from_seen, seen), state["c2"])  # equation 1, the language LSTM
        return Recurrence({"h1": h1, "c1": c1, "h2": h2, "c2": c2}, alpha, {"h2": h2})

    def logits(self, memory: Arrays, embedded: Tensor, found: Recurrence) -> Tensor:
        """Equation 7."""
        logits: Tensor = self.output(self.dropout(found.outputs["h2"]))
        return logits
