"""A model folder whose engine is scripted: it says the colour of an image, and needs no weights."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from showtell import captioner as captioner_module
from showtell.bundle import Bundle, BundleConfig, save_bundle
from showtell.images.decode import Preprocessing
from showtell.search.engine import Proposals, gather, select
from showtell.search.options import SearchOptions
from showtell.tokenizer import Tokenizer, TokenizerConfig

COLOURS = ("red", "green", "blue")
CAPTIONS = [f"a {colour} picture of nothing" for colour in COLOURS]
GRID = (2, 2)


def fake_tokenizer(kind: str = "word") -> Tokenizer:
    return Tokenizer.train(CAPTIONS, TokenizerConfig(kind=kind, min_count=1))


def fake_config(**changes) -> BundleConfig:
    values = {
        "name": "fake",
        "preprocessing": Preprocessing(size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        "encoder": {"kind": "fake"},
        "decoder": {"kind": "fake"},
        "grid": GRID,
        "search": SearchOptions(max_words=8),
    }
    return BundleConfig(**(values | changes))


class FakeEngine:
    """Says "a <colour> picture of nothing" with probability 0.9 a word; the others share the rest."""

    batches_at_a_time = 1
    arithmetic = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.scripts = np.zeros((3, 16), np.int64) + tokenizer.end
        for number, caption in enumerate(CAPTIONS):
            tokens = tokenizer.encode(caption)[1:]
            self.scripts[number, : len(tokens)] = tokens
        self.size = len(tokenizer)
        self.batches: list[int] = []

    def encode(self, images):
        self.batches.append(len(images))
        return {"colour": images.mean(axis=(2, 3)).argmax(axis=1)}

    def memory_from_grid(self, grid):
        return {"colour": np.asarray(grid, np.float32)[:, 0, :3].argmax(axis=1)}

    def batch_size(self, memory):
        return len(memory["colour"])

    def start(self, memory, attention=False):
        batch = len(memory["colour"])
        return {"t": np.zeros((batch, 1), np.int64), "attention": np.full((batch, 1), attention)}

    def step(self, memory, state, tokens, parents, top):
        state = gather(state, parents)
        expected = self.scripts[memory["colour"][:, None], state["t"]]  # [B, K]
        log_probs = np.log(np.broadcast_to(0.1 / (np.arange(self.size) + 2), (*expected.shape, self.size)))
        np.put_along_axis(log_probs := log_probs.copy(), expected[:, :, None], np.log(0.9), axis=2)
        log_probs -= np.log(np.exp(log_probs).sum(-1, keepdims=True))
        ids = np.argsort(-log_probs, axis=-1, kind="stable")[:, :, :top]
        attention = None
        if state["attention"].any():
            attention = np.zeros((*expected.shape, 4), np.float32)
            np.put_along_axis(attention, state["t"][:, :, None] % 4, 1.0, axis=2)
        best = np.take_along_axis(log_probs, ids, axis=2).astype(np.float32)
        return Proposals(ids, best, attention), {**state, "t": state["t"] + 1}

    def select(self, memory, state, images):
        return select(memory, images), select(state, images)


def save_fake_model(folder: Path, **changes) -> Path:
    """Write a model folder of `FakeEngine`; its weights are there to be a file."""
    save_bundle(folder, fake_config(**changes), fake_tokenizer(), {"w": np.zeros((2, 3), np.float32)}, "# fake")
    return folder


def use_fake_engine(monkeypatch) -> None:
    """Let `showtell.load` put `FakeEngine` behind any model folder."""

    def engine(bundle: Bundle, threads: int | None, name: str) -> FakeEngine:
        return FakeEngine(bundle.tokenizer)

    monkeypatch.setattr(captioner_module, "_engine", engine)


def picture(colour: str, size: int = 12) -> Image.Image:
    return Image.new("RGB", (size, size), colour)


def png(colour: str) -> bytes:
    file = io.BytesIO()
    picture(colour).save(file, "PNG")
    return file.getvalue()
