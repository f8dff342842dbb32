"""An image is itself, whatever it is called: no format lets one take the place or the captions of another."""

import io
import json
import tarfile
from pathlib import Path
from unicodedata import normalize

import pytest
from PIL import Image

from showtell import data
from showtell.data import Dataset
from showtell.errors import DataError


def draw(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((8, 8 + 8 * number), 64).convert("RGB").save(folder / name)


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def told(dataset: Dataset) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {example.image_id: (example.split, example.captions) for example in dataset.examples}


def coco(images: dict[int, str], captions: dict[int, str]) -> dict[str, object]:
    return {
        "images": [{"id": number, "file_name": name} for number, name in images.items()],
        "annotations": [{"image_id": number, "caption": caption} for number, caption in captions.items()],
    }


def test_coco_ids_that_restart_in_each_file_are_kept_apart(tmp_path: Path) -> None:
    """The val file's image 1 took the place of train's, with train's caption."""
    draw(tmp_path / "train", "t1.jpg", "t2.jpg")
    draw(tmp_path / "val", "v1.jpg")
    write(tmp_path / "annotations/captions_train.json", coco({1: "t1.jpg", 2: "t2.jpg"}, {1: "red", 2: "green"}))
    write(tmp_path / "annotations/captions_val.json", coco({1: "v1.jpg"}, {1: "blue"}))
    for photos in (True, False):
        dataset = data.load(f"coco:{tmp_path}", photos=photos)
        assert told(dataset) == {
            "train/1": ("train", ("red",)),
            "train/2": ("train", ("green",)),
            "val/1": ("dev", ("blue",)),
        }
        assert "Ids restart in each file: images are called FILE/ID, such as train/1." in dataset.notes
    assert list(data.read_references(f"coco:{tmp_path}", "dev").captions) == ["val/1"]


def test_a_coco_image_in_two_files_is_refused(tmp_path: Path) -> None:
    """In train and in val it would be trained and tested on."""
    draw(tmp_path / "images", "a.jpg", "b.jpg")
    write(tmp_path / "captions_train.json", coco({1: "a.jpg", 2: "b.jpg"}, {1: "red", 2: "green"}))
    write(tmp_path / "captions_val.json", coco({7: "a.jpg"}, {7: "red"}))
    with pytest.raises(DataError, match=r"a\.jpg is in captions_train\.json and in captions_val\.json\. Remove it"):
        data.load(f"coco:{tmp_path}")


def test_an_id_of_two_images_in_one_coco_file_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, "a.jpg", "b.jpg")
    content = coco({1: "a.jpg"}, {1: "red"})
    content["images"] = [{"id": 1, "file_name": "a.jpg"}, {"id": "1", "file_name": "b.jpg"}]
    file = write(tmp_path / "c.json", content)
    for load in (data.load, data.read_references):
        with pytest.raises(DataError, match=r"image 1 is both a\.jpg and b\.jpg\. Give each image its own id"):
            load(f"coco:{file}")
    with pytest.raises(DataError, match="image 1 is"):
        data.read_references(file)


def test_coco_says_which_captions_have_no_image(tmp_path: Path) -> None:
    draw(tmp_path, "a.jpg")
    file = write(tmp_path / "c.json", coco({1: "a.jpg"}, {1: "red", 2: "lost"}))
    assert "Captions left out because their image has no file name: 1." in data.load(f"coco:{file}").notes


def test_coco_takes_a_test_file_too_and_says_what_it_passes_over(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        draw(tmp_path / split, f"{number}.jpg")
        write(tmp_path / f"annotations/captions_{split}.json", coco({number: f"{number}.jpg"}, {number: split}))
    write(tmp_path / "annotations/captions_extra.json", {})
    dataset = data.load(f"coco:{tmp_path}")
    assert [example.split for example in dataset.examples] == ["test", "train", "dev"]
    assert dataset.notes == ("Caption files that were ignored: captions_extra.json.", "COCO's val is the dev split.")


def karpathy(*images: tuple[str, str, str, str]) -> dict[str, object]:
    fields = ("filepath", "filename", "split")
    return {"images": [dict(zip(fields, image, strict=False)) | {"sentences": [{"raw": image[3]}]} for image in images]}


def test_karpathy_names_of_two_folders_are_two_images(tmp_path: Path) -> None:
    draw(tmp_path, "a/1.jpg", "b/1.jpg")
    file = write(tmp_path / "k.json", karpathy(("a", "1.jpg", "train", "red"), ("b", "1.jpg", "test", "blue")))
    dataset = data.load(f"karpathy:{file},{tmp_path}")
    assert told(dataset) == {"a/1.jpg": ("train", ("red",)), "b/1.jpg": ("test", ("blue",))}
    assert [str(example.path) for example in dataset.examples] == [f"{tmp_path}/a/1.jpg", f"{tmp_path}/b/1.jpg"]


def test_karpathy_ids_of_two_images_are_refused(tmp_path: Path) -> None:
    content = karpathy(("", "1.jpg", "train", "red"), ("", "1.jpg", "test", "blue"))
    with pytest.raises(DataError, match=r"image 1\.jpg is .* in train, and .* in test\. Give each image its own id"):
        data.load(f"karpathy:{write(tmp_path / 'k.json', content)},{tmp_path}")
    for number, image in enumerate(content["images"]):  # type: ignore[arg-type, var-annotated]
        image |= {"cocoid": 7, "filename": f"{number}.jpg", "split": "train"}
    with pytest.raises(DataError, match="image 7 is"):
        data.load(f"karpathy:{write(tmp_path / 'k.json', content)},{tmp_path}")


def test_flickr30k_uses_the_split_files_that_are_there(tmp_path: Path) -> None:
    draw(tmp_path / "Images", "1.jpg", "2.jpg")
    write(tmp_path / "results_20130124.token", "1.jpg#0\tA\n2.jpg#0\tB\n")
    write(tmp_path / "train.txt", "1\n")
    write(tmp_path / "test.txt", "2\n")
    dataset = data.load(f"flickr30k:{tmp_path}")
    assert told(dataset) == {"1.jpg": ("train", ("A",)), "2.jpg": ("test", ("B",))}
    assert dataset.notes == ("There is no val.txt.",)
    write(tmp_path / "val.txt", "2\n")
    with pytest.raises(DataError, match=r"test\.txt has 2\.jpg, which is in the dev split too"):
        data.load(f"flickr30k:{tmp_path}")


def test_names_of_a_table_are_one_image_in_any_spelling(tmp_path: Path) -> None:
    """é as one letter and as two, `./` and a backslash: the captions of one photo must not come into two splits."""
    composed, split = normalize("NFC", "im/café.jpg"), normalize("NFD", "im/café.jpg")
    draw(tmp_path, split)
    rows = [composed, split, f"./{composed}", composed.replace("/", "\\")]
    file = write(tmp_path / "t.csv", "image,caption\n" + "".join(f"{name},{n}\n" for n, name in enumerate(rows)))
    dataset = data.load(f"table:{file}")
    assert told(dataset) == {composed: ("train", ("0", "1", "2", "3"))}
    assert dataset.examples[0].read().shape == (8, 8, 3)


def test_a_text_beside_a_photo_in_another_spelling(tmp_path: Path) -> None:
    draw(tmp_path, normalize("NFD", "café.jpg"), "b.jpg")
    write(tmp_path / normalize("NFC", "café.txt"), "A cup")
    write(tmp_path / "b.TXT", "Two")
    write(tmp_path / "b.txt", "One")
    dataset = data.load(f"folder:{tmp_path}")
    assert sorted(captions for _, captions in told(dataset).values()) == [("A cup",), ("Two", "One")]


def test_images_outside_the_split_folders_do_not_slip_into_training(tmp_path: Path) -> None:
    for folder in ("train", "test", "more"):
        draw(tmp_path / folder, "a.jpg")
        write(tmp_path / folder / "a.txt", "A")
    dataset = data.load(f"folder:{tmp_path}")
    assert {image_id: split for image_id, (split, _) in told(dataset).items()} == {
        "test/a.jpg": "test",
        "train/a.jpg": "train",
    }
    assert "Images left out because they are not in a folder of a split: 1." in dataset.notes


def tar(path: Path, **texts: str) -> Path:
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "JPEG")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for key, text in texts.items():
            for name, content in ((f"{key}.jpg", image.getvalue()), (f"{key}.txt", text.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return path


def test_keys_of_two_shards_are_two_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also where one shard is named from here and one from the root."""
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path_factory.mktemp("cache")))
    pytest.importorskip("braceexpand")
    monkeypatch.chdir(tmp_path)
    tar(Path("here/train.tar"), a="red")
    there = tar(tmp_path / "there/test.tar", a="blue")
    dataset = data.load(f"shards:here/train.tar::{there}")
    assert sorted(captions for _, captions in told(dataset).values()) == [("blue",), ("red",)]


def test_names_of_two_images_in_a_hugging_face_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two folders, or of two sizes, they are two images; an id that is null is none."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    draw(tmp_path / "d" / "train", "a/1.png", "b/1.png")
    lines = [{"file_name": f"{folder}/1.png", "text": folder} for folder in "aab"]
    write(tmp_path / "d/train/metadata.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    found = told(data.load(f"hub:{tmp_path}/d"))
    assert {image_id: captions for image_id, (_, captions) in found.items()} == {
        "a/1.png": ("a", "a"),
        "b/1.png": ("b",),
    }
    rows = [{"file_name": f"{f}/1.png", "text": f, "image_id": number} for f, number in zip("ab", (7, 7), strict=True)]
    write(tmp_path / "d/train/metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    dataset = data.load(f"hub:{tmp_path}/d")
    assert [captions for _, captions in told(dataset).values()] == [("a",), ("b",)]
    assert "Images with the same name as another one: 1; they are told apart by their size." in dataset.notes


def test_two_values_of_one_key_are_refused(tmp_path: Path) -> None:
    """Python's reader keeps the later one and says nothing."""
    file = write(tmp_path / "r.json", '{"1": ["a dog"], "2": ["a cat"], "1": ["a bird"]}')
    with pytest.raises(DataError, match=r"r\.json has the key '1' twice in one object\. Give it one value"):
        data.read_references(file)


def test_a_file_that_two_names_stand_for_is_one_image(tmp_path: Path) -> None:
    """It was in train and in test: `im/../a.jpg` is a.jpg, and a COCO or Karpathy file may give a photo two ids."""
    draw(tmp_path, "a.jpg", "b.jpg")
    rows = f"a.jpg,one,train\n./x/../a.jpg,two,test\n{tmp_path}/a.jpg,three,dev\nb.jpg,four,test\n"
    dataset = data.load(f"table:{write(tmp_path / 't.csv', 'image,caption,split' + chr(10) + rows)}")
    assert told(dataset) == {"a.jpg": ("train", ("one", "two", "three")), "b.jpg": ("test", ("four",))}
    assert dataset.notes == ("Further names of the same file, which count as one image: 2, such as x/../a.jpg.",)
    file = write(tmp_path / "c.json", coco({1: "a.jpg", 2: "a.jpg", 3: "b.jpg"}, {1: "red", 2: "rot", 3: "blue"}))
    assert {i: captions for i, (_, captions) in told(data.load(f"coco:{file}")).items()} == {
        "1": ("red", "rot"),
        "3": ("blue",),
    }
    images = [
        {"cocoid": number, "filename": name, "split": split, "sentences": [{"raw": name}]}
        for number, name, split in ((1, "a.jpg", "train"), (2, "a.jpg", "test"), (3, "b.jpg", "val"))
    ]
    file = write(tmp_path / "k.json", {"images": images})
    assert told(data.load(f"karpathy:{file},{tmp_path}")) == {
        "1": ("train", ("a.jpg", "a.jpg")),
        "3": ("dev", ("b.jpg",)),
    }


def test_the_automatic_split_is_of_files(tmp_path: Path) -> None:
    """Of ids, a file's second one may have been all of dev, and is no image."""
    draw(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    for number in range(8):
        ids = {number * 6 + n: f"{'abc'[n % 3]}.jpg" for n in range(6)}
        file = write(tmp_path / "c.json", coco(ids, dict.fromkeys(ids, "red")))
        assert data.load(f"coco:{file}").splits == ("train", "dev", "test")
        rows = "".join(f"{'./x/../' * (n > 2)}{name},red {number}\n" for n, name in enumerate(ids.values()))
        table = write(tmp_path / "t.csv", f"image,caption\n{rows}")
        assert data.load(f"table:{table}").splits == ("train", "dev", "test")
