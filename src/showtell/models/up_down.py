"""Up-Down: Bottom-Up and Top-Down Attention for Image Captioning (Anderson et al. 2018, arXiv:1707.07998v3).

Section 3.2. Two LSTMs: the first reads the word, the whole image and what the second thought, and looks; the second
reads what was seen and says the next word. Equation numbers below are the paper's. What differs from it: the cells of a
grid take the place of detected regions and are brought to the width H with a ReLU, as in the authors'
followers' code, and there is one bias for each gate.

`attention_decoder.py` has what the recurrent attention decoders share, and the letters of the shapes.
"""

from typing import Literal

from torch import Tensor, cat, nn, relu

from showtell.models.attention_decoder import Arrays, AttentionDecoder, AttentionDecoderConfig, Look
from showtell.models.recurrence import RecurrentLinear, additive_scores, lstm, reset_lstm


class UpDownConfig(AttentionDecoderConfig):
    """The decoder's sizes."""

    name: Literal["up_down"] = "up_down"


class UpDown(AttentionDecoder):
    """Memory is {cells `[B, N, H]`, keys `[B, N, A]`, image_gates `[B, 1, 4H]`}; state is {h1, c1, h2, c2 `[B, K, H]`}:

    1 is the attention LSTM and 2 the language LSTM.
    """

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
        self.config = config
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

    def products(self) -> tuple[RecurrentLinear, ...]:
        """From both hidden states; the query, from h1; and from what was seen, the language LSTM's gates."""
        linears = (self.gates_from_hidden, self.query, self.gates_from_seen)
        return tuple(RecurrentLinear(linear.weight) for linear in linears)

    def look_and_think(
        self, memory: Arrays, state: Arrays, word_gates: Tensor, products: tuple[RecurrentLinear, ...]
    ) -> Look:
        """Equations 1 to 6; the output is the language LSTM's h2."""
        from_hidden, query_of, from_seen = products
        gates = word_gates + memory["image_gates"] + from_hidden(cat([state["h1"], state["h2"]], -1))
        h1, c1 = lstm(gates, state["c1"])  # equation 2's input
        scores = additive_scores(memory["keys"], query_of(h1), self.score.weight[0])  # equation 3, [B, K, N]
        alpha = scores.softmax(-1)  # equation 4
        context = alpha @ memory["cells"]  # equation 5, [B, K, H]
        seen = cat([context, h1, state["h2"]], -1)  # equation 6, and the state
        h2, c2 = lstm(from_seen(seen) + self.gates_from_seen.bias, state["c2"])
        return Look({"h1": h1, "c1": c1, "h2": h2, "c2": c2}, alpha, (h2,))

    def logits(self, memory: Arrays, embedded: Tensor, look: Look) -> Tensor:
        """Equation 7."""
        (hidden,) = look.outputs
        logits: Tensor = self.output(self.dropout(hidden))
        return logits
