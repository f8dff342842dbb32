"""What a file is taken for by its name, wherever it lies: an image, a tar shard, a Parquet table."""

import os

from showtell.images.decode import SUFFIXES

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")  # read, or refused with a reason
TABLE_SUFFIXES = (".parquet", ".pq")


def is_image_name(name: str) -> bool:
    """Whether a file that nobody named in full is taken for an image; hidden ones are not."""
    file = os.path.basename(name)  # noqa: PTH119 (of 100,000 names)
    return not file.startswith(".") and os.path.splitext(file)[1].lower() in SUFFIXES  # noqa: PTH122


def is_shard_name(name: str) -> bool:
    """Whether a file is a tar shard."""
    return name.lower().endswith(SHARD_SUFFIXES)


def is_table_name(name: str) -> bool:
    """Whether a file is a table of images."""
    return name.lower().endswith(TABLE_SUFFIXES)


def is_container_name(name: str) -> bool:
    """Whether a file holds many images."""
    return is_shard_name(name) or is_table_name(name)


def writable(name: str) -> str:
    """The name in Unicode: a file system may hold bytes that are none."""
    return os.fsencode(name).decode("utf-8", "replace")


def printable(name: str) -> str:
    """The name on one line, without characters that move a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in writable(name))
