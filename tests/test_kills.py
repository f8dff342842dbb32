"""`kill -9` at twenty moments in every command that writes: nothing half-written is read as whole, the rest is made.

A command runs in a fork of this process, which has imported what it needs, so that the moments are spread over its work
and not over its start. Each run goes on from what the one before left behind, and the last one may end.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from showtell.bundle import load_bundle
from showtell.cli import main
from showtell.data.features.cache import FeatureCache
from showtell.engines.torch import model_of
from showtell.errors import BundleError, DataError
from showtell.export import graphs
from showtell.results.metadata import description_of
from showtell.training import trainer  # noqa: F401
from tests.cli.test_download import server  # noqa: F401  # a fixture
from tests.fake_hub import fake_hub
from tests.fake_model import picture, save_fake_model, use_fake_engine
from tests.tiny_model import save_tiny_model
from tests.training.test_trainer import TINY

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, so that each run begins at once")

MOMENTS = 20
PHOTOS = 60


def in_fork(arguments: list[str]) -> int:
    """The process that runs a command and says nothing."""
    if child := os.fork():
        return child
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os._exit(main(arguments))


def finish(*arguments: str) -> float:
    """Run a command to its end; the seconds that it takes."""
    begun = time.monotonic()
    _, status = os.waitpid(in_fork(list(arguments)), 0)
    assert os.waitstatus_to_exitcode(status) == 0, arguments
    return time.monotonic() - begun


def kill_often(*arguments: str, seconds: float, check: Callable[[], object] = lambda: None) -> None:
    """Kill a command at random moments of so many seconds, look at what it left each time, then let it end.

    What those that were killed had written aside is gone then.
    """
    moments = random.Random(0)
    killed = 0
    for _ in range(MOMENTS):
        child = in_fork(list(arguments))
        time.sleep(moments.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
        else:  # there was less to do than the first time
            seconds /= 2
        check()
    assert killed, "it was never killed"
    finish(*arguments)
    check()
    assert not [path for end in ("tmp", "lock", "new", "old") for path in Path().rglob(f".*.{end}")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in: a model `m` without weights, and photos with captions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    use_fake_engine(monkeypatch)
    save_fake_model(tmp_path / "m")
    Path("photos").mkdir()
    for number in range(PHOTOS):
        picture(("red", "lime", "blue")[number % 3], 64).save(f"photos/{number:02}.jpg")
        Path(f"photos/{number:02}.txt").write_text(f"a {('red', 'green', 'blue')[number % 3]} picture\n")
    return tmp_path


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "json", "parquet", "tar"])
def test_captions(place: Path, suffix: str) -> None:
    def command(out: str) -> list[str]:
        return ["caption", "photos", "-m", "m", "-o", out, "--format", form, "--resume", "--batch-size", "4"]

    form = {"txt": "text", "json": "coco"}.get(suffix, suffix)
    whole, killed = Path(f"whole.{suffix}"), Path(f"killed.{suffix}")

    def begin_again_when_finished() -> None:
        if suffix in ("json", "parquet") and killed.exists():  # these have their name only when they are finished
            assert killed.read_bytes() == whole.read_bytes()
            killed.unlink()

    seconds = finish(*command(whole.name))
    kill_often(*command(killed.name), seconds=seconds, check=begin_again_when_finished)
    assert not killed.exists() or killed.read_bytes() == whole.read_bytes()


def test_descriptions(place: Path) -> None:
    pytest.importorskip("exiv2", reason="the extra 'metadata' is not installed")
    before = {path.name: path.read_bytes() for path in Path("photos").glob("*.jpg")}
    shutil.copytree("photos", "others")

    def every_photo_is_whole() -> None:
        for name, content in before.items():
            photo, original = Path("photos", name), Path("photos", f"{name}_original")
            Image.open(photo).load()
            assert photo.read_bytes() == content or description_of(photo.read_bytes())
            assert not original.exists() or original.read_bytes() == content

    seconds = finish("caption", "others", "-m", "m", "--write-metadata")
    kill_often("caption", "photos", "-m", "m", "--write-metadata", seconds=seconds, check=every_photo_is_whole)
    assert all(description_of(Path("photos", name).read_bytes()) for name in before)


def test_alternative_text(place: Path) -> None:
    pytest.importorskip("pyromark", reason="the extra 'alt' is not installed")
    page = "".join(f'<p><img src="photos/{number:02}.jpg"></p>\n' for number in range(PHOTOS))
    for name in ("whole.html", "killed.html"):
        Path(name).write_text(page)
    seconds = finish("alt", "-m", "m", "whole.html", "--write")
    whole = Path("whole.html").read_text()
    assert whole != page

    def old_or_new() -> None:
        assert Path("killed.html").read_text() in (page, whole)

    kill_often("alt", "-m", "m", "killed.html", "--write", seconds=seconds, check=old_or_new)
    assert Path("killed.html").read_text() == whole


def test_features(place: Path) -> None:
    def command(out: str) -> list[str]:
        shape = ["--encoder", "efficientnet_lite0", "--size", "32", "--batch-size", "4"]
        return ["features", "--data", "folder:photos", "--out", out, *shape]

    seconds = finish(*command("whole"))
    expected = FeatureCache.open("whole")
    ids = [f"{number:02}.jpg" for number in range(PHOTOS)]

    def what_is_there_is_right() -> None:
        try:
            cache = FeatureCache.open("killed")
        except DataError:
            return
        there = [name for name in ids if name in cache]
        np.testing.assert_allclose(cache.rows(there), expected.rows(there), atol=0.02)

    kill_often(*command("killed"), seconds=seconds, check=what_is_there_is_right)
    assert len(FeatureCache.open("killed")) == PHOTOS


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def model_or_nothing(folder: str) -> None:
    """A model folder is whole, or it is not there."""
    if Path(folder).exists():
        bundle = load_bundle(folder)
        assert bundle.is_exported or bundle.weights()


@pytest.mark.parametrize("command", ["average", "export"])
def test_models(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_bundle(save_tiny_model(place / "a", attention=True))
    save_tiny_model(place / "b", attention=True)
    if command == "export":  # the graphs take seconds to make, and nothing is written meanwhile
        made = graphs.graphs_of(model_of(first))
        monkeypatch.setattr(graphs, "graphs_of", lambda model: made)
        monkeypatch.setattr(graphs, "compare", lambda *_: graphs.Differences(0.0, 0.0, 0.0))
    arguments = [command, "a", *["b"] * (command == "average"), "--out"]
    seconds = finish(*arguments, "whole")
    kill_often(*arguments, "killed", seconds=seconds, check=lambda: model_or_nothing("killed"))
    left, whole = contents(Path("killed")), contents(Path("whole"))
    assert left.keys() == whole.keys()
    assert all(left[name] == whole[name] for name in left if Path(name).suffix in (".bin", ".safetensors"))


def test_training(place: Path) -> None:
    Path("tiny.yaml").write_text(TINY)

    def command(out: str) -> list[str]:
        return ["train", "tiny.yaml", "--data", "shapes:30", "--out", out, "--features", "features", "--resume"]

    seconds = finish(*command("whole"))
    kill_often(*command("killed"), seconds=seconds / 4, check=lambda: model_or_nothing("killed/model"))
    killed, whole = (load_file(f"{run}/model/model.safetensors") for run in ("killed", "whole"))
    for name, weights in whole.items():
        np.testing.assert_array_equal(killed[name], weights, err_msg=name)


def test_download(server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    def command(out: str) -> list[str]:
        return ["data", "download", "flickr8k", "--accept-terms", "-o", out]

    seconds = finish(*command("whole"))
    kill_often(*command("killed"), seconds=seconds)
    left, whole = (
        {path.name: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
        for folder in ("killed", "whole")
    )
    assert left == whole


def test_push(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each commit is the old model or the new one, the files that only the old one has included."""
    save_tiny_model(place / "a", attention=True)
    old = contents(place / "m") | {"encoder.onnx": b"old"}
    with fake_hub({"us/whole": [old], "us/killed": [old]}, place / "cache", monkeypatch) as hub:

        def command(name: str) -> list[str]:
            return ["push", "a", f"hub:us/{name}", "--license", "mit"]

        seconds = finish(*command("whole"))
        whole = hub.commits["us/whole"][-1]
        assert "encoder.onnx" not in whole

        def old_or_new() -> None:
            assert all(commit in (old, whole) for commit in hub.commits["us/killed"])

        kill_often(*command("killed"), seconds=seconds, check=old_or_new)
        assert hub.commits["us/killed"][-1] == whole


@pytest.mark.parametrize("pinned", [False, True])
def test_a_model_of_the_hub(pinned: bool, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = contents(save_tiny_model(place / "a", attention=True))
    with fake_hub({"us/m": [files]}, place / "cache", monkeypatch) as hub:
        where = f"hub:us/m@{hub.sha('us/m')}" if pinned else "hub:us/m"

        def whole_or_nothing() -> None:
            with monkeypatch.context() as without_network:
                without_network.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
                try:
                    fetched = load_bundle(where)
                except BundleError:
                    return
            assert contents(fetched.path) == files
            shutil.rmtree("cache")  # the next one fetches it anew

        seconds = finish("models", where)
        shutil.rmtree("cache")
        kill_often("models", where, seconds=seconds, check=whole_or_nothing)
        assert contents(load_bundle(where).path) == files
