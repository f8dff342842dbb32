"""What is a caption, in every reader: a text, a list, a list as a text; and never the words None and nan."""

import json
from pathlib import Path

import pytest
from PIL import Image

from showtell import data
from showtell.data import read_predictions, read_references
from showtell.data.captions import captions_of
from showtell.errors import DataError


def put(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def photos(folder: Path, *names: str) -> None:
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / name)


@pytest.mark.parametrize(
    ("value", "captions"),
    [
        ("a dog", ["a dog"]),
        (["a dog", "a cat"], ["a dog", "a cat"]),
        ('["a dog", "a cat"]', ["a dog", "a cat"]),
        ("['a dog', 'a cat']", ["a dog", "a cat"]),
        ("""['a dog', "the dog's bone"]""", ["a dog", "the dog's bone"]),
        ("['a dog'\n 'a cat']", ["a dog", "a cat"]),  # NumPy's
        ("('a dog', 'a cat')", ["a dog", "a cat"]),
        ("['it\\'s', None, nan]", ["it's", "", ""]),
        ('["a dog", null, 5]', ["a dog", "", ""]),
        ({"image_id": 1, "caption": "a dog"}, ["a dog"]),
        ([{"raw": "a dog", "tokens": ["a", "dog"]}, {"caption": "a cat"}], ["a dog", "a cat"]),
        ("[inaudible] dog [sic]", ["[inaudible] dog [sic]"]),
        ("('stop', it says)", ["('stop', it says)"]),
        ([], []),
        ("[]", []),
        *((nothing, [""]) for nothing in (None, float("nan"), 3, True, "", " NaN ", "None", "null", "n/a", {})),
    ],
)
def test_what_a_cell_holds(value: object, captions: list[str]) -> None:
    assert captions_of(value) == captions


def test_a_list_that_is_none_is_refused_with_its_place() -> None:
    with pytest.raises(DataError, match=r"t\.csv, row 2: .*a dog.* begins like a list.* Write lists as JSON"):
        captions_of("""['a dog', 'a cat" 'x']""", "t.csv, row 2")


NULLS = [None, float("nan"), "", "NaN", 5, "a dog"]


def test_null_captions_are_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In each format; an image that has no other caption is left out too, and counted itself."""
    photos(tmp_path, "1.jpg", "2.jpg")
    rows = [*((1, caption) for caption in NULLS), (2, None)]
    coco = put(
        tmp_path / "coco.json",
        {
            "images": [{"id": n, "file_name": f"{n}.jpg"} for n in (1, 2)],
            "annotations": [{"image_id": n, "caption": caption} for n, caption in rows],
        },
    )
    sentences = [{"raw": caption, "tokens": []} for caption in NULLS]
    karpathy = put(tmp_path / "k.json", {"images": [{"filename": "1.jpg", "split": "train", "sentences": sentences}]})
    table = put(tmp_path / "t.jsonl", json.dumps({"image": "1.jpg", "captions": NULLS}))
    for spec in (f"coco:{coco},{tmp_path}", f"karpathy:{karpathy},{tmp_path}", f"table:{table}"):
        dataset = data.load(spec)
        assert [example.captions for example in dataset.examples] == [("a dog",)], spec
        assert "Captions left out because they are empty, null or not text: 5." in dataset.notes, spec
    assert "Images left out because they have no caption: 1." in data.load(f"coco:{coco},{tmp_path}").notes
    for source in (coco, table, put(tmp_path / "map.json", {"1": NULLS})):
        references = read_references(source)
        assert references.captions["1.jpg" if source == table else "1"] == ["a dog"]
        assert references.notes[0].endswith(f"null or not text: {6 if source == coco else 5}.")


def test_null_captions_in_csv_and_texts(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    file = put(tmp_path / "t.csv", "image,caption\n1.jpg,a dog\n1.jpg,nan\n2.jpg,None\n")
    dataset = data.load(f"table:{file}")
    assert [example.captions for example in dataset.examples] == [("a dog",)]
    assert dataset.notes[0] == "Rows left out because they lack an image or a caption: 2."
    put(tmp_path / "1.txt", "a dog\n\nnull\n['a cat', 'cats']\n")
    dataset = data.load(f"folder:{tmp_path}")
    assert [example.captions for example in dataset.examples] == [("a dog", "a cat", "cats")]
    assert "Captions left out because they are empty, null or not text: 1." in dataset.notes


def test_null_predictions_are_left_out_and_counted(tmp_path: Path) -> None:
    """An empty one is a caption, and scores 0."""
    rows = [{"image_id": n, "caption": caption} for n, caption in enumerate(NULLS)] + [{"image_id": 9}]
    found = read_predictions(put(tmp_path / "p.json", rows))
    assert found.captions == {"2": "", "5": "a dog"}
    assert found.spare == 0
    assert found.notes[0].endswith("captions left out because they are null or not text: 5.")


def test_references_and_results_as_the_official_code_has_them(tmp_path: Path) -> None:
    """`gts` and `res` of pycocoevalcap: image -> a list of objects."""
    gts = {"42": [{"image_id": 42, "id": 1, "caption": "a red ball"}, {"caption": "the ball"}], "43": {"caption": "b"}}
    assert read_references(put(tmp_path / "gts.json", gts)).captions == {"42": ["a red ball", "the ball"], "43": ["b"]}
    res = {"42": [{"image_id": 42, "caption": "a ball"}], "43": [{"caption": ""}]}
    assert read_predictions(put(tmp_path / "res.json", res)).captions == {"42": "a ball", "43": ""}


def test_lists_as_text_in_references_and_predictions(tmp_path: Path) -> None:
    file = put(tmp_path / "t.csv", "image,captions\n1,\"['a dog', 'a cat']\"\n")
    assert read_references(file).captions == {"1": ["a dog", "a cat"]}
    assert read_predictions(file).captions == {"1": "a dog"}
    broken = put(tmp_path / "b.csv", "image,captions\n1,x\n2,\"['a dog', 'a cat'x']\"\n")
    for read in (read_references, read_predictions, lambda file: data.load(f"table:{file}", photos=False)):
        with pytest.raises(DataError, match=r"b\.csv, row 2: .* begins like a list"):
            read(broken)
