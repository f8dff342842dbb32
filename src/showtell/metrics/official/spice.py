"""SPICE (Anderson et al. 2016), by pycocoevalcap's Java program: the only metric that showtell does not compute itself.

It parses captions with a Stanford model of 350 MB, which pycocoevalcap fetches when its `Spice` is first
created. showtell fetches nothing: it runs the program if everything is installed, and otherwise says what is missing.
"""

import importlib.util
import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from showtell.errors import DataError, MissingExtraError, ShowtellError
from showtell.metrics.metric import Floats, Metric

MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
MEMORY = "-Xmx8G"  # the official code's limit


def spice(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, Floats]:
    """SPICE of tokenised captions, in 0..1; about a minute for 1,000 images.

    Args:
        candidates: B captions.
        references: for each its references, at least one.

    Returns:
        The corpus score, which is the mean of the images' F-scores, and these `[B]`.

    Raises:
        MissingExtraError: pycocoevalcap is not installed.
        DataError: there is no Java, the models are not there, or the program fails.
    """
    java, program = _tools()
    captions = [
        {"image_id": number, "test": candidate, "refs": list(of_image)}
        for number, (candidate, of_image) in enumerate(zip(candidates, references, strict=True))
    ]
    with tempfile.TemporaryDirectory(prefix="showtell-spice-") as folder:
        asked, answered = Path(folder, "captions.json"), Path(folder, "scores.json")
        asked.write_text(json.dumps(captions), encoding="utf-8")
        command = [java, "-jar", MEMORY, str(program), str(asked), "-out", str(answered), "-subset", "-silent"]
        done = subprocess.run(command, cwd=program.parent, capture_output=True, text=True, errors="replace")
        if done.returncode or not answered.is_file():
            told = done.stderr.strip().splitlines() or ["it said nothing"]
            raise DataError(f"SPICE's program failed with exit code {done.returncode}: {told[-1]}.")
        return _scores(answered.read_text("utf-8"), len(captions))


def _tools() -> tuple[str, Path]:
    """Where Java and the program are."""
    java = shutil.which("java")
    if java is None:
        raise DataError("SPICE needs Java, which is not on PATH.", "Install a Java runtime, version 8 to 13.")
    package = importlib.util.find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        raise MissingExtraError("SPICE", "meteor")
    program = Path(package.submodule_search_locations[0]) / "spice" / "spice-1.0.jar"
    for file in (program, *(program.parent / "lib" / name for name in MODELS)):
        if not file.is_file():
            raise DataError(
                f"SPICE needs {file.name}, which is not in {file.parent}.",
                "pycocoevalcap fetches it: python -c 'from pycocoevalcap.spice.spice import Spice; Spice()'",
            )
    return java, program


def _scores(text: str, images: int) -> tuple[float, Floats]:
    """The mean and each image's F-score, from the program's answer."""
    try:
        score_of = {int(row["image_id"]): float(row["scores"]["All"]["f"]) for row in json.loads(text)}
        per_image = np.array([score_of[number] for number in range(images)])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"SPICE's program did not answer as expected ({type(error).__name__}: {error}).") from None
    if undefined := [number for number, score in score_of.items() if not math.isfinite(score)]:
        raise ShowtellError(f"SPICE has no score for {len(undefined):,} of {images:,} images.")
    return float(per_image.mean()), per_image


SPICE = Metric(
    "SPICE",
    signature="SPICE-1.0",
    statistics=lambda candidates, references: spice(candidates, references)[1][:, None],
    needs="English, Java and pycocoevalcap",
    fits=lambda language: False,
    quick=False,
)
