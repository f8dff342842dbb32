"""Find a data set's files on disk, and say what was looked for if they are missing."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from unicodedata import normalize

from showtell.data.dataset import SPLIT_NAMES, Split, automatic_split, first_names, is_shares, named_splits
from showtell.errors import DataError, UsageError
from showtell.files import read_lines
from showtell.images.names import is_image_name, is_passed_over

ENCODING = "Convert it to UTF-8, or name its encoding, such as encoding=cp1252."


def image_folder(root: Path, names: Sequence[str], *, needed: bool = True) -> Path:
    """The first of the folders `names` in `root` that holds images, directly or one folder deeper.

    If none does, `root`, or if it is `needed`:

    Raises:
        DataError: the message says what `root` holds instead.
    """
    for name in names:
        for folder in (root / name, *(root / name / inner for inner in names)):
            if holds_images(folder):
                return folder
    if not needed:
        return root
    raise not_found(root, "folder of images", names)


def holds_images(folder: Path) -> bool:
    """Whether the folder exists and has an image file directly in it."""
    return folder.is_dir() and any(
        is_image_name(path.name) and not is_passed_over(path.name) for path in folder.iterdir()
    )


def settings_of(
    spec: str, names: Sequence[str], *, shares_only: bool = False, flags: Sequence[str] = ()
) -> tuple[str, dict[str, str]]:
    """A location and the settings after it: `t.csv,image=COLUMN`.

    Text after a comma that is not a setting belongs to what comes before it.

    Args:
        spec: the SPEC with its format: `table:t.csv,image=COLUMN`.
        names: the settings' names.
        shares_only: whether `split` is one of them and takes shares (90/5/5) only.
        flags: settings without a value; their value is their name.

    Raises:
        UsageError: there is no such setting, or it has no value.
    """
    first, *rest = spec.partition(":")[2].split(",")
    location, settings, last = [first], dict[str, str](), ""
    names = [*names, *["split"] * shares_only]
    for part in rest:
        name, _, value = part.partition("=")
        if part in flags:
            settings[part] = part
        elif re.fullmatch(r"\w+=.*", part, re.DOTALL):
            if name not in names or not value:
                known = ", ".join([*(f"{each}=" for each in names), *flags])
                raise UsageError(f"{spec} has an unknown setting '{part}'.", f"Choose from: {known}.")
            settings[name], last = value, name
        elif last:
            settings[last] += f",{part}"
        else:
            location.append(part)
    if shares_only and "split" in settings and not is_shares(settings["split"]):
        raise UsageError(f"{spec}: '{settings['split']}' is not a split.", "Write shares, such as split=90/5/5.")
    return ",".join(location), settings


def caption_lines(file: Path, settings: Mapping[str, str]) -> list[str]:
    """The lines of a text, in the encoding that `settings` name. Raises DataError, UsageError as `read_lines`."""
    return read_lines(file, settings.get("encoding", "utf-8"), ENCODING)


@contextmanager
def understood(file: Path, what: str, needed: str) -> Iterator[None]:
    """Wrap code that reads a JSON file's content. Raises DataError, which names the key, if it holds something else."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        lacks = f" ('{error.args[0]}' is missing or unknown)" if isinstance(error, KeyError) else ""
        raise DataError(f"{file} is not {what}{lacks}.", needed) from error


def split_by_file(paths: Mapping[str, Path], why: str, settings: Mapping[str, str]) -> tuple[dict[str, Split], str]:
    """As `automatic_split`; two names of one file are in one split."""
    firsts = first_names(paths)
    splits, note = automatic_split(firsts.values(), why, settings)
    return {image_id: splits[first] for image_id, first in sorted(firsts.items())}, note


def split_by_name(
    told: Mapping[str, str | None], parts: Mapping[str, Split | None], why: str, settings: Mapping[str, str]
) -> tuple[dict[str, Split], list[str]]:
    """Image -> split, from its own field, or from its part, or else automatic; and notes on it."""
    fields = {image_id: SPLIT_NAMES.get((name or "").strip().lower()) for image_id, name in told.items()}
    splits, notes = named_splits(fields, parts)
    if splits and not is_shares(settings.get("split", "")):
        return splits, notes
    splits, note = automatic_split(told, why, settings)
    return splits, [note]


def slashed(name: str) -> str:
    """The name of an image in a form for all systems: `im\\a.jpg` and `./im/a.jpg` are `im/a.jpg`, é is one letter."""
    return normalize("NFC", Path(name.replace("\\", "/")).as_posix())


def common_folder(paths: Iterable[str]) -> str:
    """What all the paths or addresses begin with, up to a `/`."""
    folders = zip(*(path.split("/")[:-1] for path in paths), strict=False)
    return "".join(f"{names[0]}/" for names in takewhile(lambda names: len({*names}) == 1, folders))


def first_file(root: Path, names: Sequence[str], what: str) -> Path:
    """The first of the files `names` that `root` has. Raises DataError."""
    for name in names:
        if (root / name).is_file():
            return root / name
    raise not_found(root, what, names)


def not_found(root: Path, what: str, names: Sequence[str]) -> DataError:
    """The error for a layout that isn't understood: what was looked for, and what there is."""
    if not root.is_dir():
        return DataError(f"{root} is not a folder.", "Name the folder that holds the data set.")
    there = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    found = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "") or "nothing"
    return DataError(f"{root} has no {what}.", f"Looked for {', '.join(names)}; found {found}.")
