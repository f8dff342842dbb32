"""What the recurrent attention decoders share: embedding words, scoring an image's cells, repeating steps.

The decoders of this family are Show, Attend and Tell, Att2in, adaptive attention, and Up-Down. Each defines one step of
its recurrence (`recurrent_step`) and how the next word is predicted (`logits`) in its own file. They share:

- Keys `[B, N, A]` are projected once for an image, and broadcast against the K hidden states.
- The words' part of the LSTM gates is computed for all steps in one product before them, and the logits in one product
  after them; `packing.py` defines the order of positions. What depends on the step before uses `RecurrentLinear`.

`decoder.py` has the letters of the shapes.
"""

from abc import abstractmethod
from typing import ClassVar, NamedTuple

from pydantic import Field
from torch import Tensor, cat, nn

from showtell.models.decoder import Arrays, Decoder, DecoderConfig, Forced
from showtell.models.dropout import Dropout
from showtell.models.packing import Packing
from showtell.models.recurrence import RecurrentLinear


class AttentionDecoderConfig(DecoderConfig):
    """Sizes and regularisation that every attention decoder has."""

    embedding_width: int = Field(512, gt=0, description="E, width of a word's embedding")
    hidden_width: int = Field(512, gt=0, description="H, width of an LSTM's hidden state")
    attention_width: int = Field(512, gt=0, description="A, width in which keys and queries are added")
    dropout: float = Field(
        0.5, ge=0, lt=1, description="share of embedding and output units that are dropped in training"
    )
    feature_dropout: float = Field(0.0, ge=0, lt=1, description="share of the grid's features dropped in training")
    normalise: bool = Field(
        False, description="layer-normalise each cell's features, for encoders whose features have a scale far from 1"
    )


class Recurrence(NamedTuple):
    """What one step of the recurrence computes, or many steps one after the other on the packed axis."""

    state: Arrays
    """After the (last) step, `[B, K, ...]`."""
    attention: Tensor
    """`[B, K, N]`, sums to 1 over N."""
    outputs: Arrays
    """What else the logits need, each `[B, K, ...]`."""


class AttentionDecoder(Decoder):
    """The common part; a decoder adds `memory`, `recurrent_step`, `logits`.

    Args:
        config: sizes.
        feature_width: D.
        vocabulary: V.
        cell_width: width of the cells that are attended to: D, or the width that `memory` gives them.
        gates_width: width of the gates to which a word contributes.
        output_width: width of the vector from which the logits are computed.
    """

    config: AttentionDecoderConfig
    attends_in_training: ClassVar[bool] = True

    def __init__(
        self,
        config: AttentionDecoderConfig,
        feature_width: int,
        vocabulary: int,
        *,
        cell_width: int,
        gates_width: int,
        output_width: int,
    ) -> None:
        super().__init__()
        self.config = config
        self.normalise = nn.LayerNorm(feature_width) if config.normalise else nn.Identity()
        self.feature_dropout = Dropout(config.feature_dropout)
        self.embedding = nn.Embedding(vocabulary, config.embedding_width)
        self.key = nn.Linear(cell_width, config.attention_width)
        self.score = nn.Linear(config.attention_width, 1, bias=False)
        self.gates_from_word = nn.Linear(config.embedding_width, gates_width)
        self.output = nn.Linear(output_width, vocabulary)
        self.dropout = Dropout(config.dropout)
        for weight in (self.embedding.weight, self.output.weight):
            nn.init.uniform_(weight, -0.1, 0.1)
        nn.init.zeros_(self.output.bias)

    # ---------------------------------------------------------------- what a decoder defines

    def start(self, memory: Arrays) -> Arrays:
        """The state before the first word: h and c, zeros `[B, 1, H]`; some papers differ."""
        zeros = memory["keys"].new_zeros(memory["keys"].shape[0], 1, self.config.hidden_width)
        return {"h": zeros, "c": zeros.float()}

    @abstractmethod
    def recurrent_step(self, memory: Arrays, state: Arrays, word_gates: Tensor, linear: RecurrentLinear) -> Recurrence:
        """Attention to the image and one step of the LSTM.

        Args:
            memory: the image.
            state: of the step before, `[B, K, ...]`.
            word_gates: the last word's part of the gates, `[B, K, gates_width]`.
            linear: applies layers: `linear(layer, x)` is `layer(x)`.
        """

    @abstractmethod
    def logits(self, memory: Arrays, embedded: Tensor, found: Recurrence) -> Tensor:
        """The next word's logits `[..., V]`, for any number of positions; `embedded` `[..., E]` is the last word."""

    # ---------------------------------------------------------------- one step, and all of them

    def step(self, memory: Arrays, state: Arrays, tokens: Tensor) -> tuple[Tensor, Tensor, Arrays]:
        embedded = self.dropout(self.embedding(tokens))
        found = self.recurrent_step(memory, state, self.gates_from_word(embedded), RecurrentLinear())
        return self.logits(memory, embedded, found), found.attention, found.state

    def forced(self, memory: Arrays, tokens: Tensor, packing: Packing) -> Forced:
        embedded, found = self.all_steps(memory, tokens, packing)
        return Forced(self.logits(memory, embedded, found), found.attention)

    def all_steps(self, memory: Arrays, tokens: Tensor, packing: Packing) -> tuple[Tensor, Recurrence]:
        """The words' embeddings `[B, P, E]`, and what each step of the recurrence computes, on the packed axis."""
        embedded: Tensor = self.dropout(self.embedding(packing.pack(tokens)))
        word_gates = self.gates_from_word(embedded).split(packing.running, dim=1)
        linear, steps = RecurrentLinear(), list[Recurrence]()
        state: Arrays = {name: value.expand(-1, packing.running[0], -1) for name, value in self.start(memory).items()}
        for running, gates in zip(packing.running, word_gates, strict=True):
            state = {name: value[:, :running] for name, value in state.items()}
            steps.append(self.recurrent_step(memory, state, gates, linear))
            state = steps[-1].state
        outputs = {name: cat([step.outputs[name] for step in steps], 1) for name in steps[0].outputs}
        return embedded, Recurrence(state, cat([step.attention for step in steps], 1), outputs)
