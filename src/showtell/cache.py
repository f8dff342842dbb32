"""The one folder for what showtell can build again: METEOR's index, cached features."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """`SHOWTELL_CACHE` if that is set, else `showtell` in the system's folder for caches; it may not exist yet.

    `XDG_CACHE_HOME` counts on every system, as people who set it mean it.
    """
    if own := os.environ.get("SHOWTELL_CACHE"):
        return Path(own).expanduser()
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "showtell"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "showtell"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "showtell" / "Cache"
    return Path.home() / ".cache" / "showtell"
