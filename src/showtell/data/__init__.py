"""Captioned-image data sets: one loader a format, all returning a `Dataset`."""

from showtell.data.dataset import Dataset, Example, Split
from showtell.errors import UsageError

__all__ = ["Dataset", "Example", "Split", "load"]


def load(spec: str) -> Dataset:
    """The data set that a SPEC names, `format:where`, for example `flickr8k:DIR` or `shapes:2000`.

    Raises:
        DataError: the files are not there or not laid out as expected; the message says what was looked for.
        UsageError: there is no such format.
    """
    from showtell.data import flickr8k, shapes

    loaders = {"flickr8k": flickr8k.load, "shapes": shapes.load}
    kind, _, where = spec.partition(":")
    if kind not in loaders or not where:
        raise UsageError(f"'{spec}' is no data set.", f"Write FORMAT:WHERE with one of {', '.join(loaders)}.")
    return loaders[kind](where)
