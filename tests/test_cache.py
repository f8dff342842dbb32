import sys
from pathlib import Path

import pytest

from showtell.files import cache_folder


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHOWTELL_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))


def test_own_variable_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/fast")
    assert cache_folder() == Path("/fast/showtell")
    monkeypatch.setenv("SHOWTELL_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")


@pytest.mark.parametrize(
    ("platform", "folder"),
    [
        ("linux", "/home/ada/.cache/showtell"),
        ("darwin", "/home/ada/Library/Caches/showtell"),
        ("win32", "/home/ada/AppData/Local/showtell/Cache"),
    ],
)
def test_each_system_has_its_folder(monkeypatch: pytest.MonkeyPatch, platform: str, folder: str) -> None:
    """An empty variable counts as none: it would put the cache into the working folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == Path(folder)
