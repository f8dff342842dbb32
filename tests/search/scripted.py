"""A model without weights: log-probabilities depend on the image and the words said, and on nothing else."""

from dataclasses import dataclass

import numpy as np

from showtell.search.engine import Proposals, gather, select

PAD, START, END, UNK = 0, 1, 2, 3


@dataclass(frozen=True)
class ScriptedVocabulary:
    size: int = 8
    pad: int = PAD
    start: int = START
    end: int = END
    unk: int = UNK

    def __len__(self) -> int:
        return self.size

    def spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        """Words are "w4", "w5", ...; "w4+5" has two ids, and "w4+5|6" is also spelled as 6."""
        ways = [tuple(int(id) for id in way.split("+")) for way in word[1:].split("|")]
        return tuple(way for way in ways if max(way) < self.size)

    def spell(self, text: str) -> tuple[int, ...] | None:
        """In the first spelling of each word."""
        ways = [self.spellings(word)[:1] for word in text.split()]
        return tuple(id for [way] in ways for id in way) if all(ways) else None


class ScriptedEngine:
    """`step` hashes (image, words so far) into log-probabilities; the state is the words, so gathering
    wrongly shows.

    `sharpness` makes some words much likelier than others, `end_bonus` is added to `<end>`'s logit for each
    word said. It counts rows and checks shapes, so that a test can see what search asked for.
    """

    batches_at_a_time = 1
    arithmetic = None

    def __init__(self, size: int = 8, sharpness: float = 2.0, end_bonus: float = 0.2, cells: int = 4) -> None:
        self.size, self.sharpness, self.end_bonus, self.cells = size, sharpness, end_bonus, cells
        self.asked: list[tuple[int, int, int]] = []  # (B, K, top) of each step

    def encode(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """An image is its number."""
        return {"image": np.asarray(images, dtype=np.int64).reshape(len(images))}

    memory_from_grid = encode

    def batch_size(self, memory: dict[str, np.ndarray]) -> int:
        return len(memory["image"])

    def start(self, memory: dict[str, np.ndarray], attention: bool = False) -> dict[str, np.ndarray]:
        batch = len(memory["image"])
        return {"said": np.zeros((batch, 1, 0), dtype=np.int64), "attention": np.full((batch, 1), attention)}

    def step(self, memory, state, tokens, parents, top):
        state = gather(state, parents)
        said = np.concatenate([state["said"], tokens[:, :, None]], axis=2)  # [B, K, t]
        batch, rows = tokens.shape
        assert state["said"].shape[:2] == (batch, rows), "tokens and state disagree about K"
        assert 1 <= top <= self.size
        self.asked.append((batch, rows, top))
        log_probs = np.empty((batch, rows, self.size))
        attention = np.empty((batch, rows, self.cells), np.float32)
        for b in range(batch):
            for k in range(rows):
                log_probs[b, k] = self.log_probs(int(memory["image"][b]), said[b, k, 1:].tolist())
                attention[b, k] = self.attention(int(memory["image"][b]), said[b, k, 1:].tolist())
        ids = np.argsort(-log_probs, axis=2, kind="stable")[:, :, :top]
        best = np.take_along_axis(log_probs, ids, axis=2).astype(np.float32)
        wanted = state["attention"].all()
        return Proposals(ids, best, attention if wanted else None), {
            "said": said,
            "attention": state["attention"],
        }

    def select(self, memory, state, images):
        return select(memory, images), select(state, images)

    def log_probs(self, image: int, words: list[int]) -> np.ndarray:
        """[V], float32 precision, for words without `<start>`."""
        logits = np.random.default_rng([7, image, *words]).normal(size=self.size) * self.sharpness
        logits[END] += self.end_bonus * len(words) - self.sharpness
        return (logits - np.log(np.exp(logits).sum())).astype(np.float32).astype(np.float64)

    def attention(self, image: int, words: list[int]) -> np.ndarray:
        weights = np.random.default_rng([8, image, *words]).random(self.cells)
        return (weights / weights.sum()).astype(np.float32)
