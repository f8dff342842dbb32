"""What every data format's file offers, and that a new one needs no other place than its file and its name."""

import inspect
import sys
from types import ModuleType

import pytest

from showtell.cli import main
from showtell.data import Dataset, Example, formats
from showtell.data.formats import DATA_FORMATS, DataFormat, data_format, load
from showtell.data.formats.shapes import example
from showtell.errors import DataError, UsageError


@pytest.mark.parametrize("name", DATA_FORMATS)
def test_a_format_says_what_it_takes_and_loads_it(name: str) -> None:
    found = data_format(name)
    assert found.SYNTAX[0].isupper()
    assert (found.__doc__ or "").strip()
    location, photos = inspect.signature(found.load).parameters.values()
    assert location.kind is location.POSITIONAL_OR_KEYWORD
    assert (photos.name, photos.kind, photos.default) == ("photos", photos.KEYWORD_ONLY, True)
    with pytest.raises((DataError, UsageError)):
        found.load("nowhere,nonsense=1")


def test_a_spec_without_a_location_tells_the_syntax() -> None:
    with pytest.raises(UsageError, match=r"Write karpathy:FILE\.json,IMAGES\."):
        load("karpathy:")
    with pytest.raises(UsageError, match=r"Begin with one of flickr8k:, flickr30k:, "):
        load("captions:x")


def test_a_new_format(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Scene(ModuleType):
        SYNTAX = "NUMBER"

        @staticmethod
        def load(location: str, *, photos: bool = True) -> Dataset:
            shown: Example = example(int(location))
            return Dataset("scene", (shown,))

    new: DataFormat = Scene("scene")
    monkeypatch.setitem(sys.modules, "showtell.data.formats.scene", new)
    monkeypatch.setattr(formats, "DATA_FORMATS", (*DATA_FORMATS, "scene"))
    assert main(["data", "info", "scene:3"]) == 0
    assert "scene" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"Write scene:NUMBER\."):
        load("scene:")
