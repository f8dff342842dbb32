"""What the recurrent attention decoders share: words are embedded, an image's cells are scored, steps are repeated.

A decoder of this family says in its own file what one step does (`look_and_think`) and what the next word follows
from (`logits`): Show, Attend and Tell, Att2in, adaptive attention, and Up-Down. Here is what they have in common:

- The image is encoded once for its K captions: keys `[B, N, A]` are projected once and broadcast against
  the K hidden states, and no array is ever repeated for each caption.
- The word's part of the LSTM gates is computed for all steps in one product, and so are the logits after all of them;
  `packing.py` has the order of positions. What depends on the step before goes through `RecurrentLinear`.

B images, K captions of each, T steps, P packed positions, N cells; widths: D features, A attention, H hidden, E words;
V words in the vocabulary.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, cat, nn

from showtell.models.dropout import Dropout
from showtell.models.packing import Forced, Packing
from showtell.models.recurrence import RecurrentLinear

Arrays = dict[str, Tensor]


class AttentionDecoderConfig(BaseModel):
    """Sizes and regularisation that every attention decoder has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding_width: int = Field(512, gt=0, description="E, width of a word's embedding")
    hidden_width: int = Field(512, gt=0, description="H, width of an LSTM's hidden state")
    attention_width: int = Field(512, gt=0, description="A, width in which keys and queries are added")
    dropout: float = Field(0.5, ge=0, lt=1, description="share of embedding and output units dropped in training")
    feature_dropout: float = Field(0.0, ge=0, lt=1, description="share of the grid's features dropped in training")
    normalise: bool = Field(
        False, description="layer-normalise each cell's features; for encoders whose scale is far from 1"
    )


class Look(NamedTuple):
    """What one step makes of a state, or many steps put one behind the other on the packed axis."""

    state: Arrays
    """After the (last) step, `[B, K, ...]`."""
    attention: Tensor
    """`[B, K, N]`, sums to 1 over N."""
    outputs: tuple[Tensor, ...]
    """What else the logits need, each `[B, K, ...]`."""


class AttentionDecoder(nn.Module, ABC):
    """The common part; a decoder adds `memory`, `products`, `look_and_think`, `logits`.

    Args:
        config: sizes.
        feature_width: D.
        vocabulary: V.
        cell_width: width of what is looked at, D or what `memory` makes of it.
        gates_width: width of the gates that a word has a part in.
        output_width: width of what the vocabulary is scored from.
    """

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
        self.hidden_width = config.hidden_width
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

    # ---------------------------------------------------------------- what a decoder says of itself

    @abstractmethod
    def memory(self, grid: Tensor) -> Arrays:
        """What every step asks of the image, from its grid `[B, N, D]`: computed once for all captions and steps."""

    def start(self, memory: Arrays) -> Arrays:
        """The state before the first word: h and c, zeros `[B, 1, H]`; some papers have another."""
        zeros = memory["keys"].new_zeros(memory["keys"].shape[0], 1, self.hidden_width)
        return {"h": zeros, "c": zeros.float()}

    @abstractmethod
    def products(self) -> tuple[RecurrentLinear, ...]:
        """The matrices that every step multiplies with, for one forward pass."""

    @abstractmethod
    def look_and_think(
        self, memory: Arrays, state: Arrays, word_gates: Tensor, products: tuple[RecurrentLinear, ...]
    ) -> Look:
        """One look at the image and one step of the LSTM.

        Args:
            memory: the image.
            state: of the step before, `[B, K, ...]`.
            word_gates: the last word's part of the gates, `[B, K, gates_width]`.
            products: what `products` returned.
        """

    @abstractmethod
    def logits(self, memory: Arrays, embedded: Tensor, look: Look) -> Tensor:
        """The next word's logits `[..., V]`, for any number of positions at once; `embedded` `[..., E]` is the last."""

    # ---------------------------------------------------------------- one step

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
        look = self.look_and_think(memory, state, self.gates_from_word(embedded), self.products())
        return self.logits(memory, embedded, look), look.attention, look.state

    # ---------------------------------------------------------------- all steps: teacher forcing

    def forced(self, memory: Arrays, tokens: Tensor, packing: Packing) -> Forced:
        """Logits after every word of K captions an image, the words given.

        Args:
            memory: the image.
            tokens: `<start>` and the words, int64 `[B, K, T]`, longest captions first.
            packing: the positions to compute.
        """
        embedded, look = self.looks(memory, tokens, packing)
        return Forced(self.logits(memory, embedded, look), look.attention)

    def looks(self, memory: Arrays, tokens: Tensor, packing: Packing) -> tuple[Tensor, Look]:
        """The words' embeddings `[B, P, E]`, and the looks of all steps, on the packed axis."""
        embedded: Tensor = self.dropout(self.embedding(packing.pack(tokens)))
        word_gates = self.gates_from_word(embedded).split(packing.running, dim=1)
        products, looks = self.products(), list[Look]()
        state = {name: value.expand(-1, packing.running[0], -1) for name, value in self.start(memory).items()}
        for running, gates in zip(packing.running, word_gates, strict=True):
            state = {name: value[:, :running] for name, value in state.items()}
            looks.append(self.look_and_think(memory, state, gates, products))
            state = looks[-1].state
        attention = cat([look.attention for look in looks], 1)
        outputs = tuple(cat(steps, 1) for steps in zip(*(look.outputs for look in looks), strict=True))
        return embedded, Look(state, attention, outputs)

    def forward(self, memory: Arrays, tokens: Tensor) -> Tensor:
        """Teacher-forced logits `[B, K, T, V]` for tokens `[B, K, T]`: `forced` without a packing to think of."""
        packing = Packing.full(*tokens.shape[1:])
        return packing.unpack(self.forced(memory, tokens, packing).logits)
