"""Every decoder learns eight pictures by heart: the one test that no broken loss, mask or search passes."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from showtell.data import load
from showtell.engines.torch import TorchEngine
from showtell.models.adaptive_attention import AdaptiveAttentionConfig
from showtell.models.att2in import Att2inConfig
from showtell.models.captioning_model import CaptioningModel, DecoderConfig, build_decoder
from showtell.models.encoders import build_encoder
from showtell.models.show_and_tell import ShowAndTellConfig
from showtell.models.show_attend_and_tell import ShowAttendAndTellConfig
from showtell.models.transformer import TransformerConfig
from showtell.models.up_down import UpDownConfig
from showtell.search import SearchOptions, search
from showtell.tokenizer import Tokenizer, TokenizerConfig
from showtell.training.batches import batch_of
from showtell.training.cross_entropy import CrossEntropy
from showtell.training.stage import parameter_groups

LSTM = {"embedding_width": 32, "hidden_width": 64, "dropout": 0.0}
TRANSFORMER = {"width": 64, "heads": 4, "feed_forward_width": 64, "encoder_layers": 1, "decoder_layers": 2}
DECODERS = {
    "show_and_tell": ShowAndTellConfig(**LSTM, layers=2),
    "show_attend_and_tell": ShowAttendAndTellConfig(**LSTM, attention_width=32),
    "row 2 of the design": ShowAttendAndTellConfig(
        **LSTM, attention_width=32, initial_state="zeros", gate=False, output="hidden"
    ),
    "hard attention": ShowAttendAndTellConfig(**LSTM, attention_width=32, attention="hard"),
    "att2in": Att2inConfig(**LSTM, attention_width=32),
    "adaptive_attention": AdaptiveAttentionConfig(**LSTM, attention_width=32),
    "up_down": UpDownConfig(**LSTM, attention_width=32),
    "transformer": TransformerConfig(**TRANSFORMER, encode_size=4, dropout=0.0),
    "transformer, modern": TransformerConfig(
        **TRANSFORMER, encode_size=3, dropout=0.0, norm="pre", activation="gelu", positions="rotary"
    ),
}
D, N, STEPS = 24, 9, 300


@pytest.mark.parametrize("config", DECODERS.values(), ids=DECODERS.keys())
def test_repeats_eight_captions_word_for_word(config: DecoderConfig) -> None:
    torch.manual_seed(0)
    captions: Sequence[str] = [example.captions[0] for example in load("shapes:8").examples]
    tokenizer = Tokenizer.train(captions, TokenizerConfig(min_count=1))
    encoder = build_encoder({"name": "efficientnet_lite0", "weights": "random", "size": 32})
    model = CaptioningModel(encoder, build_decoder(config, D, len(tokenizer)))
    stage = CrossEntropy(label_smoothing=0.0, doubly_stochastic=0.1)
    grids = torch.randn(8, N, D)
    batch = batch_of(np.arange(8), [[tokenizer.encode(caption)] for caption in captions])
    optimizer = torch.optim.AdamW(parameter_groups(model, stage), lr=5e-3)
    model.train()
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.stack(list(stage.terms(model, grids, batch, 0.0).values())).sum().backward()
        optimizer.step()
    engine = TorchEngine(model.eval())
    for beam in (1, 3):
        found = search(engine, engine.memory_of(grids.numpy()), SearchOptions(beam=beam, max_words=30), tokenizer)
        assert [tokenizer.decode(hypotheses[0].tokens) for hypotheses in found] == list(captions)
