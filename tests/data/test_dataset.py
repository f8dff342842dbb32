"""Several data sets as one: whose a photo is, what is held out, and how often a pass shows it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from showtell.data import joined, load
from showtell.errors import UsageError


def photo(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)).save(path)


def table(folder: Path, splits: dict[str, int]) -> str:
    """A table of photos whose seeds are given, of the splits that their names begin with."""
    for name, seed in splits.items():
        photo(folder / f"{name}.png", seed)
    lines = [f"{name}.png,a photo of {name},{name.split('-')[0]}" for name in splits]
    (folder / "photos.csv").write_text("\n".join(["image,caption,split", *lines]))
    return f"table:{folder / 'photos.csv'}"


def test_ids_that_two_have_are_parted(tmp_path: Path) -> None:
    specs = [table(tmp_path / name, {"train-1": n, "dev-1": 10 + n}) for n, name in enumerate("ab")]
    both = joined([load(spec) for spec in specs])
    assert [example.dataset for example in both.examples] == ["photos.csv-1"] * 2 + ["photos.csv-2"] * 2
    assert len({example.image_id for example in both.examples}) == 4
    assert {example.image_id.split("/")[0] for example in both.split("dev")} == {"photos.csv-1", "photos.csv-2"}
    assert both.name == "photos.csv-1+photos.csv-2"


def test_one_is_left_as_it_is(tmp_path: Path) -> None:
    alone = load(table(tmp_path / "a", {"train-1": 0, "dev-1": 1}))
    assert joined([alone]) is alone


def test_a_photo_that_one_holds_out_teaches_in_none(tmp_path: Path) -> None:
    first = load(table(tmp_path / "a", {"train-1": 1, "train-2": 2, "dev-1": 3}))
    second = load(table(tmp_path / "b", {"train-3": 3, "train-4": 4, "test-1": 2}))
    both = joined([first, second])
    assert [example.name for example in both.split("train")] == ["train-1.png", "train-4.png"]
    assert any("has them in dev or test: 2." in note for note in both.notes)
    assert len(both.split("dev")) == len(both.split("test")) == 1


def test_times_stand_at_the_end_of_a_spec(tmp_path: Path) -> None:
    spec = table(tmp_path / "a", {"train-1": 0, "dev-1": 1})
    assert {example.times for example in load(f"{spec},times=2.5").examples} == {2.5}
    assert {example.times for example in load(spec).examples} == {1.0}
    assert len(load("shapes:30,seed=3,times=2").examples) == 30
    with pytest.raises(UsageError, match="times=0' shows no image"):
        load(f"{spec},times=0")
