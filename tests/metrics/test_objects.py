"""Invented objects, in the manner of CHAIR: what a caption names and no person does."""

import pytest

from showtell.metrics.objects import OBJECTS, invented, objects_in


@pytest.mark.parametrize(
    ("caption", "objects"),
    [
        ("a man rides a horse next to two dogs", {"person", "horse", "dog"}),
        ("two young ladies with knives", {"person", "knife"}),
        ("a hot dog on a bench", {"hot dog", "bench"}),
        ("hot dogs", {"hot dog"}),
        ("a baby elephant", {"elephant"}),
        ("a baby", {"person"}),
        ("a teddy bear on a bed", {"teddy bear", "bed"}),
        ("people at a train station", {"person"}),
        ("a red stop sign under a traffic light", {"stop sign", "traffic light"}),
        ("a bus stop with buses", {"bus"}),
        ("a bathroom with a toilet and toilet paper", {"toilet"}),
        ("a man in an orange vest", {"person"}),
        ("slices of an orange", {"orange"}),
        ("the sky", set()),
        ("", set()),
    ],
)
def test_names(caption: str, objects: set[str]) -> None:
    assert objects_in(caption) == objects


def test_there_are_cocos_eighty() -> None:
    assert len([line for line in OBJECTS.splitlines() if ":" in line]) == 80
    assert all(line.split(":")[0] in objects_in(line.split(":")[0]) for line in OBJECTS.splitlines() if ":" in line)


def test_shares() -> None:
    candidates = ["a man with a dog", "a dog", "a cat on a bed", "grass"]
    references = [["a woman"], ["a puppy", "a boy with a dog"], ["a room with a bed"], ["a field"]]
    found = invented(candidates, references)
    assert found.captions == 2 / 4  # the dog of the first, the cat
    assert found.objects == 2 / 5
    assert found.person == 0 / 2  # on the last two photos nobody saw one
    assert found.dog == 1 / 3
    nothing = invented(["grass"], [["a man and his dog"]])
    assert (nothing.captions, nothing.objects, nothing.person, nothing.dog) == (0, None, None, None)
