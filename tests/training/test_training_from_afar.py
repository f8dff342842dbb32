"""Training on images that lie in tar shards or come as a stream: the same model as from anywhere else."""

import io
import json
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from showtell.data import load
from showtell.errors import Interrupted, UsageError
from showtell.training.events import Epoch, Event
from showtell.training.recipe import load_recipe
from showtell.training.trainer import train

TINY = """
name: tiny
encoder: {name: efficientnet_lite0, weights: random, size: 64}
tokenizer: {min_count: 1}
decoder: {name: show_attend_and_tell, embedding_width: 24, hidden_width: 24, attention_width: 16}
stages:
  - {kind: cross_entropy, epochs: 2, batch_images: 4}
search: {beam: 2, max_words: 12}
checkpoint_seconds: 0
"""
LIVE = "  - {kind: cross_entropy, epochs: 1, batch_images: 4, encoder_stages: 1}\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    """The same scenes as two tar shards and as two Parquet files, with a SPEC for each way."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "parquet").mkdir()
    examples = load("shapes:40,pixels=64").examples
    for number, half in enumerate((examples[:20], examples[20:])):
        rows = []
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for example in half:
                file = io.BytesIO()
                Image.fromarray(example.read()).save(file, "png")
                facts = {"captions": list(example.captions), "split": example.split}
                for name, content in (("png", file.getvalue()), ("json", json.dumps(facts).encode())):
                    member = tarfile.TarInfo(f"{example.image_id}.{name}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
                rows.append({"image": {"bytes": file.getvalue(), "path": None}, "image_id": example.image_id, **facts})
        table = pyarrow.Table.from_pylist(rows)
        parquet.write_table(table, tmp_path / "parquet" / f"train-0000{number}-of-00002.parquet")
    return {
        "shards": f"shards:{tmp_path}/{{0..1}}.tar",
        "streamed": f"hub:{tmp_path}/parquet,streaming",
    }


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.slow
def test_shards_and_streams_train_the_same_model_and_resume_it(
    tmp_path: Path, sources: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen features from a stream equal those from shards; stopped in the middle, the order of images goes on."""
    pytest.importorskip("datasets")
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    recipe = load_recipe(path, [])
    train(recipe, load(sources["shards"]), tmp_path / "shards")
    train(recipe, load(sources["streamed"]), tmp_path / "streamed")

    def stop(event: Event) -> None:
        if isinstance(event, Epoch) and event.epoch == 2 and event.captions:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        train(recipe, load(sources["shards"]), tmp_path / "stopped", tell=stop)
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "another cache"))  # the lists of the shards are gone
    train(recipe, load(sources["shards"]), tmp_path / "stopped", resume=True)
    expected = weights(tmp_path / "shards")
    for other in ("streamed", "stopped"):
        found = weights(tmp_path / other)
        assert all(np.array_equal(found[name], value) for name, value in expected.items()), other


@pytest.mark.slow
def test_an_encoder_learns_from_shards_and_not_from_a_stream(tmp_path: Path, sources: dict[str, str]) -> None:
    pytest.importorskip("datasets")
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("search:", f"{LIVE}search:"))
    recipe = load_recipe(path, [])
    with pytest.raises(UsageError, match=r"can't learn from a stream: .* Leave out 'streaming', so that they are kept"):
        train(recipe, load(sources["streamed"]), tmp_path / "streamed")
    assert not (tmp_path / "streamed").exists()
    train(recipe, load(sources["shards"]), tmp_path / "shards")
    assert len((tmp_path / "shards" / "log.jsonl").read_text().splitlines()) == 3
