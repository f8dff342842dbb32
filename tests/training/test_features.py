"""The builder of feature caches, on drawn images and a small random encoder."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from showtell.cli import main
from showtell.data.dataset import Example
from showtell.data.features.cache import FeatureCache
from showtell.errors import DataError
from showtell.images.decode import prepare
from showtell.models.encoders import Encoder, build_encoder
from showtell.training.inputs.features import batches_read, cached_features, default_folder, fingerprint

LITE = {"name": "efficientnet_lite0", "weights": "random", "size": 64}


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    encoder = build_encoder(LITE)
    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)  # else the photos' differences die out on the way
    return encoder


def photos(folder: Path, count: int) -> list[Example]:
    """Noise, a different one in each file."""
    folder.mkdir(exist_ok=True)
    examples = []
    for number in range(count):
        path = folder / f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        examples.append(Example(path.name, "train", ("a photo",), path))
    return examples


def test_the_cache_holds_what_the_encoder_says(tmp_path: Path, encoder: Encoder) -> None:
    """Rows that are shifted by one, or photos prepared in another way, train to nonsense without an error."""
    examples = photos(tmp_path / "photos", 21)
    told: list[tuple[int, int, int]] = []
    cache = cached_features("photos", examples, encoder, tmp_path / "cache", lambda *event: told.append(event))
    rows, columns = encoder.grid
    assert told == [(done, 21, 21 * rows * columns * encoder.width * 2) for done in range(22)]
    images = torch.from_numpy(prepare([example.read() for example in examples], encoder.preprocessing))
    with torch.inference_mode():
        expected = encoder(images).numpy()
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    found = cache.rows([example.image_id for example in examples])
    assert np.allclose(found, expected, atol=1e-3, rtol=2e-3)


def test_a_second_call_computes_nothing_and_a_larger_one_the_rest(tmp_path: Path, encoder: Encoder) -> None:
    examples = photos(tmp_path / "photos", 6)
    done: list[int] = []
    for part in (examples[:4], examples[:4], examples):
        cached_features("photos", part, encoder, tmp_path / "cache", lambda d, images, size: done.append(d))
    assert done == [0, 1, 2, 3, 4, 0, 0, 1, 2]
    assert len(FeatureCache.open(tmp_path / "cache")) == 6


def test_unreadable_photos_are_left_out_and_the_rest_done(tmp_path: Path, encoder: Encoder) -> None:
    examples = photos(tmp_path / "photos", 20)
    assert examples[3].path is not None
    assert examples[17].path is not None
    examples[3].path.write_bytes(b"no photo")
    examples[17].path.unlink()
    cache = cached_features("photos", examples, encoder, tmp_path / "cache")
    assert len(cache) == 18
    assert set(cache.unreadable) == {"3.png", "17.png"}
    assert "17.png can't be opened: No such file" in cache.unreadable["17.png"]


def test_fingerprint_follows_weights_size_and_grid_and_not_the_file_name(encoder: Encoder) -> None:
    """Old features with new weights give a model that is wrong by a little, everywhere."""
    base = fingerprint(encoder)
    assert base == fingerprint(encoder)
    assert base.startswith("efficientnet_lite0-64px-2x2x1280-")
    renamed = build_encoder({**LITE, "weights": "elsewhere.pth"}, pretrained=False)
    renamed.load_state_dict(encoder.state_dict())
    assert fingerprint(renamed) == base
    for change in ({"size": 32}, {"grid": 3}, {"resize": "crop"}):
        other = build_encoder({**LITE, **change})
        other.load_state_dict(encoder.state_dict())
        assert fingerprint(other) != base
    with torch.no_grad():
        next(encoder.parameters()).view(-1)[0] += 1e-3
    assert fingerprint(encoder) != base


def test_changed_weights_are_refused(tmp_path: Path, encoder: Encoder) -> None:
    examples = photos(tmp_path / "photos", 2)
    cached_features("photos", examples, encoder, tmp_path / "cache")
    with torch.no_grad():
        next(encoder.parameters()).zero_()
    with pytest.raises(DataError, match=r"was built by efficientnet_lite0-64px.* but the encoder is efficientnet"):
        cached_features("photos", examples, encoder, tmp_path / "cache")


def test_changed_photos_of_the_same_size_are_refused(tmp_path: Path, encoder: Encoder) -> None:
    """Two BMPs of one shape have one size, and so have small JPEGs; where the cache is of sizes alone, it is old."""
    path = tmp_path / "a.bmp"
    examples = [Example("a.bmp", "train", ("a photo",), path)]
    Image.new("RGB", (300, 200), "red").save(path)
    cached_features("photos", examples, encoder, tmp_path / "cache")
    index = tmp_path / "cache" / "index.json"
    old = json.loads(index.read_text())
    Image.new("RGB", (300, 200), "blue").save(path)
    with pytest.raises(DataError, match=r"a\.bmp is not the image that the feature cache .* was built from"):
        cached_features("photos", examples, encoder, tmp_path / "cache")
    index.write_text(json.dumps(old | {"stamps": [str(path.stat().st_size)]}))
    cached_features("photos", examples, encoder, tmp_path / "cache")


def test_default_folder_is_of_these_images_and_this_encoder(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two folders of photos with the same names must not share a cache."""
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path))
    folders = {
        default_folder("photos", photos(tmp_path / "one", 2), encoder),
        default_folder("photos", photos(tmp_path / "two", 2), encoder),
        default_folder("photos", photos(tmp_path / "one", 2), build_encoder(LITE)),
    }
    assert len(folders) == 3
    assert all(folder.parent == tmp_path / "features" for folder in folders)


def test_reading_stays_a_few_batches_ahead(tmp_path: Path, encoder: Encoder) -> None:
    """Reading all of MS-COCO before the first batch is encoded would fill the memory."""
    read: list[str] = []

    class Counted(Example):
        def read(self, *, at_least: int | None = None) -> np.ndarray:
            read.append(self.image_id)
            return np.zeros((8, 8, 3), np.uint8)

    examples = [Counted(str(number), "train", ("x",)) for number in range(100)]
    batches = batches_read(examples, encoder.preprocessing, 4)
    assert [image_id for image_id, _ in next(batches)] == ["0", "1", "2", "3"]
    assert len(read) <= 16
    assert len(list(batches)) == 24


BUILD = """
import sys, time, torch
from pathlib import Path
import showtell.data.features.writer as format
from showtell.data import load
from showtell.models.encoders import build_encoder
from showtell.training.inputs.features import cached_features
torch.set_num_threads(1)
torch.manual_seed(0)
format.SYNC_BYTES = 1
encoder = build_encoder({"name": "efficientnet_lite0", "weights": "random", "size": 64})
cached_features("x", load("shapes:320,pixels=64").examples, encoder, Path(sys.argv[1]),
                         lambda done, images, size: time.sleep(float(sys.argv[2])))
"""


def test_killed_and_resumed_the_cache_is_the_same_to_the_byte(tmp_path: Path) -> None:
    """kill -9 of a real process, then the same command again."""

    def process(folder: str, pause: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", BUILD, str(tmp_path / folder), pause])

    def marks() -> bytes:
        file = tmp_path / "killed" / "done.u8"
        return file.read_bytes() if file.exists() else b""

    assert process("whole", "0").wait() == 0
    killed = process("killed", "0.2")
    deadline = time.monotonic() + 120
    while sum(marks()) < 64 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert 64 <= sum(marks()) < 320
    assert process("killed", "0").wait() == 0
    for file in ("features.f16", "done.u8", "index.json"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_the_command_announces_builds_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "cache")
    command = ["features", "--data", "shapes:10,pixels=64", "--encoder", "efficientnet_lite0", "--out", out]
    command += ["--weights", "random", "--size", "64"]
    torch.manual_seed(0)
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "10 images; 2 x 2 cells x 1,280 numbers of 16 bits: 0 MB to write in" in printed.err
    assert re.search(r"10 images, 10 tried in \d+ s, ", printed.out)
    assert "images/s, 0 unreadable" in printed.out
    assert "made by efficientnet_lite0-64px-2x2x1280-" in printed.out
    torch.manual_seed(0)
    assert main(command) == 0
    assert "10 images, 10 of them done before" in capsys.readouterr().err


def test_the_command_lists_unreadable_images_and_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for example in photos(tmp_path / "photos", 3):
        assert example.path is not None
        example.path.with_suffix(".txt").write_text("a photo\n")
    (tmp_path / "photos" / "1.png").write_bytes(b"no photo")
    command = ["features", "--data", f"folder:{tmp_path / 'photos'}", "--out", str(tmp_path / "cache")]
    command += ["--encoder", "efficientnet_lite0", "--weights", "random", "--size", "64"]
    assert main(command) == 1
    printed = capsys.readouterr()
    assert "1.png is not an image that showtell can read" in printed.err
    assert "2 images, 3 tried in" in printed.out


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(writer: object, *arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("showtell.training.inputs.features.fill", stop)
    command = ["features", "--data", "shapes:3,pixels=64", "--out", str(tmp_path), "--weights", "random"]
    assert main(command) == 130
    assert "Stopped by Ctrl-C. The same command continues where it stopped." in capsys.readouterr().err


def test_without_torch_the_command_names_the_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate.utils", None)
    assert main(["features", "--data", "shapes:3", "--out", str(tmp_path)]) == 2
    assert "showtell[train]" in capsys.readouterr().err


def test_random_weights_are_the_same_when_a_cache_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command refused its own cache, as of another encoder."""
    photos(tmp_path / "photos", 2)
    rows = "".join(f'{{"image": "{number}.png", "caption": "A"}}\n' for number in range(2))
    (tmp_path / "photos/t.jsonl").write_text(rows)
    command = ["features", "--data", f"table:{tmp_path}/photos/t.jsonl", "--encoder", "efficientnet_lite0"]
    for _ in range(2):
        assert main([*command, "--size", "64", "--weights", "random", "--out", str(tmp_path / "cache")]) == 0
    assert "2 images, 0 unreadable" in capsys.readouterr().out
