"""A package of pycocoevalcap's name and layout, with small tables in METEOR's formats."""

import gzip
import zipfile
from pathlib import Path

PAIRS = [
    ("a man", "a guy"), ("on top of", "on"), ("dog", "puppy"), ("puppy", "dog"), ("dog", "hound"),
    ("large", "big dog"), ("one two three four five six seven", "all"), ("on top", "above"),
]  # fmt: skip
# Of no use but that they are English: METEOR doubts captions whose words it does not know.
ENGLISH = ["picture", "nothing", "something", "green", "blue", "grass", "wall", "brick"]
SYNSETS = ["man\n1 2", "fellow\n2", "run\n7", "sprint\n7 8", "bu\n1", *(f"{w}\n{n}" for n, w in enumerate(ENGLISH, 90))]


def write_package(home: Path) -> Path:
    """Write the package into a folder to be put on the path, and return that folder."""
    meteor_folder = home / "pycocoevalcap" / "meteor"
    (meteor_folder / "data").mkdir(parents=True)
    (home / "pycocoevalcap" / "__init__.py").write_text("")
    with zipfile.ZipFile(meteor_folder / "meteor-1.5.jar", "w") as jar:
        jar.writestr("function/english.words", "the\na\nof\non\n")
        jar.writestr("synonym/english.synsets", "\n".join(SYNSETS))
        jar.writestr("synonym/english.exceptions", "man\nmen\nrun\nran running")
        jar.writestr("synonym/COPYING.WORDNET", "free")
    with gzip.open(meteor_folder / "data" / "paraphrase-en.gz", "wt", encoding="utf-8") as table:
        table.writelines(f"0.5\n{a}\n{b}\n" for a, b in PAIRS)
    return home
