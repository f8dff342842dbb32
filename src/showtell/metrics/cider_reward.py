"""CIDEr-D of sampled captions on token ids, fast enough to be the reward of self-critical training.

The scores are those of `cider.cider_d`; the weights of n-grams are computed once, from the training references.
``<end>`` counts as a word in samples, references and document frequencies: without it a model learns
that captions which break off ("a man in a") cost nothing.

An n-gram of up to four ids below 65,535 is packed into one unsigned integer of 64 bits, so equal keys are
equal n-grams, and a key also tells its order. The rest is sorting and searching in sorted arrays.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from showtell.metrics.official.cider import ORDERS, SCALE, SIGMA
from showtell.metrics.official.ngrams import find

Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]
Floats = NDArray[np.float64]

BITS = np.uint64(16)
ORDER_BEGINS = np.array([1 << 16, 1 << 32, 1 << 48], dtype=np.uint64)  # the smallest keys of 2, 3 and 4 words


class CiderReward:
    """CIDEr-D against fixed references."""

    def __init__(
        self, references: Sequence[Sequence[Sequence[int]]], *, pad: int = 0, start: int = 1, end: int = 2
    ) -> None:
        """Weigh the n-grams of the references; the I images are numbered in this order.

        Args:
            references: for each image its captions as token ids, at least one; with or without `start`, with
                `end`.
            pad: id that is not a word.
            start: id that is not a word.
            end: id that ends a caption and is its last word.

        Raises:
            ValueError: an image has no references, or an id is above 65,534.
        """
        if not all(references):
            raise ValueError("an image has no references")
        self._no_words = (pad, start)
        self._end = end
        captions = [np.asarray(r, dtype=np.int64) for of_image in references for r in of_image]
        begin = np.cumsum([0, *(len(c) for c in captions)])
        row = np.repeat(np.arange(len(captions)), np.diff(begin))
        flat = np.concatenate(captions) if captions else np.zeros(0, dtype=np.int64)
        words, row = self._words(flat, row, begin[row])
        image_of = np.repeat(np.arange(len(references)), [len(of_image) for of_image in references])  # [R]
        self._first = np.cumsum([0, *(len(of_image) for of_image in references)])  # [I + 1] first reference
        self._length = np.maximum(np.bincount(row, minlength=len(captions)) - 1, 0)  # [R] in bigrams

        gram_row, key = _ngrams(words, row)
        self._keys, gram = np.unique(key, return_inverse=True)  # [G] all n-grams, sorted
        size = max(len(self._keys), 1)
        seen, times = np.unique(gram_row * size + gram, return_counts=True)
        gram_row, gram = seen // size, seen % size
        images_with = np.bincount(np.unique(image_of[gram_row] * size + gram) % size, minlength=len(self._keys))
        self._most = float(np.log(max(len(references), 1)))  # idf of an n-gram that is in no reference
        self._idf = self._most - np.log(np.maximum(images_with, 1))  # [G]
        weight = times * self._idf[gram]
        order = _order(self._keys)[gram]
        self._norm = np.sqrt(np.bincount(gram_row * ORDERS + order, weight**2, len(captions) * ORDERS))
        self._norm = self._norm.reshape(-1, ORDERS)  # [R, 4]

        # Entries, by image, then by n-gram: which reference has it, and its weight there. A sample's n-gram looks up
        # the run of entries of that n-gram in its image.
        by_image = np.argsort(image_of[gram_row] * size + gram, kind="stable")
        self._entry_reference, self._entry_weight = gram_row[by_image], weight[by_image]
        entry = image_of[gram_row][by_image] * size + gram[by_image]
        run, self._run_begin = np.unique(entry, return_index=True)
        self._run_end = np.append(self._run_begin[1:], len(entry))
        self._run_gram = run % size
        self._image_begin = np.searchsorted(run, np.arange(len(references) + 1) * size)  # [I + 1]

    def __call__(self, images: ArrayLike, tokens: ArrayLike) -> Floats:
        """The CIDEr-D of sampled captions, in 0..10, float64 `[B, K]`.

        Args:
            images: which images the samples are about, `[B]`.
            tokens: K samples an image `[B, K, T]`: ids, then `end`; what follows `end` does not count.

        Raises:
            ValueError: an id is above 65,534.
        """
        images, tokens = np.asarray(images, dtype=np.int64), np.asarray(tokens, dtype=np.int64)
        batch, samples, steps = tokens.shape
        rows = batch * samples
        row = np.repeat(np.arange(rows), steps)
        words, row = self._words(tokens.reshape(-1), row, row * steps)
        length = np.maximum(np.bincount(row, minlength=rows) - 1, 0)
        gram_row, key = _ngrams(words, row)

        distinct, gram = np.unique(key, return_inverse=True)  # looking up sorted keys is faster
        known, at = find(distinct, self._keys)
        idf = np.full(len(distinct), self._most)
        idf[known] = self._idf[at[known]]
        order = _order(distinct)
        size = max(len(distinct), 1)
        seen, times = np.unique(gram_row * size + gram, return_counts=True)
        gram_row, gram = seen // size, seen % size
        weight = times * idf[gram]
        norm = np.sqrt(np.bincount(gram_row * ORDERS + order[gram], weight**2, rows * ORDERS))
        norm = norm.reshape(-1, ORDERS)

        here = known[gram]
        pair, dot = self._products(images, samples, gram_row[here], at[gram[here]], weight[here], order[gram[here]])
        return self._scores(images, samples, dot, pair, norm, length)

    def _words(self, flat: Ints, row: Ints, begin: Ints) -> tuple[Keys, Ints]:
        """The ids of words, plus one, and their rows: without padding, start, and what follows the end.

        Args:
            flat: all rows' ids, one row after the other.
            row: the row of each id.
            begin: where that row begins.
        """
        if len(flat) and (flat.max() > 65_534 or flat.min() < 0):
            raise ValueError("token ids must lie in 0..65,534")
        is_end = flat == self._end
        before = np.cumsum(is_end) - is_end  # ends before each id: in all rows, then in its own row
        before -= before[begin]
        word = (before == 0) & (flat != self._no_words[0]) & (flat != self._no_words[1])
        return flat[word].astype(np.uint64) + np.uint64(1), row[word]

    def _products(
        self, images: Ints, samples: int, row: Ints, gram: Ints, weight: Floats, order: Ints
    ) -> tuple[Ints, Floats]:
        """Where each row's references begin in the second array, which holds their products by order."""
        size = max(len(self._keys), 1)
        # The runs of the batch's images, one image after the other, and keys to find them.
        begin, end = self._image_begin[images], self._image_begin[images + 1]
        run = _ranges(begin, end)
        run_key = np.repeat(np.arange(len(images)), end - begin) * size + self._run_gram[run]
        found, place = find(row // samples * size + gram, run_key)
        row, weight, order, run = row[found], weight[found], order[found], run[place[found]]
        # An entry for each reference that has the n-gram.
        count = self._run_end[run] - self._run_begin[run]
        entry = _ranges(self._run_begin[run], self._run_end[run])
        ours, theirs = np.repeat(weight, count), self._entry_weight[entry]
        of_row = self._first[images + 1] - self._first[images]  # references of each image
        pair = np.cumsum(np.repeat(of_row, samples)) - np.repeat(of_row, samples)  # [rows] its first pair
        row = np.repeat(row, count)
        slot = pair[row] + self._entry_reference[entry] - self._first[images[row // samples]]
        total = int(of_row.sum()) * samples * ORDERS
        product = np.minimum(ours, theirs) * theirs
        dot: Floats = np.bincount(slot * ORDERS + np.repeat(order, count), product, total).astype(np.float64)
        return pair, dot

    def _scores(self, images: Ints, samples: int, dot: Floats, pair: Ints, norm: Floats, length: Ints) -> Floats:
        """The scores of each row: the mean over its references, from the products of each pair."""
        row_images = np.repeat(images, samples)
        begin, end = self._first[row_images], self._first[row_images + 1]
        reference = _ranges(begin, end)  # [pairs]
        row = np.repeat(np.arange(len(row_images)), end - begin)
        both = norm[row] * self._norm[reference]  # [pairs, 4]
        cosine = np.divide(dot.reshape(-1, ORDERS), both, out=np.zeros_like(both), where=both != 0).sum(1)
        difference = length[row] - self._length[reference]
        cosine *= np.exp(-(difference**2) / (2 * SIGMA**2))
        mean = np.add.reduceat(cosine, pair) / (end - begin) if len(row) else np.zeros(0)
        return (mean * SCALE / ORDERS).reshape(-1, samples)


def _ngrams(words: Keys, row: Ints) -> tuple[Ints, Keys]:
    """The keys of all n-grams of orders 1 to 4, and the rows that contain them."""
    keys, rows = [words], [row]
    key = words
    for order in range(1, ORDERS):
        inside = row[order:] == row[: len(row) - order]  # the n-gram ends in the row where it begins
        key = key[: len(words) - order] << BITS | words[order:]
        keys.append(key[inside])
        rows.append(row[: len(row) - order][inside])
    return np.concatenate(rows), np.concatenate(keys)


def _order(keys: Keys) -> Ints:
    """The number of words in each of the sorted keys, minus one."""
    return np.repeat(np.arange(ORDERS), np.diff([0, *np.searchsorted(keys, ORDER_BEGINS), len(keys)]))


def _ranges(begin: Ints, end: Ints) -> Ints:
    """The numbers in several ranges, one range after the other."""
    count = end - begin
    return np.repeat(begin - (np.cumsum(count) - count), count) + np.arange(count.sum())
