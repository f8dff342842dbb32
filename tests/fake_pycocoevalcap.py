"""A package of pycocoevalcap's name and layout, with small tables in METEOR's formats."""

import gzip
import zipfile
from pathlib import Path

PAIRS = [
    ("a man", "a guy"), ("on top of", "on"), ("dog", "puppy"), ("puppy", "dog"), ("dog", "hound"),
    ("large", "big dog"), ("one two three four five six seven", "all"), ("on top", "above"),
]  # fmt: skip


def write_package(home: Path) -> Path:
    """Write the package into a folder to be put on the path, and return that folder."""
    meteor_folder = home / "pycocoevalcap" / "meteor"
    (meteor_folder / "data").mkdir(parents=True)
    (home / "pycocoevalcap" / "__init__.py").write_text("")
    with zipfile.ZipFile(meteor_folder / "meteor-1.5.jar", "w") as jar:
        jar.writestr("function/english.words", "the\na\nof\non\n")
        jar.writestr("synonym/english.synsets", "man\n1 2\nfellow\n2\nrun\n7\nsprint\n7 8\nbu\n1")
        jar.writestr("synonym/english.exceptions", "man\nmen\nrun\nran running")
        jar.writestr("synonym/COPYING.WORDNET", "free")
    with gzip.open(meteor_folder / "data" / "paraphrase-en.gz", "wt", encoding="utf-8") as table:
        table.writelines(f"0.5\n{a}\n{b}\n" for a, b in PAIRS)
    return home
