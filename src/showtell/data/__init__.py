"""Captioned-image data sets: one loader per format, each returning a `Dataset`; and captions to be scored."""

from showtell.data.dataset import Dataset, Example, Split, joined
from showtell.data.formats import DATA_FORMATS, load
from showtell.data.references import Predictions, References, matched, read_predictions, read_references

__all__ = [
    "DATA_FORMATS",
    "Dataset",
    "Example",
    "Predictions",
    "References",
    "Split",
    "joined",
    "load",
    "matched",
    "read_predictions",
    "read_references",
]
