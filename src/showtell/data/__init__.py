"""Captioned-image data sets: one loader a format, all returning a `Dataset`; and captions without images, to score."""

from importlib import import_module

from showtell.data.dataset import Dataset, Example, Split
from showtell.data.references import Predictions, References, matched, read_predictions, read_references
from showtell.errors import UsageError

__all__ = [
    "FORMATS",
    "Dataset",
    "Example",
    "Predictions",
    "References",
    "Split",
    "load",
    "matched",
    "read_predictions",
    "read_references",
]

FORMATS = {
    "flickr8k": "DIR",
    "flickr30k": "DIR",
    "coco": "DIR[,YEAR] or FILE.json[,IMAGES]",
    "karpathy": "FILE.json,IMAGES",
    "table": "FILE[,image=COLUMN][,caption=COLUMN][,split=COLUMN][,images=DIR]",
    "folder": "DIR",
    "shards": "URLS[,caption=FIELD][,split=FIELD]",
    "hub": "NAME[,image=COLUMN][,caption=COLUMN][,id=COLUMN][,split=COLUMN][,config=NAME][,streaming]",
    "shapes": "COUNT[,seed=N][,pixels=N]",
}
"""Each format, the module of the same name that loads it, and what follows the colon in its SPEC."""


def load(spec: str, *, photos: bool = True) -> Dataset:
    """The data set that a SPEC names, `format:where`, for example `flickr8k:DIR` or `shapes:2000`.

    Without `photos` its captions are all that is wanted: image files that are not there are no reason to leave an
    image out.

    Raises:
        DataError: the files are not there or not laid out as expected; the message says what was looked for.
        UsageError: there is no such format.
    """
    kind, _, where = spec.partition(":")
    if kind not in FORMATS:
        forms = f"one of {', '.join(f'{name}:' for name in FORMATS)}"
        raise UsageError(f"'{spec}' does not begin with a data format.", f"Begin with {forms}.")
    if not where:
        raise UsageError(f"'{spec}' does not say what to load.", f"Write {kind}:{FORMATS[kind]}.")
    dataset: Dataset = import_module(f"showtell.data.formats.{kind}").load(where, photos=photos)
    return dataset
