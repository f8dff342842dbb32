"""Show, Attend and Tell: Neural Image Caption Generation with Visual Attention (Xu et al. 2015, arXiv:1502.03044v3).

An LSTM writes the caption; before each word it looks at the encoder's grid of N cells and takes their weighted mean.
Equation numbers below are the paper's. What differs from it:

- One LSTM bias instead of two, and the deep output of equation 7 has dropout before the vocabulary.
- The image is encoded once for its K captions: keys `[B, N, A]` are projected once and broadcast against
  the K hidden states, and no array is ever repeated for each caption.
- The word's half of the LSTM gates is computed for all steps in one product; `packing.py` has the order of positions.

B images, K captions of each, T steps, P packed positions, N cells; widths: D features, A attention, H hidden, E words;
V words in the vocabulary.
"""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from showtell.models.packing import Forced, Packing
from showtell.models.recurrence import RecurrentLinear, additive_scores

Arrays = dict[str, Tensor]


class ShowAttendAndTellConfig(BaseModel):
    """The decoder's sizes and the paper's options."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["show_attend_and_tell"] = "show_attend_and_tell"
    embedding_width: int = Field(512, gt=0, description="E, width of a word's embedding")
    hidden_width: int = Field(512, gt=0, description="H, width of the LSTM's hidden state")
    attention_width: int = Field(512, gt=0, description="A, width in which keys and queries are added")
    dropout: float = Field(0.5, ge=0, lt=1, description="share of embedding and output units dropped in training")
    feature_dropout: float = Field(0.0, ge=0, lt=1, description="share of the grid's features dropped in training")
    normalise: bool = Field(
        False, description="layer-normalise each cell's features; for encoders whose scale is far from 1"
    )
    initial_state: Literal["mean", "zeros"] = Field("mean", description="h0 and c0: from the mean feature, or zeros")
    gate: bool = Field(True, description="the scalar beta on the context vector (section 4.2.1)")
    output: Literal["deep", "hidden"] = Field("deep", description="equation 7, or the hidden state alone")


class ShowAttendAndTell(nn.Module):
    """The attention decoder. Memory is {grid `[B, N, D]`, keys `[B, N, A]`}, state is {h, c `[B, K, H]`}."""

    def __init__(self, config: ShowAttendAndTellConfig, feature_width: int, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        features, words, hidden = feature_width, config.embedding_width, config.hidden_width

        self.normalise = nn.LayerNorm(features) if config.normalise else nn.Identity()
        self.embedding = nn.Embedding(vocabulary, words)
        self.initial_h = nn.Linear(features, hidden)
        self.initial_c = nn.Linear(features, hidden)
        self.key = nn.Linear(features, config.attention_width)
        # One product gives what h decides at a step: the query of the attention, the gate beta, its half of the LSTM.
        self.sizes = (config.attention_width, 1 if config.gate else 0, 4 * hidden)
        self.from_hidden = nn.Linear(hidden, sum(self.sizes), bias=False)
        self.beta_bias = nn.Parameter(torch.zeros(self.sizes[1]))
        self.score = nn.Linear(config.attention_width, 1, bias=False)
        self.gates_from_word = nn.Linear(words, 4 * hidden)
        self.gates_from_context = nn.Linear(features, 4 * hidden, bias=False)
        if config.output == "deep":
            self.output_h = nn.Linear(hidden, words)
            self.output_z = nn.Linear(features, words, bias=False)
        self.output = nn.Linear(words if config.output == "deep" else hidden, vocabulary)
        self.dropout = nn.Dropout(config.dropout)
        self.feature_dropout = nn.Dropout(config.feature_dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small uniform words, orthogonal recurrence, and a forget gate that starts open."""
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        hidden = self.config.hidden_width
        for gate in self.from_hidden.weight.data[-4 * hidden :].split(hidden):
            nn.init.orthogonal_(gate)
        nn.init.zeros_(self.gates_from_word.bias)
        nn.init.ones_(self.gates_from_word.bias.data[hidden : 2 * hidden])
        nn.init.uniform_(self.output.weight, -0.1, 0.1)
        nn.init.zeros_(self.output.bias)

    # ---------------------------------------------------------------- an image, once

    def memory(self, grid: Tensor) -> Arrays:
        """What every step asks of the image, from its grid `[B, N, D]`: computed once for all captions and steps."""
        grid = self.feature_dropout(self.normalise(grid))
        return {"grid": grid, "keys": self.key(grid)}

    def start(self, memory: Arrays) -> Arrays:
        """The state before the first word, h and c `[B, 1, H]` (section 3.1.2)."""
        mean = memory["grid"].mean(1, keepdim=True)  # [B, 1, D]
        if self.config.initial_state == "zeros":
            zeros = mean.new_zeros(len(mean), 1, self.config.hidden_width)
            return {"h": zeros, "c": zeros}
        return {"h": torch.tanh(self.initial_h(mean)), "c": torch.tanh(self.initial_c(mean))}

    # ---------------------------------------------------------------- one step

    def look_and_think(
        self,
        memory: Arrays,
        state: Arrays,
        word_gates: Tensor,
        from_hidden: RecurrentLinear,
        from_context: RecurrentLinear,
    ) -> tuple[Arrays, Tensor, Tensor]:
        """Equations 1 to 6 and the gate beta: one look at the image and one step of the LSTM.

        Args:
            memory: the image.
            state: h and c `[B, K, H]` of the step before.
            word_gates: the previous word's half of the gates, `[B, K, 4H]`.
            from_hidden: `self.from_hidden` as a product that is repeated at each step.
            from_context: `self.gates_from_context`, likewise.

        Returns:
            The new state, alpha `[B, K, N]`, and the share beta of the context that was let in, `[B, K, 1]`.
        """
        query, beta, hidden_gates = from_hidden(state["h"]).split(self.sizes, dim=-1)
        scores = additive_scores(memory["keys"], query, self.score.weight[0])  # equation 4, [B, K, N]
        alpha = scores.softmax(-1)  # equation 5
        context = alpha @ memory["grid"]  # equations 6 and 13, [B, K, D]
        beta = torch.sigmoid(beta + self.beta_bias) if self.config.gate else beta.new_ones(*alpha.shape[:2], 1)
        gates = word_gates + hidden_gates + from_context(beta * context)
        i, f, o, g = gates.chunk(4, dim=-1)  # equation 1
        c = f.sigmoid() * state["c"] + i.sigmoid() * g.tanh()  # equation 2
        h = o.sigmoid() * c.tanh()  # equation 3
        return {"h": h, "c": c}, alpha, beta

    def logits(self, embedded: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """Equation 7, for any number of positions at once: `[..., E]`, `[..., H]`, `[..., D]` -> `[..., V]`."""
        if self.config.output == "deep":
            hidden = embedded + self.output_h(hidden) + self.output_z(context)
        logits: Tensor = self.output(self.dropout(hidden))
        return logits

    def step(self, memory: Arrays, state: Arrays, tokens: Tensor) -> tuple[Tensor, Tensor, Arrays]:
        """One word more for K hypotheses of each image.

        Args:
            memory: the image.
            state: `[B, K, ...]`, one row a hypothesis.
            tokens: the last word of each, int64 `[B, K]`.

        Returns:
            Logits of the next word `[B, K, V]`, attention `[B, K, N]`, and the state after the word.
        """
        embedded = self.dropout(self.embedding(tokens))
        state, alpha, beta = self.look_and_think(
            memory,
            state,
            self.gates_from_word(embedded),
            RecurrentLinear(self.from_hidden.weight),
            RecurrentLinear(self.gates_from_context.weight),
        )
        return self.logits(embedded, state["h"], beta * (alpha @ memory["grid"])), alpha, state

    # ---------------------------------------------------------------- all steps: teacher forcing

    def forced(self, memory: Arrays, tokens: Tensor, packing: Packing) -> Forced:
        """Logits after every word of K captions an image, the words given.

        Args:
            memory: the image.
            tokens: `<start>` and the words, int64 `[B, K, T]`, longest captions first.
            packing: the positions to compute.
        """
        embedded = self.dropout(self.embedding(packing.pack(tokens)))  # [B, P, E]
        word_gates = self.gates_from_word(embedded).split(packing.running, dim=1)
        from_hidden = RecurrentLinear(self.from_hidden.weight)
        from_context = RecurrentLinear(self.gates_from_context.weight)
        state = {name: value.expand(-1, packing.running[0], -1) for name, value in self.start(memory).items()}
        hidden, alphas, betas = [], [], []
        for running, gates in zip(packing.running, word_gates, strict=True):
            state = {name: value[:, :running] for name, value in state.items()}
            state, alpha, beta = self.look_and_think(memory, state, gates, from_hidden, from_context)
            hidden.append(state["h"])
            alphas.append(alpha)
            betas.append(beta)
        attention = torch.cat(alphas, 1)  # [B, P, N]
        context = torch.cat(betas, 1) * (attention @ memory["grid"])
        return Forced(self.logits(embedded, torch.cat(hidden, 1), context), attention)

    def forward(self, memory: Arrays, tokens: Tensor) -> Tensor:
        """Teacher-forced logits `[B, K, T, V]` for tokens `[B, K, T]`: `forced` without a packing to think of."""
        packing = Packing.full(*tokens.shape[1:])
        return packing.unpack(self.forced(memory, tokens, packing).logits)


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
