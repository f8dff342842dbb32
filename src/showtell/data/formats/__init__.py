"""Data formats, one file each. To add one, write its file and put its name here."""

import re
from dataclasses import replace
from importlib import import_module
from os.path import exists
from typing import TYPE_CHECKING, Protocol, cast

from showtell.errors import UsageError

if TYPE_CHECKING:
    from showtell.data.dataset import Dataset

DATA_FORMATS = ("flickr8k", "flickr30k", "coco", "karpathy", "table", "folder", "shards", "hub", "shapes")
"""The beginnings of SPECs, and the names of their modules in this package."""
TIMES = re.compile(r",times=(?P<times>\d+(\.\d+)?)$")


class DataFormat(Protocol):
    """What the module of a format offers."""

    SYNTAX: str
    """What follows the colon in a SPEC: `DIR`, `FILE.json,IMAGES`, `COUNT[,seed=N]`."""

    def load(self, location: str, /, *, photos: bool = True) -> "Dataset":
        """The data set at a location, which is what follows the colon.

        Without `photos` only the captions are needed: an image whose file is missing is not left out.

        Raises:
            DataError: the files are missing or not laid out as expected; the message says what was looked for.
            UsageError: the location is not of the format's syntax.
        """


def data_format(name: str) -> DataFormat:
    """The format of that name."""
    return cast("DataFormat", import_module(f"{__name__}.{name}"))


def load(spec: str, *, photos: bool = True) -> "Dataset":
    """The data set that a SPEC names, `FORMAT:LOCATION`, for example `flickr8k:DIR` or `shapes:2000`.

    The format of an existing file or folder may be left out; the notes say how it is read. ``,times=3`` at the end of
    the SPEC says how often a pass over the training images shows each image of this data set.

    `photos` and errors are as in `DataFormat.load`; UsageError also if there is no such format.
    """
    if match := TIMES.search(spec):
        if not (times := float(match["times"])):
            raise UsageError(f"'{spec}' shows no image.", "Give times over 0, such as times=3 or times=0.5.")
        dataset = load(spec[: match.start()], photos=photos)
        return replace(dataset, examples=tuple(replace(example, times=times) for example in dataset.examples))
    name, _, location = spec.partition(":")
    if name not in DATA_FORMATS:
        from showtell.data.formats.guess import format_of

        guessed = format_of(spec)
        if guessed is None:
            forms = f"one of {', '.join(f'{known}:' for known in DATA_FORMATS)}"
            # Path.exists raises if a name is too long.
            missing = "" if exists(spec) else ", and there is no such file or folder"  # noqa: PTH110
            raise UsageError(f"'{spec}' does not begin with a data format{missing}.", f"Begin with {forms}.")
        dataset = load(f"{guessed}:{spec}", photos=photos)
        return replace(dataset, notes=(f"{spec} is read as {guessed}:{spec}.", *dataset.notes))
    if not location:
        raise UsageError(f"'{spec}' does not say what to load.", f"Write {name}:{data_format(name).SYNTAX}.")
    return data_format(name).load(location, photos=photos)
