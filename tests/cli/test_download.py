"""`showtell data download`: the whole way, from a local server to what `showtell data info` reads."""

import hashlib
import io
import json
import shlex
import zipfile
from dataclasses import replace

import pytest

from showtell import data
from showtell.cli import main
from showtell.data.download import fetching, published
from showtell.data.download.fetching import RemoteFile
from showtell.data.download.published import ELSEWHERE, PUBLISHED, Archive, Published
from tests.data.web_server import Behaviour, web_server
from tests.fake_model import png

TOKENS = "".join(f"{name}.jpg#{n}\ta {name} picture\n" for name in ("red", "green", "blue") for n in range(2))
SPLITS = {f"Flickr_8k.{split}Images.txt": f"{name}.jpg\n".encode() for split, name in
          zip(("train", "dev", "test"), ("red", "green", "blue"), strict=True)}  # fmt: skip
TEXTS = {"Flickr8k.token.txt": TOKENS.encode(), "__MACOSX/._x.txt": b"junk"} | SPLITS
PHOTOS = {f"Flicker8k_Dataset/{name}.jpg": png(name) for name in ("red", "green", "blue")}


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data_ in files.items():
            archive.writestr(zipfile.ZipInfo(name), data_)
    return content.getvalue()


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Flickr8k's two archives on a local server, in the place of the real ones; works in an empty folder."""
    contents = {"Flickr8k_text.zip": zipped(TEXTS), "Flickr8k_Dataset.zip": zipped(PHOTOS)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fetching.time, "sleep", lambda seconds: None)
    with web_server({f"/{name}": [Behaviour(content)] for name, content in contents.items()}) as server:
        archives = tuple(
            Archive(
                RemoteFile(
                    f"{server.url}/{archive.file.name}",
                    f"sha256:{hashlib.sha256(contents[archive.file.name]).hexdigest()}",
                    len(contents[archive.file.name]),
                ),
                archive.wanted,
            )
            for archive in PUBLISHED["flickr8k"].archives
        )
        monkeypatch.setitem(PUBLISHED, "flickr8k", replace(PUBLISHED["flickr8k"], archives=archives))
        yield server


def download(*arguments):
    return main(["data", "download", "flickr8k", "--accept-terms", *arguments])


def test_what_is_downloaded_can_be_loaded(server, tmp_path, capsys):
    assert download() == 0
    out, error = capsys.readouterr()
    assert out.splitlines()[-1] == "Now look at it: showtell data info flickr8k:flickr8k"
    assert "Flickr8k_text.zip is unpacked; its sha256 was right." in out
    assert "non-commercial research" in error
    dataset = data.load("flickr8k:flickr8k")
    assert [(example.image_id, example.split) for example in dataset.examples] == [
        ("red.jpg", "train"), ("green.jpg", "dev"), ("blue.jpg", "test")]  # fmt: skip
    names = {path.name for path in (tmp_path / "flickr8k").iterdir()}
    assert names == {"Flicker8k_Dataset", "Flickr8k.token.txt", "downloaded.json", *SPLITS}
    assert main(["data", "info", "flickr8k:flickr8k"]) == 0


def test_the_last_line_is_for_a_shell(server, capsys):
    assert download("-o", "my data") == 0
    command = capsys.readouterr().out.splitlines()[-1].removeprefix("Now look at it: showtell ")
    assert main(shlex.split(command)) == 0


def test_a_second_call_fetches_nothing(server, capsys):
    assert download() == download() == 0
    assert len(server.requests) == 2
    assert capsys.readouterr().out.count("Now look at it") == 2


def test_what_was_removed_is_fetched_again(server, tmp_path):
    assert download() == 0
    (tmp_path / "flickr8k" / "Flickr8k.token.txt").unlink()
    assert download() == 0
    assert len(server.requests) == 3
    assert (tmp_path / "flickr8k" / "Flickr8k.token.txt").exists()


def test_interrupted_it_goes_on(server, capsys, tmp_path):
    good = server.behaviours["/Flickr8k_Dataset.zip"]
    server.behaviours["/Flickr8k_Dataset.zip"] = [replace(good[0], drop_after=100), Behaviour(status=404)]
    assert download() == 1
    assert "Flickr8k_Dataset.zip can't be fetched: the server answers 404" in capsys.readouterr().err
    server.behaviours["/Flickr8k_Dataset.zip"] = good
    assert download() == 0
    assert server.ranges[-1] == "bytes=100-"
    assert [path for path, _ in server.requests].count("/Flickr8k_text.zip") == 1


def test_ctrl_c(server, capsys, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(published, "unpack", interrupt)
    assert download() == 130
    assert "what was downloaded is kept. The same command continues where it stopped." in capsys.readouterr().err


def test_an_archive_that_is_there_already_is_used(server, tmp_path):
    """Who got it from a colleague need not fetch it; but it is checked."""
    (tmp_path / "flickr8k").mkdir()
    (tmp_path / "flickr8k" / "Flickr8k_text.zip").write_bytes(zipped(TEXTS))
    assert download("--keep-archives") == 0
    assert [path for path, _ in server.requests] == ["/Flickr8k_Dataset.zip"]
    assert (tmp_path / "flickr8k" / "Flickr8k_text.zip").exists()


def test_a_wrong_archive_is_not_used_and_not_removed(server, tmp_path, capsys):
    (tmp_path / "flickr8k").mkdir()
    (tmp_path / "flickr8k" / "Flickr8k_text.zip").write_bytes(zipped({"evil": b""}))
    assert download() == 1
    assert "Flickr8k_text.zip is not the file that was published" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "flickr8k").iterdir()] == ["Flickr8k_text.zip"]


def test_the_record_says_where_it_came_from(server, tmp_path):
    assert download() == 0
    record = json.loads((tmp_path / "flickr8k" / "downloaded.json").read_text())
    assert record["Flickr8k_text.zip"]["url"] == f"{server.url}/Flickr8k_text.zip"
    assert record["Flickr8k_text.zip"]["checked"].startswith("sha256:")


def test_a_record_that_is_no_json(server, tmp_path, capsys):
    (tmp_path / "flickr8k").mkdir()
    (tmp_path / "flickr8k" / "downloaded.json").write_text("{")
    assert download() == 1
    assert "downloaded.json is not JSON" in capsys.readouterr().err


def test_terms_must_be_accepted_where_the_publisher_limits_use(server, capsys):
    assert main(["data", "download", "flickr8k"]) == 2
    error = capsys.readouterr().err
    assert "third party's copy" in error
    assert error.endswith("add --accept-terms.\n")
    assert server.requests == []


def test_a_disk_that_is_too_small_for_all_of_it(server, monkeypatch, capsys):
    """Before the first byte, not after two hours."""
    monkeypatch.setitem(PUBLISHED, "coco2014", replace(PUBLISHED["coco2014"], archives=(
        Archive(RemoteFile(f"{server.url}/x", "sha256:0", 10**15), ()),)))  # fmt: skip
    assert main(["data", "download", "coco2014"]) == 1
    assert "this data set takes 2000000.0 GB" in capsys.readouterr().err
    assert server.requests == []


def test_what_people_must_ask_for_themselves(capsys):
    assert main(["data", "download", "flickr30k"]) == 2
    error = capsys.readouterr().err
    assert "flickr30k can't be downloaded by a program" in error
    assert "https://shannon.cs.illinois.edu/DenotationGraph/" in error
    assert not ELSEWHERE.keys() & PUBLISHED.keys()


def test_an_unknown_name_lists_all(capsys):
    assert main(["data", "download", "imagenet"]) == 2
    assert "Choose from: flickr8k, flickr30k-splits, coco2014" in capsys.readouterr().err


def test_without_a_name_all_are_listed(capsys):
    assert main(["data", "download"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_table_is_well_formed(name):
    """A digest with a slip of the pen would be found after 13 GB."""
    entry: Published = PUBLISHED[name]
    assert entry.spec.partition(":")[0] in data.DATA_FORMATS
    assert "{folder}" in entry.spec
    for archive in entry.archives:
        algorithm, _, digest = archive.file.digest.partition(":")
        assert len(bytes.fromhex(digest)) == {"sha256": 32, "md5": 16}[algorithm]
        assert archive.file.name.endswith(".zip")
        assert archive.wanted
        assert archive.file.url.startswith("https://") or algorithm == "sha256", (
            "http needs a sum that nobody can forge"
        )
