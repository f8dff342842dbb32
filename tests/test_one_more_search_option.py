"""A search option is declared once: one more line of `search/options.py` is a flag, an HTTP field and a control."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import showtell

DECLARED = '    echo: int = option(0, "How often a word may echo.", "N", served=(0, 7))\n'

FOUND = """
import re
from typer.testing import CliRunner
from showtell.cli import app
from showtell.cli.commands import caption
from tests.fake_model import png
from tests.serve.serving import client, fake_captioner

help = CliRunner().invoke(app, ["caption", "-h"]).output
assert re.search(r"--echo +N +How often a word may echo\\.", help), help
caption.load = lambda *where, **how: fake_captioner()
wrong = CliRunner().invoke(app, ["caption", "nothing.png", "--echo", "-1"])
assert str(wrong.exception).startswith("echo is -1, not a whole number from 0 up."), wrong.exception

with client() as api:
    photo = {"images": ("red.png", png("red"), "image/png")}
    answer = api.post("/v1/captions", files=photo, data={"echo": "5"})
    assert answer.json()["options"]["echo"] == 5, answer.text
    assert "echo" in api.post("/v1/captions", files=photo, data={"echo": "8"}).json()["detail"]
    schemas = api.get("/openapi.json").json()["components"]["schemas"]
    for request in ("AskedInForm", "AskedInJson"):
        echo = schemas[request]["properties"]["echo"]
        assert echo["description"] == "How often a word may echo."
        assert echo["anyOf"][0] == {"type": "integer", "minimum": 0, "maximum": 7}
    page = api.get("/").text
    assert '<label for="echo">Echo</label><input type="number" id="echo" name="echo"' in page
    assert "How often a word may echo." in page
"""


def test_one_more_option_is_everywhere(tmp_path):
    package = Path(showtell.__file__).parent
    shutil.copytree(package, tmp_path / "showtell", ignore=shutil.ignore_patterns("__pycache__", "shipped"))
    options = tmp_path / "showtell" / "search" / "options.py"
    text, first = options.read_text(encoding="utf-8"), "    beam: int ="
    assert text.count(first) == 1
    options.write_text(text.replace(first, DECLARED + first), encoding="utf-8")
    root = Path(__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)]), "COLUMNS": "120"}
    ran = subprocess.run([sys.executable, "-c", FOUND], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
