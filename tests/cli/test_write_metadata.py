"""`showtell caption --write-metadata`: which photos get a description, and what is said of the others."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from showtell.cli import main
from showtell.results.metadata import description_of, with_description, xmp
from tests.fake_model import picture, save_fake_model, use_fake_engine

pytest.importorskip("exiv2", reason="the extra 'metadata' is not installed")

RED, LIME, BLUE = (f"a {colour} picture of nothing" for colour in ("red", "green", "blue"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in: a model `m`, and a photo of each format that can hold a description."""
    monkeypatch.chdir(tmp_path)
    use_fake_engine(monkeypatch)
    save_fake_model(tmp_path / "m")
    (tmp_path / "photos").mkdir()
    picture("red").save("photos/a.jpg", quality=95)
    picture("lime").save("photos/b.png")
    picture("blue").save("photos/c.webp", lossless=True)
    return tmp_path


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["caption", "-m", "m", *map(str, arguments)])
    return code, *capsys.readouterr()


def said(name: str) -> str:
    return description_of(Path(name).read_bytes())


def test_captions_are_written_and_printed(place, capsys):
    before = {path.name: path.read_bytes() for path in Path("photos").iterdir()}
    code, out, error = run(capsys, "photos", "--write-metadata")
    assert (code, error) == (0, "showtell: 3 described.\n")
    assert out == f"photos/a.jpg\t{RED}\nphotos/b.png\t{LIME}\nphotos/c.webp\t{BLUE}\n"
    assert [said("photos/a.jpg"), said("photos/b.png"), said("photos/c.webp")] == [RED, LIME, BLUE]
    assert {name: Path(f"photos/{name}_original").read_bytes() for name in before} == before
    # The originals are no photos of the folder: the second run captions three, not six.
    code, out, error = run(capsys, "photos", "--write-metadata")
    assert (code, len(out.splitlines())) == (0, 3)
    assert "0 described, 3 had a description already (--replace-description overwrites it)." in error


def test_the_best_of_several_captions(place, capsys):
    assert run(capsys, "photos/a.jpg", "--write-metadata", "-n", "3")[0] == 0
    assert said("photos/a.jpg") == RED


def test_own_description_stays_unless_told_otherwise(place, capsys):
    photo = Path("photos/b.png")
    photo.write_bytes(with_description(photo.read_bytes(), "grandmother in Lisbon"))
    run(capsys, photo, "--write-metadata")
    assert said(photo) == "grandmother in Lisbon"
    run(capsys, photo, "--write-metadata", "--replace-description", "--no-original")
    assert said(photo) == LIME
    assert not Path("photos/b.png_original").exists()


def test_other_formats_are_captioned_and_the_rest_goes_on(place, capsys, monkeypatch):
    picture("red").save("photos/aa.gif")
    code, out, error = run(capsys, "photos", "--write-metadata")
    assert (code, len(out.splitlines())) == (1, 4)
    assert "photos/aa.gif is neither JPEG, PNG nor WebP; only these can hold a description." in error
    assert "3 described, 1 could not be described." in error


def test_stdin_has_no_file(place, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path("photos/a.jpg").read_bytes())))
    code, out, error = run(capsys, "-", "--write-metadata")
    assert (code, out) == (1, f"-\t{RED}\n")
    assert "- is not a file of its own, so it can't be given a description." in error


def test_the_members_of_a_shard_have_no_file_of_their_own(place, capsys):
    with tarfile.open("shard.tar", "w") as shard:
        shard.add("photos/a.jpg")
    before = Path("shard.tar").read_bytes()
    code, out, error = run(capsys, "shard.tar", "--write-metadata")
    assert (code, out) == (1, f"shard.tar/photos/a.jpg\t{RED}\n")
    assert "shard.tar/photos/a.jpg is not a file of its own, so it can't be given a description." in error
    assert Path("shard.tar").read_bytes() == before


@pytest.mark.parametrize("option", ["--replace-description", "--no-original"])
def test_how_to_write_without_writing(place, capsys, option):
    code, out, error = run(capsys, "photos", option)
    assert (code, out) == (2, "")
    assert "--replace-description and --no-original say how to write metadata. Add --write-metadata." in error


def test_missing_library_is_told_before_the_work(place, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "exiv2", None)
    xmp.exiv2_library.cache_clear()
    code, out, error = run(capsys, "photos", "--write-metadata")
    assert (code, out) == (2, "")
    assert "Writing descriptions into photos needs packages that are not installed." in error
    assert "pip install 'showtell[metadata]'" in error


def test_description_is_written_before_the_row(place, capsys, monkeypatch):
    """A run that is killed between the two describes again; the other way round --resume would leave the photo out."""

    def unplugged(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("showtell.results.outputs.RowOutput.write", unplugged)
    run(capsys, "photos/a.jpg", "--write-metadata", "-o", "x.jsonl")
    assert said("photos/a.jpg") == RED
    assert Path("x.jsonl").read_text() == ""


def test_described_photos_open_as_before(place, capsys):
    pixels = {path: Image.open(path).tobytes() for path in Path("photos").iterdir()}
    run(capsys, "photos", "--write-metadata")
    assert {path: Image.open(path).tobytes() for path in pixels} == pixels
