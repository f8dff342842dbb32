"""Finding a data set's files on disk, and saying what was looked for when they are not there."""

from collections.abc import Sequence
from pathlib import Path

from showtell.errors import DataError
from showtell.images.names import is_image_name, is_passed_over


def image_folder(root: Path, names: Sequence[str], *, needed: bool = True) -> Path:
    """The first of the folders `names` in `root` that holds images, itself or one folder deeper.

    Where none does, `root`, or if it is `needed`:

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
