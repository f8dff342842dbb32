"""No test finds or leaves anything in the user's home folder: see conftest.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDERS = {
    "home": "from pathlib import Path; folder = Path.home()",
    "~": "from pathlib import Path; folder = Path('~').expanduser()",
    "showtell": "from showtell.files import cache_folder; folder = cache_folder()",
    "Hugging Face": "from huggingface_hub.constants import HF_HOME as folder",
    "datasets": "from datasets.config import HF_DATASETS_CACHE as folder",
    "torch": "import torch; folder = torch.hub.get_dir()",
}


@pytest.mark.parametrize("code", FOLDERS.values(), ids=FOLDERS)
def test_folders_of_a_user_are_those_of_the_run(code: str) -> None:
    """In this process, which may have imported the library long ago, and in one that it starts."""
    names: dict[str, object] = {}
    exec(code, names)
    child = subprocess.run([sys.executable, "-c", f"{code}; print(folder)"], capture_output=True, text=True, check=True)
    home = Path(os.environ["HOME"])
    assert home.name.startswith("showtell-tests-")
    for folder in (str(names["folder"]), child.stdout.strip()):
        assert Path(folder).is_relative_to(home)
