"""Show and Tell: A Neural Image Caption Generator (Vinyals et al. 2015, arXiv:1411.4555v2).

The image is the first word: an LSTM reads its mean feature, projected to the width of a word's embedding, before
`<start>`, and never again. Differences from the paper:

- The image's embedding has batch norm and ReLU, and the LSTM may have several layers with dropout between them.
- The image is read once for its K captions, and captions that have ended are not computed: `packing.py` has the order
  of positions. A layer's gates from its input are one product for all steps. That is faster than
  `nn.LSTM` on a PackedSequence (0.23 s against 0.26 s per step of 20 images on one core), whose backward pass adds
  a full-sized weight gradient at each word; see `recurrence.py`.

`decoder.py` has the letters of the shapes; L is the number of layers.
"""

from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from showtell.models.decoder import Arrays, Decoder, DecoderConfig, Forced
from showtell.models.dropout import Dropout
from showtell.models.packing import Packing
from showtell.models.recurrence import RecurrentLinear, lstm, reset_lstm


class ShowAndTellConfig(DecoderConfig):
    name: Literal["show_and_tell"] = "show_and_tell"
    embedding_width: int = Field(300, gt=0, description="E, width of a word's and of the image's embedding")
    hidden_width: int = Field(512, gt=0, description="H, width of each LSTM layer's hidden state")
    layers: int = Field(1, gt=0, description="L, how many LSTM layers are stacked")
    dropout: float = Field(0.5, ge=0, lt=1, description="share of each layer's input and output dropped in training")


class LSTMLayer(nn.Module):
    """One layer of the LSTM (equations 4 to 8, with a tanh before the output gate, as in all later work)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gates_from_input = nn.Linear(width, 4 * hidden)
        self.gates_from_hidden = nn.Linear(hidden, 4 * hidden, bias=False)
        reset_lstm(self.gates_from_hidden.weight, self.gates_from_input.bias)

    def forward(self, inputs: Tensor, h: Tensor, c: Tensor, running: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Any number of steps.

        Args:
            inputs: what is read, `[B, P, width]`, in the order of a packing.
            h: before it, `[B, K, H]`.
            c: before it, `[B, K, H]`.
            running: how many captions read on at each step.

        Returns:
            h of every position `[B, P, H]`, and the last h and c of the captions that run to the end.
        """
        linear, outputs = RecurrentLinear(), []
        for captions, gates in zip(running, self.gates_from_input(inputs).split(running, dim=1), strict=True):
            h, c = lstm(gates + linear(self.gates_from_hidden, h[:, :captions]), c[:, :captions])
            outputs.append(h)
        return torch.cat(outputs, 1), h, c


class ShowAndTell(Decoder):
    """The decoder without attention. Memory is {image `[B, E]`}, state is {h, c `[B, K, L, H]`}."""

    config: ShowAndTellConfig

    def __init__(self, config: ShowAndTellConfig, feature_width: int, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        words, hidden = config.embedding_width, config.hidden_width
        self.image = nn.Linear(feature_width, words)
        self.image_norm = ImageNorm(words)
        self.embedding = nn.Embedding(vocabulary, words)
        widths = [words] + [hidden] * (config.layers - 1)
        self.layers = cast(list[LSTMLayer], nn.ModuleList(LSTMLayer(width, hidden) for width in widths))
        self.output = nn.Linear(hidden, vocabulary)
        self.dropout = Dropout(config.dropout)
        for weight in (self.embedding.weight, self.output.weight):
            nn.init.uniform_(weight, -0.1, 0.1)
        nn.init.zeros_(self.output.bias)

    # ---------------------------------------------------------------- an image, once

    def memory(self, grid: Tensor) -> Arrays:
        """The image's embedding, from its grid `[B, N, D]`."""
        return {"image": torch.relu(self.image_norm(self.image(grid.mean(1))))}

    def start(self, memory: Arrays) -> Arrays:
        """The state before `<start>`: the LSTM has read the image as its first word (equation 10)."""
        image = self.dropout(memory["image"])[:, None]  # [B, 1, E]
        zeros = image.new_zeros(image.shape[0], 1, self.config.layers, self.config.hidden_width)
        return self.read(image, {"h": zeros, "c": zeros.float()}, (1,))[1]

    # ---------------------------------------------------------------- words

    def read(self, embedded: Tensor, state: Arrays, running: tuple[int, ...]) -> tuple[Tensor, Arrays]:
        """All layers, one after the other, over any number of steps.

        Args:
            embedded: what is read, `[B, P, E]`, in the order of a packing.
            state: h and c before it, `[B, K, L, H]`.
            running: how many captions read on at each step.

        Returns:
            The last layer's output `[B, P, H]`, and the state of the captions that run to the end.
        """
        output, last_h, last_c = embedded, [], []
        for n, layer in enumerate(self.layers):
            output, h, c = layer(output, state["h"][:, :, n], state["c"][:, :, n], running)
            output = self.dropout(output)
            last_h.append(h)
            last_c.append(c)
        return output, {"h": torch.stack(last_h, 2), "c": torch.stack(last_c, 2)}

    def step(self, memory: Arrays, state: Arrays, tokens: Tensor) -> tuple[Tensor, None, Arrays]:
        """See `Decoder`; the image was read by `start`, and there is no attention."""
        output, state = self.read(self.dropout(self.embedding(tokens)), state, (tokens.shape[1],))
        return self.output(output), None, state

    def forced(self, memory: Arrays, tokens: Tensor, packing: Packing) -> Forced:
        state = {name: value.expand(-1, packing.running[0], -1, -1) for name, value in self.start(memory).items()}
        embedded = self.dropout(self.embedding(packing.pack(tokens)))  # [B, P, E]
        return Forced(self.output(self.read(embedded, state, packing.running)[0]))


class ImageNorm(nn.BatchNorm1d):
    """Batch norm with one row per image. A batch of one image has no variance, so the running one is used."""

    def forward(self, images: Tensor) -> Tensor:
        """`[B, E]` -> `[B, E]`."""
        if self.training and len(images) == 1:
            return F.batch_norm(images, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(images)
