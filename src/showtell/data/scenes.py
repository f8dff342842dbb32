"""Drawn scenes, captions that are true of them, and a check whether any caption is true.

A scene is one or two things on a plain ground. The captions' grammar, about thirty words in all:

    caption  = ["there is" | "the picture shows"] clause {"and" clause}
    clause   = thing [["that is"] relation thing]
    thing    = "a" [size] [colour] shape ["that is" (size | colour)]
    relation = ["to the"] "left of" | ["to the"] "right of" | "above" | "over" | "below" | "under"

"shape" is a word for any of the shapes. Two mentions in one caption are two things.
"""

import math
import random
import re
from dataclasses import dataclass
from itertools import pairwise, permutations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

COLOURS = {
    "red": (214, 40, 40),
    "green": (38, 150, 60),
    "blue": (40, 80, 215),
    "yellow": (245, 205, 30),
    "purple": (140, 50, 165),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
RADII = {"big": 0.20, "small": 0.13}
"""Half of a thing's width, as a fraction of the canvas's side: 90 and 58 of 224 pixels across."""
WAYS_TO_SAY = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
LEADS = ("there is ", "the picture shows ")

Spot = tuple[float, float, float]
"""A middle (x, y) and a radius, as fractions of the canvas's side."""

# Along an axis two things are level (up to LEVEL) or clearly apart (from APART on); truth is decided in between.
LEVEL, APART = 0.09, 0.23
DECIDED = (LEVEL + APART) / 2
GAP = 0.04
SUPERSAMPLING = 3

_ANY = {"size": "|".join(RADII), "colour": "|".join(COLOURS), "shape": "|".join((*SHAPES, "shape"))}
_THING = re.compile(
    "a (?:(?P<size>{size}) )?(?:(?P<colour>{colour}) )?(?P<shape>{shape})"
    "(?: that is (?:(?P<size_after>{size})|(?P<colour_after>{colour})))?".format(**_ANY)
)
_MEANING = {said: relation for relation, ways in WAYS_TO_SAY.items() for said in ways}
_RELATION = re.compile(f" (?:that is )?({'|'.join(sorted(_MEANING, key=len, reverse=True))}) ")


@dataclass(frozen=True, slots=True)
class Thing:
    """One drawn thing; places and lengths are fractions of the canvas's side, x to the right and y downwards."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    turn: float
    """The rotation in radians."""
    rgb: tuple[int, int, int]

    def outline(self) -> list[tuple[float, float]]:
        """Corners of the shape's polygon (not for a circle)."""
        return [
            (
                self.x + self.radius * (px * math.cos(self.turn) - py * math.sin(self.turn)),
                self.y + self.radius * (px * math.sin(self.turn) + py * math.cos(self.turn)),
            )
            for px, py in _POLYGONS[self.shape]
        ]

    def relations_to(self, other: "Thing") -> set[str]:
        """How this thing is placed relative to the other: "left of", "above", ..."""
        across, down = self.x - other.x, self.y - other.y
        found = {
            "left of": across < -DECIDED,
            "right of": across > DECIDED,
            "above": down < -DECIDED,
            "below": down > DECIDED,
        }
        return {relation for relation, holds in found.items() if holds}

    def is_called(self, said: dict[str, str | None]) -> bool:
        """Whether the words of a mention (size, colour, shape; None where not said) fit this thing."""
        return (
            said["shape"] in (self.shape, "shape")
            and said["colour"] in (self.colour, None)
            and said["colour_after"] in (self.colour, None)
            and said["size"] in (self.size, None)
            and said["size_after"] in (self.size, None)
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """Things on a plain ground, from left to right."""

    things: tuple[Thing, ...]
    ground: tuple[int, int, int]
    pixels: int
    """Side of the drawn image."""

    def draw(self) -> npt.NDArray[np.uint8]:
        """The image, uint8 `[pixels, pixels, 3]`, with smooth edges."""
        side = self.pixels * SUPERSAMPLING
        image = Image.new("RGB", (side, side), self.ground)
        pen = ImageDraw.Draw(image)
        for thing in self.things:
            if thing.shape == "circle":
                left, top = thing.x - thing.radius, thing.y - thing.radius
                right, bottom = thing.x + thing.radius, thing.y + thing.radius
                pen.ellipse([left * side, top * side, right * side, bottom * side], fill=thing.rgb)
            else:
                pen.polygon([(x * side, y * side) for x, y in thing.outline()], fill=thing.rgb)
        return np.array(image.reduce(SUPERSAMPLING))

    def is_true(self, caption: str) -> bool:
        """Whether the caption is in the grammar and true here; capitals and full stops do not count."""
        words = " ".join(caption.lower().rstrip(" .").split())
        words = words.removeprefix(next(filter(words.startswith, LEADS), ""))
        mentions: list[dict[str, str | None]] = []
        related: list[tuple[int, str, int]] = []  # (mention, relation, mention)
        for clause in words.split(" and "):
            first, *rest = _RELATION.split(clause)  # thing, relation, thing, ...
            if len(rest) not in (0, 2):
                return False
            if rest:
                related.append((len(mentions), _MEANING[rest[0]], len(mentions) + 1))
            for said in (first, *rest[1:]):
                match = _THING.fullmatch(said)
                if match is None:
                    return False
                mentions.append(match.groupdict())
        return any(
            all(thing.is_called(said) for thing, said in zip(things, mentions, strict=True))
            and all(relation in things[a].relations_to(things[b]) for a, relation, b in related)
            for things in permutations(self.things, len(mentions))
        )

    def layout(self) -> tuple[tuple[str, str, str, int, int], ...]:
        """Which thing is where, to a third of the canvas; two scenes with the same layout count as the same scene."""
        return tuple(
            sorted((thing.size, thing.colour, thing.shape, int(thing.x * 3), int(thing.y * 3)) for thing in self.things)
        )


def random_scene(rng: random.Random, pixels: int) -> Scene:
    """One or two things, not alike in both colour and shape, not touching, and clearly apart along an axis."""
    kinds = rng.sample([(shape, colour) for shape in SHAPES for colour in COLOURS], rng.choice((1, 2, 2)))
    sizes = [rng.choice(tuple(RADII)) for _ in kinds]
    spots = _random_spots(rng, [RADII[size] * rng.uniform(0.92, 1.08) for size in sizes])
    things = [
        Thing(shape, colour, size, *spot, rng.uniform(-0.2, 0.2), _random_shade(rng, colour))
        for (shape, colour), size, spot in zip(kinds, sizes, spots, strict=True)
    ]
    ground = (rng.randint(226, 255), rng.randint(226, 255), rng.randint(226, 255))
    return Scene(tuple(reading_order(things)), ground, pixels)


def reading_order(things: list[Thing]) -> list[Thing]:
    """Things from left to right, and those above each other from the top down.

    Captions name things in this order. With a random order nothing in the picture would tell a model which thing comes
    first; and Show, Attend and Tell chooses where to look before it knows which word it has just said.
    """
    ordered = sorted(things, key=lambda thing: thing.x)
    columns = [0]
    for left, right in pairwise(ordered):
        columns.append(columns[-1] + (right.x - left.x > DECIDED))
    return [thing for _, thing in sorted(zip(columns, ordered, strict=True), key=lambda pair: (pair[0], pair[1].y))]


def random_captions(scene: Scene, rng: random.Random, count: int) -> tuple[str, ...]:
    """Different captions that are true of the scene and name all its things."""
    captions: dict[str, None] = {}
    while len(captions) < count:
        captions[_random_caption(scene, rng)] = None
    return tuple(captions)


def _random_spots(rng: random.Random, radii: list[float]) -> list[Spot]:
    """A place for each radius, all clear of each other; if one finds no room, all are drawn again."""
    while True:
        spots: list[Spot] = []
        for _ in range(8 * len(radii)):
            radius = radii[len(spots)]
            low, high = radius + GAP, 1 - radius - GAP
            spot = (rng.uniform(low, high), rng.uniform(low, high), radius)
            if all(_clear(spot, other) for other in spots):
                spots.append(spot)
            if len(spots) == len(radii):
                return spots


def _clear(a: Spot, b: Spot) -> bool:
    """Whether two things don't touch and their relation is beyond doubt."""
    across, down = abs(a[0] - b[0]), abs(a[1] - b[1])
    decided = all(distance <= LEVEL or distance >= APART for distance in (across, down))
    return decided and math.hypot(across, down) >= a[2] + b[2] + GAP


def _random_shade(rng: random.Random, colour: str) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, value + rng.randint(-14, 14))) for value in COLOURS[colour])
    return red, green, blue


def _random_caption(scene: Scene, rng: random.Random) -> str:
    lead = rng.choice(("", "", *LEADS))
    mentions = [_random_mention(thing, rng) for thing in scene.things]
    if len(mentions) == 1 or rng.random() < 0.5:
        return lead + " and ".join(mentions)
    first, second, *others = mentions
    relation = rng.choice(sorted(scene.things[0].relations_to(scene.things[1])))
    return lead + " and ".join((f"{first} {rng.choice(WAYS_TO_SAY[relation])} {second}", *others))


def _random_mention(thing: Thing, rng: random.Random) -> str:
    return f"a {thing.size} {thing.colour} {thing.shape}" if rng.random() < 0.5 else f"a {thing.colour} {thing.shape}"


def _star() -> list[tuple[float, float]]:
    corners = []
    for number in range(10):
        length = 1.1 if number % 2 == 0 else 0.46
        angle = math.pi * number / 5
        corners.append((length * math.sin(angle), -length * math.cos(angle)))
    return corners


# Corners for a radius of 1 about the middle.
_POLYGONS: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": [(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)],
    "star": _star(),
    "cross": [
        (-0.33, -1.0), (0.33, -1.0), (0.33, -0.33), (1.0, -0.33), (1.0, 0.33), (0.33, 0.33),
        (0.33, 1.0), (-0.33, 1.0), (-0.33, 0.33), (-1.0, 0.33), (-1.0, -0.33), (-0.33, -0.33),
    ],
}  # fmt: skip
