"""What the repository says of itself is true: extras, versions, the page of the benchmarks, and what is built."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = set(PROJECT["optional-dependencies"])


def text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "page", ["README.md", "Dockerfile", *sorted(f"docs/{p.name}" for p in REPOSITORY.glob("docs/*.md"))]
)
def test_extras_that_a_page_names_exist(page):
    said = re.findall(r"(?:`|showtell|')\.?\[([a-z,]+)\](?:`|')", text(page))
    assert {extra for names in said for extra in names.split(",")} <= EXTRAS


def test_readme_names_every_extra_but_those_for_developers():
    said = {extra for names in re.findall(r"`\[([a-z,]+)\]`", text("README.md")) for extra in names.split(",")}
    assert said == EXTRAS - {"dev", "demo", "plots", "docs"}


def test_linters_have_the_same_versions_everywhere():
    pinned = dict(line.split("==") for line in text("constraints.txt").splitlines() if "==" in line)
    ruff, local = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    assert ruff["rev"] == f"v{pinned['ruff']}"
    assert [hook["id"] for hook in local["hooks"]] == ["mypy"], "from the environment, which constraints.txt decides"


def test_windows_installs_what_make_installs():
    (made,) = re.findall(r"--editable '\.\[(.*dev)\]'", text("Makefile"))
    assert f'".[{made}]"' in text(".github/workflows/ci.yml")


def test_forms_and_workflow_are_yaml():
    files = [*REPOSITORY.glob(".github/**/*.yml"), REPOSITORY / "CITATION.cff"]
    assert len(files) > 4
    for file in files:
        assert yaml.safe_load(file.read_text(encoding="utf-8"))


def test_the_versions_agree():
    assert yaml.safe_load(text("CITATION.cff"))["version"] == PROJECT["version"]
    assert f"## {PROJECT['version']}" in text("CHANGELOG.md") or f"{PROJECT['version']}, has not" in text(
        "CHANGELOG.md"
    )


def test_new_benchmarks_replace_old_ones_and_nothing_else(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    tables = pytest.importorskip("tables")
    page = text("docs/benchmarks.md")
    new = tables.replaced(page, "the new tables")
    head = page[: page.index(tables.MARK)]
    assert new == f"{head}{tables.MARK}\n\nthe new tables\n"
    assert "make benchmarks" in head
    with pytest.raises(SystemExit, match="lacks the line"):
        tables.replaced("# Another page\n", "the new tables")


@pytest.mark.slow
def test_what_is_built_installs_and_captions(tmp_path):
    """The wheel and the archive, each in a folder of its own, with the dependencies of this environment."""
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    built = sorted((tmp_path / "dist").iterdir())
    assert [file.name.removeprefix(f"showtell-{PROJECT['version']}") for file in built] == [
        "-py3-none-any.whl",
        ".tar.gz",
    ]
    for file in built:
        place = tmp_path / file.name.replace(".", "_")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*pip, "--target", str(place), str(file)], check=True, capture_output=True)
        done = subprocess.run(
            [sys.executable, "-c", f"import showtell, sys; print(showtell.__file__); {MAIN}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(place)},
            capture_output=True,
            text=True,
            check=True,
        )
        where, line = done.stdout.splitlines()
        assert Path(where).is_relative_to(place)
        assert line.startswith(str(REPOSITORY / "docs" / "page.png") + "\t")


MAIN = (
    f"from showtell.cli import main; code = main(['caption', {str(REPOSITORY / 'docs' / 'page.png')!r}]); "
    "assert 'torch' not in sys.modules; sys.exit(code)"
)
