"""The one walk through folders: what is found, what is passed over and said, and what two names of one thing are."""

import os
import re
import sys
import tarfile
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell import data
from showtell.cli import main
from showtell.errors import DataError, ImageError
from showtell.images import storage
from showtell.images.names import as_on_disk, printable, writable
from showtell.images.sources import Finder, find_images
from showtell.images.urls import Unanswered
from tests.data.web_server import Behaviour, web_server
from tests.fake_model import picture, save_fake_model, use_fake_engine


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def found(*asked: str) -> tuple[list[str], str]:
    images, finder = find_images(asked)
    assert not finder.problems
    return [image.name for image in images], finder.passed_over()


SYSTEM = [
    *("@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN", "RECYCLER", "System Volume Information"),
    *(".Trash-1000", ".Trashes", ".thumbnails", ".@__thumb", "__MACOSX", "lost+found", "FOUND.000"),
]


@pytest.mark.parametrize("asked", ["p", "p/**/*", "."])
def test_what_systems_keep_for_themselves_is_passed_over_and_said(place, asked):
    """A NAS has thumbnails of every photo in @eaDir; deleted photos lie in bins."""
    touch("p/a.jpg", "p/trip/b.jpg", *(f"p/trip/{folder}/x.jpg" for folder in SYSTEM), "p/._a.jpg", "p/.DS_Store")
    names, said = found(asked)
    assert names == ["p/a.jpg", "p/trip/b.jpg"]
    if asked != "p/**/*":  # which does not match hidden files
        folders = f"{len(SYSTEM)} hidden or system folders (p/trip/#recycle, ...)"
        assert said == f"Skipped: 1 hidden file (p/._a.jpg), {folders}."
    assert said.startswith("Skipped: ")


@pytest.mark.parametrize("asked", ["p/@eaDir", "p/@eaDir/*.jpg", "p/.b/x.jpg", "p/@eaDir/.x.jpg"])
def test_what_is_named_is_not_passed_over(place, asked):
    touch("p/@eaDir/x.jpg", "p/.b/x.jpg", "p/@eaDir/.x.jpg")
    assert len(found(asked)[0]) == 1


def test_linked_albums_are_gone_through_once(place):
    """Under the folder's own name where it has one there; and a link upwards is no endless walk."""
    touch("ph/b.jpg", "ph/z/1.jpg", "real/a.jpg")
    for link, to in (("album", "../real"), ("best", "z"), ("loop", "."), ("z/up", ".."), ("self", "self")):
        Path("ph", link).symlink_to(to)
    Path("ph/lost.jpg").symlink_to("nothing.jpg")
    assert found("ph") == (["ph/b.jpg", "ph/lost.jpg", "ph/z/1.jpg", "ph/album/a.jpg"], "")
    assert found("ph", "real", "ph/z")[0] == found("ph")[0]
    assert found("ph/album")[0] == ["ph/album/a.jpg"]
    assert found("ph/**/*.jpg")[0] == ["ph/album/a.jpg", "ph/b.jpg", "ph/lost.jpg", "ph/z/1.jpg"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
@pytest.mark.parametrize("asked", ["p", "p/*"])
def test_a_pipe_in_a_folder_is_passed_over(place, asked):
    """Whoever opened it would wait for ever."""
    touch("p/a.jpg")
    os.mkfifo("p/pipe.jpg")
    assert found(asked) == (["p/a.jpg"], "Skipped: 1 pipe or device (p/pipe.jpg).")


def test_a_folder_of_others_photos_only_holds_none(place, capsys):
    touch("p/@eaDir/x.jpg")
    _, finder = find_images(["p"])
    assert [str(problem).partition(" Images")[0] for problem in finder.problems] == ["p: no image in this folder."]
    assert finder.passed_over() == "Skipped: 1 hidden or system folder (p/@eaDir)."


def test_the_command_says_once_what_was_passed_over(place, monkeypatch, capsys):
    use_fake_engine(monkeypatch)
    save_fake_model(place / "m")
    touch("p/@eaDir/x.jpg", "q/@eaDir/x.jpg")
    for folder in "pq":
        picture("red").save(f"{folder}/a.png")
    assert main(["caption", "-m", "m", "p", "q"]) == 0
    assert capsys.readouterr().err == "showtell: Skipped: 2 hidden or system folders (p/@eaDir, ...).\n"


def test_a_data_set_of_a_folder_passes_over_the_same(place):
    for name in ("a", "@eaDir/a", "b"):
        touch(f"d/{name}.txt")
        picture("red").save(f"d/{name}.png")
        Path(f"d/{name}.txt").write_text("a dog")
    dataset = data.load("folder:d")
    assert [example.image_id for example in dataset.examples] == ["a.png", "b.png"]
    assert "Skipped: 1 hidden or system folder (d/@eaDir)." in dataset.notes


# ------------------------------------------------------------------------------------------------ names

FORMS = [("NFC", "NFD"), ("NFD", "NFC")]


@pytest.mark.parametrize(("typed", "stored"), FORMS)
def test_a_name_is_found_in_either_unicode_form(place, typed, stored):
    """Photos from a Mac's zip, captions typed elsewhere; a folder's name, too."""
    name = "é/café.png"
    touch(normalize(stored, name), "é.txt")
    assert list(as_on_disk([Path(normalize(typed, name)), Path("é/x.png")])) == [Path(normalize(stored, name)), None]
    assert found(normalize(typed, name))[0] == [normalize(stored, name)]
    assert found(normalize(typed, "é"))[0] == [normalize(stored, name)]
    Path("t.csv").write_text(normalize(typed, f"image,caption\n{name},a dog\n"))
    dataset = data.load("table:t.csv")
    assert (len(dataset.examples), dataset.missing) == (1, ())
    assert dataset.examples[0].image_id == normalize("NFC", name)


def test_two_files_whose_names_differ_in_form_only_stay_two(place):
    names = [normalize(form, "é.png") for form in ("NFC", "NFD")]
    touch(*names)
    if len(list(place.iterdir())) == 2:
        assert list(as_on_disk(map(Path, names))) == [Path(name) for name in names]


def test_names_are_written_so_that_two_stay_two():
    assert writable(os.fsdecode(b"caf\xe8.jpg")) == r"caf\xe8.jpg"
    assert printable("a\tb\x1b\u2028.jpg") == r"a\x09b\x1b\u2028.jpg"
    assert writable(r"C:\photos\new\x.jpg") == printable(r"C:\photos\new\x.jpg") == r"C:\photos\new\x.jpg"
    assert writable("café 😀.jpg") == printable("café 😀.jpg") == "café 😀.jpg"


@given(st.lists(st.sampled_from([b"a", b"\\", b"x", b"5c", b"e9", b"\xe9", b"u00a0", "\xa0".encode(), b"\n", b"n"])))
def test_a_written_name_is_of_one_file(parts):
    """`caf\xe9.jpg` may be what a byte looks like, or a name that somebody gave."""
    name = os.fsdecode(b"".join(parts))
    kinds = r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})"

    def unescaped(found):
        return bytes([int(found[1], 16)]) if found[1] else chr(int(found[2], 16)).encode()

    for written in (writable(name), printable(name)):
        read = b"".join(
            unescaped(found) if (found := re.fullmatch(kinds, piece)) else piece.encode()
            for piece in re.split(rf"({kinds.replace('(', '(?:')})", written)
        )
        assert os.fsdecode(read) == name


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems hold Unicode only")
@pytest.mark.parametrize("output", ["out.txt", "out.jsonl", "out.csv", "out.tsv", "out.tar"])
def test_names_that_print_alike_are_two_images_to_resume(place, monkeypatch, capsys, output):
    """One key for two photos: the second never got a row, or the finished file was refused."""
    use_fake_engine(monkeypatch)
    save_fake_model(place / "m")
    Path("p").mkdir()
    for name in (b"caf\xe8.png", b"caf\xe9.png", b"a\tb.png", b"a\x01b.png", rb"caf\xe9.png", b"a\rb.png"):
        picture("red").save(Path("p", os.fsdecode(name)))
    whole = f"whole{Path(output).suffix}"
    assert main(["caption", "-m", "m", "p", "-o", whole, "--batch-size", "1"]) == 0
    content = Path(whole).read_bytes()
    for share in (1.0, 0.7, 0.4):
        Path(output).write_bytes(content[: int(share * len(content))])
        assert main(["caption", "-m", "m", "p", "-o", output, "--resume", "--batch-size", "1"]) == 0
        assert Path(output).read_bytes() == content


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems hold Unicode only")
@pytest.mark.parametrize("spec", ["folder:d", "shards:d.tar"])
def test_image_ids_of_a_data_set_can_be_written(place, spec):
    """Predictions, a feature cache and logs are UTF-8: such a name ended an evaluation when all was done."""
    Path("d").mkdir()
    for name in (b"caf\xe8", b"caf\xe9"):
        picture("red").save(Path("d", os.fsdecode(name + b".png")))
        Path("d", os.fsdecode(name + b".txt")).write_text("a dog")
    with tarfile.open("d.tar", "w") as tar:
        for file in sorted(Path("d").iterdir()):
            tar.add(file, file.name)
    ids = [example.image_id for example in data.load(spec).examples]
    assert [image_id.removesuffix(".png") for image_id in ids] == [r"caf\xe8", r"caf\xe9"]
    assert [example.read(at_least=8).shape for example in data.load(spec).examples] == [(12, 12, 3)] * 2


# ------------------------------------------------------------------------------------------------ trying again


@pytest.mark.parametrize(
    ("error", "tries", "raised"),
    [
        (OSError("reset"), storage.TRIES, DataError),
        (ValueError("of a library"), storage.TRIES, DataError),
        (Unanswered("503"), storage.TRIES, Unanswered),
        (ImageError("404"), 1, ImageError),
        (FileNotFoundError("x"), 1, FileNotFoundError),
        (PermissionError(13, "no"), 1, PermissionError),
    ],
)
def test_only_what_may_pass_is_tried_again(monkeypatch, error, tries, raised):
    monkeypatch.setattr(storage, "PAUSE", 0.0)
    asked = []

    def ask() -> None:
        asked.append(1)
        raise error

    with pytest.raises(raised):
        storage.retried("x", ask)
    assert len(asked) == tries


def test_a_url_that_is_busy_is_tried_again(monkeypatch):
    monkeypatch.setattr(storage, "PAUSE", 0.0)
    busy = Behaviour(status=503)
    with web_server({"/a.png": [busy, busy, Behaviour(b"it")], "/gone.png": [Behaviour(status=404)]}) as server:
        assert storage.read_file(f"{server.url}/a.png") == b"it"
        with pytest.raises(ImageError, match="answers 404"):
            storage.read_file(f"{server.url}/gone.png")
        assert len(server.requests) == 4


def test_addresses_are_walked_by_the_same_rule(place):
    pytest.importorskip("fsspec")
    touch("p/a.jpg", "p/@eaDir/x.jpg", "p/.x.jpg", "p/trip/b.jpg")
    Path("p/loop").symlink_to(".")
    finder = Finder()
    assert list(finder.files([f"file://{place}/p"])) == [f"file://{place}/p/a.jpg", f"file://{place}/p/trip/b.jpg"]
    assert finder.passed_over().startswith(f"Skipped: 1 hidden file (file://{place}/p/.x.jpg), 1 hidden or system")
