"""What the server's tests share: engines without weights, an application's client, a server on a real socket."""

import contextlib
import io
import socket
import threading
import time
from collections.abc import Iterator, Mapping

import numpy as np
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

from showtell.captioner import Captioner
from showtell.search.engine import Proposals, gather, select
from showtell.search.options import SearchOptions
from showtell.serve.app import create_app
from showtell.serve.server import ImpatientProtocol
from showtell.serve.settings import Settings
from showtell.tokenizer import Tokenizer, TokenizerConfig
from tests.fake_model import FakeEngine, fake_config, fake_tokenizer

RED, GREEN = "a red picture of nothing", "a green picture of nothing"


class DreamingEngine:
    """A small recurrent network with random weights: what it says depends on every pixel and word before."""

    batches_at_a_time = 1
    H, N = 24, 4

    def __init__(self, size: int) -> None:
        rng = np.random.default_rng(3)
        self.reads = rng.normal(size=(3 * 8 * 8, self.H)) * 0.5
        self.recurs, self.hears = rng.normal(size=(2, self.H, self.H)) * 0.4
        self.words = rng.normal(size=(size, self.H))
        self.says = rng.normal(size=(self.H, size)) * 1.5
        self.looks = rng.normal(size=(self.H, self.N))
        self.batches: list[int] = []

    def encode(self, images):
        self.batches.append(len(images))
        return {"image": np.tanh(images.reshape(len(images), -1) @ self.reads)}

    def batch_size(self, memory):
        return len(memory["image"])

    def start(self, memory, attention=False):
        return {"h": memory["image"][:, None], "attention": np.full((len(memory["image"]), 1), attention)}

    def step(self, memory, state, tokens, parents, top):
        state = gather(state, parents)
        h = np.tanh(state["h"] @ self.recurs + self.words[tokens] @ self.hears + memory["image"][:, None])
        logits = h @ self.says
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        ids = np.argsort(-log_probs, axis=-1, kind="stable")[:, :, :top]
        looked = np.exp(h @ self.looks)
        attention = (looked / looked.sum(-1, keepdims=True)).astype(np.float32) if state["attention"].any() else None
        best = np.take_along_axis(log_probs, ids, axis=2).astype(np.float32)
        return Proposals(ids, best, attention), {**state, "h": h}

    def select(self, memory, state, images):
        return select(memory, images), select(state, images)


class GatedEngine(FakeEngine):
    """`FakeEngine` that encodes when it is let to."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.gate, self.entered = threading.Event(), threading.Event()

    def encode(self, images):
        self.entered.set()
        assert self.gate.wait(20)
        return super().encode(images)


def fake_captioner(engine: type[FakeEngine] = FakeEngine, **config) -> Captioner:
    tokenizer = fake_tokenizer()
    return Captioner(engine(tokenizer), tokenizer, fake_config(**config))


def dreaming_captioner() -> Captioner:
    words = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    tokenizer = Tokenizer.train([words], TokenizerConfig(kind="word", min_count=1))
    return Captioner(DreamingEngine(len(tokenizer)), tokenizer, fake_config(search=SearchOptions(max_words=6)))


@contextlib.contextmanager
def client(captioner: Captioner | None = None, **settings) -> Iterator[TestClient]:
    app = create_app({"fake": captioner or fake_captioner()}, Settings(**settings))
    with TestClient(app, raise_server_exceptions=False) as opened:
        yield opened


@contextlib.contextmanager
def running(
    captioner: Captioner | None = None, *, others: Mapping[str, Captioner] | None = None, examples=(), **settings
) -> Iterator[int]:
    """A server on a socket of this process; its port."""
    app = create_app({"fake": captioner or fake_captioner(), **(others or {})}, Settings(**settings), examples)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, http=ImpatientProtocol, log_level="critical", timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: server.started)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)


def until(true, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


def noise(seed: int, size: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()
