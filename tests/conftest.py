"""A run of the tests has a home folder of its own, empty at its start: it finds and leaves nothing in the user's."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from showtell.metrics.official.meteor_data import FOLDER, build_index
from tests.fake_pycocoevalcap import write_package

# What the user has set for showtell and for the libraries below it: it names folders, servers and accounts.
USERS = ("SHOWTELL_", "HF_", "XDG_", "RAY_", "MPLCONFIGDIR", "TORCH_HOME", "TORCHINDUCTOR_CACHE_DIR")
TESTS = ("SHOWTELL_TEST_DATA", "SHOWTELL_SCREENSHOTS", "SHOWTELL_FUZZ")

# An example that is slow on a busy machine is no failure.
hypothesis.settings.register_profile("showtell", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("showtell")


def pytest_configure(config: pytest.Config) -> None:
    """Before any test file is imported: some libraries read the environment once, when they are imported."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # it shares the home of the process that started it
    home = tempfile.mkdtemp(prefix="showtell-tests-")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    for name in [name for name in os.environ if name.startswith(USERS) and name not in TESTS]:
        del os.environ[name]
    os.environ |= {"HOME": home, "USERPROFILE": home, "LOCALAPPDATA": home}


@pytest.fixture(scope="session")
def small_meteor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with METEOR's index of a few words; that of the real tables takes half a minute to build."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(write_package(tmp_path_factory.mktemp("site"))))
        patch.delitem(sys.modules, "pycocoevalcap", raising=False)
        build_index(cache / FOLDER, lambda share: None)
    return cache


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; tests that use it are skipped where it, or Playwright, is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def keep(tmp_path: Path) -> Callable[[Any, str], None]:
    """A function that keeps a screenshot of a page, in $SHOWTELL_SCREENSHOTS or else in a temporary folder."""
    folder = Path(os.environ.get("SHOWTELL_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)

    def screenshot(page: Any, name: str) -> None:
        page.wait_for_timeout(500)  # what fades has faded
        page.screenshot(path=folder / f"{name}.png", full_page=True)

    return screenshot
