"""The feature cache's file format: what it keeps, what it refuses, what a kill leaves."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showtell.data.feature_cache import CacheWriter, FeatureCache, megabytes
from showtell.errors import DataError

CELLS, WIDTH = 4, 6


def writer(folder: Path, ids: str = "abc", fingerprint: str = "lite-1") -> CacheWriter:
    return CacheWriter(folder, fingerprint, CELLS, WIDTH, {image_id: f"{image_id}-stamp" for image_id in ids})


def features(ids: str) -> np.ndarray:
    """Different for every image, exact in half precision."""
    ramp = np.arange(CELLS * WIDTH, dtype=np.float32).reshape(CELLS, WIDTH)
    return np.stack([ramp + 100 * (ord(image_id) - ord("a")) for image_id in ids])


def build(folder: Path, ids: str = "abc") -> FeatureCache:
    with writer(folder, ids) as cache:
        cache.write(list(ids), features(ids))
    return FeatureCache.open(folder)


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    cache = build(tmp_path)
    assert cache.shape == (3, CELLS, WIDTH)
    assert cache.fingerprint == "lite-1"
    assert cache["b"].dtype == np.float16
    assert np.array_equal(cache["b"], features("b")[0])
    assert np.array_equal(cache.rows(["c", "a", "c"]), features("cac"))
    assert "a" in cache
    assert "z" not in cache
    assert len(cache) == 3


def test_the_file_is_mapped_and_never_read_whole(tmp_path: Path) -> None:
    """A cache of MS-COCO is larger than the memory."""
    assert isinstance(build(tmp_path)._features, np.memmap)


def test_an_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"z is not in the feature cache .* Finish the cache with 'showtell features'"):
        build(tmp_path).rows(["a", "z"])


def test_unfinished_rows_are_not_served(tmp_path: Path) -> None:
    """The zeros of a row that was never written look like features."""
    with writer(tmp_path) as cache:
        cache.write(["a"], features("a"))
    with pytest.raises(DataError, match="b is not in the feature cache"):
        FeatureCache.open(tmp_path)["b"]


def test_a_row_is_to_do_until_it_is_on_the_disk(tmp_path: Path) -> None:
    """Killed between writing and marking, the row is computed again; nothing half-written counts."""
    killed = writer(tmp_path)
    killed.write(["a", "b"], features("ab"))  # and never closed
    assert writer(tmp_path).to_do == ["a", "b", "c"]
    killed.sync()
    assert writer(tmp_path).to_do == ["c"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sets(st.sampled_from("abcdefgh")), min_size=1, max_size=5))
def test_any_order_of_sessions_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, sessions: list[set[str]]
) -> None:
    """Images are added in any portions, some of them asked for again."""
    folder = tmp_path_factory.mktemp("cache")
    for asked in sessions:
        with writer(folder, "".join(sorted(asked))) as cache:
            for image_id in list(cache.to_do):
                cache.write([image_id], features(image_id))
    cache = FeatureCache.open(folder) if set().union(*sessions) else None
    for image_id in set().union(*sessions):
        assert cache is not None
        assert np.array_equal(cache[image_id], features(image_id)[0])


def test_unreadable_images_are_listed_with_their_reason(tmp_path: Path) -> None:
    with writer(tmp_path) as cache:
        cache.write(["a", "c"], features("ac"))
        cache.leave_out("b", "b.jpg is cut off.")
    assert writer(tmp_path).to_do == []
    cache = FeatureCache.open(tmp_path)
    assert cache.unreadable == {"b": "b.jpg is cut off."}
    assert "b" not in cache
    with pytest.raises(DataError, match=r"b is not in the feature cache .*: b\.jpg is cut off\."):
        cache["b"]


def test_another_encoder_is_refused_and_both_are_named(tmp_path: Path) -> None:
    build(tmp_path)
    expected = "was built by lite-1, and the encoder is lite-2. Delete that folder or choose another."
    with pytest.raises(DataError, match=expected):
        FeatureCache.open(tmp_path, "lite-2")
    with pytest.raises(DataError, match=expected):
        writer(tmp_path, fingerprint="lite-2")
    assert len(FeatureCache.open(tmp_path, "lite-1")) == 3


def test_an_image_that_changed_is_refused(tmp_path: Path) -> None:
    """The same name in another data set is another photo."""
    build(tmp_path)
    with pytest.raises(DataError, match=r"b is not the image that the feature cache .* was built from"):
        CacheWriter(tmp_path, "lite-1", CELLS, WIDTH, {"b": "another stamp"})


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, 100))
    with pytest.raises(DataError, match=r"needs 0 MB more, and its disk has 0 MB free\. Free some space or choose"):
        writer(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert megabytes(878_080_000) == "878 MB"


def test_a_disk_that_fills_up_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, values: bytes) -> int:
        raise OSError(28, "No space left on device")

    cache = writer(tmp_path)
    monkeypatch.setattr("os.write", full)
    with pytest.raises(DataError, match=r"can't be written: No space left on device\. Free some space and build again"):
        cache.write(["a"], features("a"))


@pytest.mark.parametrize("value", [np.nan, 1e6])
def test_numbers_that_half_precision_lacks_are_refused(tmp_path: Path, value: float) -> None:
    """An infinity in the cache would end a training in NaN an hour later."""
    with (
        writer(tmp_path) as cache,
        pytest.raises(DataError, match="features of a do not fit into half precision"),
    ):
        cache.write(["a"], np.full((1, CELLS, WIDTH), value))


def test_a_folder_without_a_cache(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no feature cache in .* Build one with 'showtell features'"):
        FeatureCache.open(tmp_path)


@pytest.mark.parametrize("file", ["features.f16", "done.u8"])
def test_a_cut_off_file_is_refused(tmp_path: Path, file: str) -> None:
    build(tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"is cut off\. Delete it and build it again"):
        FeatureCache.open(tmp_path)


def test_a_damaged_or_later_index_is_refused(tmp_path: Path) -> None:
    build(tmp_path)
    index = tmp_path / "index.json"
    found = json.loads(index.read_text())
    index.write_text(json.dumps({**found, "format_version": 9}))
    with pytest.raises(DataError, match="has format version 9, and this showtell reads 1"):
        FeatureCache.open(tmp_path)
    index.write_text("{")
    with pytest.raises(DataError, match=r"index\.json is damaged: .* Delete the folder and build it again"):
        FeatureCache.open(tmp_path)


def test_marks_without_an_index_count_for_nothing(tmp_path: Path) -> None:
    """A new cache in the folder of a deleted one must not take its rows for done."""
    build(tmp_path)
    (tmp_path / "index.json").unlink()
    assert writer(tmp_path, "xyz").to_do == ["x", "y", "z"]
    with pytest.raises(DataError, match="x is not in"):
        FeatureCache.open(tmp_path)["x"]
