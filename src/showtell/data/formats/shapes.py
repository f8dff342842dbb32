"""`shapes:COUNT[,seed=N][,pixels=N][,language=CODE]`: scenes drawn on the spot, each with true captions.

Scene number i is the same for any count; of ten scenes in a row eight are for training, one dev, one test.
No scene of one split has the layout (the same things in the same thirds of the canvas) of a scene of another.
"""

import random
import zlib

from showtell.data import scenes_abroad
from showtell.data.dataset import Dataset, Example, Split
from showtell.data.scenes import Scene, random_captions, random_scene
from showtell.data.scenes_abroad import LANGUAGES
from showtell.errors import UsageError
from showtell.languages import ENGLISH

SYNTAX = "COUNT[,seed=N][,pixels=N][,language=CODE]"

CAPTIONS = 5  # at most: in languages other than English there are four ways to name a single thing
SPOKEN = ", ".join((ENGLISH, *LANGUAGES))
SPLIT_OF_TENTH: tuple[Split, ...] = ("train",) * 8 + ("dev", "test")


def load(location: str, *, photos: bool = True) -> Dataset:
    """The scenes that a spec asks for: `2000`, or `2000,seed=1,pixels=64`. Raises UsageError.

    Scenes are drawn when they are read, so `photos` makes no difference.
    """
    count, *settings = location.split(",")
    values = {"count": count, "seed": "0", "pixels": "224", "language": ENGLISH}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key.strip() not in ("seed", "pixels", "language"):
            raise UsageError(
                f"shapes:{location} has an unknown setting '{setting}'.",
                "Choose from: seed=N, pixels=N, language=CODE.",
            )
        values[key.strip()] = value.strip()
    language = values.pop("language")
    if language not in (ENGLISH, *LANGUAGES):
        raise UsageError(f"shapes:{location}: the scenes have no captions in {language}.", f"Choose from: {SPOKEN}.")
    try:
        numbers = {key: int(value) for key, value in values.items()}
    except ValueError:
        raise UsageError(f"shapes:{location} can't be read.", "Write shapes:2000,seed=1,pixels=224.") from None
    if numbers["count"] < 1 or numbers["pixels"] < 64:
        raise UsageError(f"shapes:{location} is too small.", "Use 1 scene or more, of 64 pixels or more.")
    seed, pixels = numbers["seed"], numbers["pixels"]
    return Dataset("shapes", tuple(example(index, seed, pixels, language) for index in range(numbers["count"])))


def example(index: int, seed: int = 0, pixels: int = 224, language: str = ENGLISH) -> Example:
    """Scene number `index` of a seed, with its captions; it does not depend on what else is drawn."""
    split = SPLIT_OF_TENTH[index % 10]
    rng = random.Random(f"shapes {seed} {index}")
    scene = random_scene(rng, pixels)
    while _split_of_layout(scene) != split:
        scene = random_scene(rng, pixels)
    if language == ENGLISH:
        captions = random_captions(scene, rng, CAPTIONS)
    else:
        captions = scenes_abroad.random_captions(scene, rng, CAPTIONS, language)
    return Example(f"shapes-{index:06d}", split, captions, scene=scene)


def _split_of_layout(scene: Scene) -> Split:
    """The only split in which a layout may appear: the layout alone decides, so splits can't share one."""
    return SPLIT_OF_TENTH[zlib.crc32(repr(scene.layout()).encode()) % 10]
