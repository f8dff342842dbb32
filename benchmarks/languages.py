"""The share of true captions of drawn scenes in five languages: `python benchmarks/languages.py [CODE ...]`.

Each model learns from 2,400 scenes whose captions a grammar made, and captions 300 others. Takes minutes on two cores.
"""

import sys
import tempfile
import time
from pathlib import Path

from showtell import load
from showtell.cli import main
from showtell.data import load as load_data
from showtell.data.scenes_abroad import LANGUAGES, true_captions
from showtell.languages import CASE_MATTERS, lowered

SCENES = 3_000
WORDS = 40  # a letter is a word in Chinese and Japanese
EPOCHS = 10


def share_true(language: str, folder: Path) -> tuple[float, str]:
    """The share of true captions of unseen scenes, and one of the captions."""
    spec = f"shapes:{SCENES},language={language}"
    settings = [f"search.max_words={WORDS}", f"stages.0.epochs={EPOCHS}"]
    more = [part for setting in settings for part in ("--set", setting)]
    if main(["train", "recipes/shapes.yaml", "--data", spec, *more, "--out", str(folder)]):
        raise SystemExit(f"The training in {language} failed.")
    unseen = load_data(spec).split("test")
    captions = load(folder)([example.read() for example in unseen])

    def written(caption: str) -> str:
        return caption if language in CASE_MATTERS else lowered(caption, language)

    true = [
        caption.text in map(written, true_captions(example.scene, language))
        for example, [caption] in zip(unseen, captions, strict=True)
        if example.scene is not None
    ]
    return sum(true) / len(true), captions[0][0].text


if __name__ == "__main__":
    print(f"{'language':<10}{'true':>8}{'minutes':>9}  a caption")
    for code in sys.argv[1:] or LANGUAGES:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as name:
            share, example = share_true(code, Path(name) / "run")
        print(f"{code:<10}{share:>8.1%}{(time.monotonic() - begun) / 60:>9.1f}  {example}", flush=True)
