"""Captions and ids in files: a text, a list, a list that some program wrote as a text, or nothing."""

import ast
import json
import re
from collections.abc import Mapping
from math import isnan

from showtell.errors import DataError
from showtell.images.tables import COLUMNS

NOTHING = frozenset({"null", "none", "nan", "<na>", "n/a", "#n/a"})
"""How programs write a missing value into a text; at most four letters."""

ITEM = r"""(?:'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|None|nan|null)"""
# Lists as Python and NumPy print them; NumPy without commas.
LIST = re.compile(rf"[\[(]\s*+{ITEM}(?:(?:\s*+,\s*+|\s++){ITEM})*+\s*+,?\s*+[\])]", re.DOTALL)
LIST_BEGINS, LIST_ENDS = re.compile(r"\[\s*['\"]"), re.compile(r"['\"]\s*\]\s*\Z")
TEXT_FIELDS = (*COLUMNS["caption"], "raw")


def is_nothing(value: object) -> bool:
    """Whether a cell or field is empty, or holds what programs write for nothing: null, NaN, the text "nan"."""
    if isinstance(value, str):
        written = value.strip()
        return not written or (len(written) < 5 and written.lower() in NOTHING)
    return value is None or (isinstance(value, float) and isnan(value))


def captions_of(value: object, where: str = "A caption") -> list[str]:
    """The captions in a cell or field: a text, a list of texts or of objects that hold one, or such a list as a text.

    What should be a caption but is not (null, NaN, a number) becomes an empty text, so that it can be counted.

    Args:
        value: what JSON, Parquet or a cell of a table holds.
        where: the file and the row, for the error.

    Raises:
        DataError: a text begins and ends like a list but is not one.
    """
    if isinstance(value, list | tuple):
        return [text for item in value for text in captions_of(item, where)]
    if not isinstance(value, str):
        fields = value if isinstance(value, Mapping) else {}
        return next((captions_of(fields[name], where) for name in TEXT_FIELDS if name in fields), [""])
    written = value.strip()
    if written[:1] not in ("[", "("):
        return ["" if is_nothing(written) else value]
    if written.startswith("[") and written.endswith("]"):
        try:
            return captions_of(json.loads(written), where)
        except ValueError:
            pass
    if LIST.fullmatch(written) and (written[0] == "[" or "," in written):
        return ["" if item[0] in "Nn" else ast.literal_eval(item) for item in re.findall(ITEM, written, re.DOTALL)]
    if LIST_BEGINS.match(written) and LIST_ENDS.search(written):
        raise DataError(
            f"{where}: {written[:60]!r} begins like a list but can't be read as one.",
            'Write lists as JSON: ["a dog", "a cat"].',
        )
    return [value]


def tidy(caption: str) -> str:
    """The caption with single spaces between its words and none around it; empty if it says that there is none."""
    tidied = " ".join(caption.split())
    return "" if is_nothing(tidied) else tidied


def empty_captions(captions: int) -> list[str]:
    """The note on a number of captions that are empty; no note if there are none."""
    return [f"Captions left out because they are empty, null or not text: {captions:,}."] if captions else []


def id_of(value: object) -> str | None:
    """An id as text, None if there is none: 42, "42" and 42.0 are the same image."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    return str(value)
