"""README and docs: every Python block runs, and so does every `showtell` command.

A file's Python blocks run from its top to its bottom, in one process and one namespace; then its commands, in the same
order. Both begin in a folder with what the examples talk about (`docs_sandbox.py`). Comments that readers don't see,
right above a fence, say what is special about it:

    <!-- needs: network -->             it does not run, for one of the REASONS; its commands are only parsed
    <!-- needs: network (PART) -->      only the commands that contain PART don't run
    <!-- needs: server -->              it runs while `showtell serve` does
    <!-- file: NAME -->                 it is written to that file instead

All else runs as it stands, except for this:

- Each stage of a training has one epoch.
- `hf:` and `hub:` models come from a Hub on this machine. Its captioners are small, with random weights.
- A server takes any free port. It answers `curl`, and stops before the next one starts.
- Words that the reader replaces (RECIPE, SPEC) are replaced by STAND_INS.

Other programs (pip, make, docker, torchrun, benchmarks) do not run.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.main import get_command

from showtell.cli import COMMANDS, main
from tests import docs_sandbox
from tests.docs_sandbox import ADDRESS, Server

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?:<!-- (needs|file): ([\w./-]+)(?: \(([^)\n]*)\))? -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?: {4}.*\n)+", re.MULTILINE)
LINE = re.compile(r"(?:.*\\\n)*.*\n")  # with those that it continues on
SHELL = ("", "sh", "bash", "console", "shell")
REASONS = {
    "data": "photos or captions that don't come with showtell",
    "network": "somebody else's server",
    "minutes": "more than a test should take",
}
STAND_INS = {
    "INPUT...": "photos/",
    "MODEL": "runs/model",
    "RECIPE": "show_attend_and_tell_lite",
    "SPEC": "shapes:20",
    "/shared": "shared",
}
MENTIONED = re.compile(rf"\bshowtell (?:--\S+ \S+ )?(?:{'|'.join(COMMANDS)})\b")
NEEDED = (
    "torch", "transformers", "peft", "pyarrow", "huggingface_hub", "braceexpand", "datasets", "fastapi", "onnx",
)  # fmt: skip
LAUNCHED = ("torchrun ", "accelerate launch ", "LD_PRELOAD=")  # other programs that run showtell


class Block(NamedTuple):
    """What stands between two fences, or is indented."""

    language: str
    text: str
    line: int
    """Of its first line, from 1."""
    needs: str | None = None
    part: str = ""
    file: str | None = None


class Command(NamedTuple):
    """A command of showtell, or `curl`."""

    text: str
    line: int
    needs: str | None

    @property
    def words(self) -> list[str]:
        return [word.strip("[]") for word in shlex.split(self.text, comments=True) if word != "[...]"]


def blocks_of(document: Path) -> list[Block]:
    """From top to bottom."""
    text = document.read_text(encoding="utf-8")
    blocks = []
    for found in FENCE.finditer(text):
        key, value, part, language, inside = found.groups()
        line = text[: found.start(5)].count("\n") + 1
        special = {"needs": value, "part": part or ""} if key == "needs" else {"file": value}
        blocks.append(Block(language, inside, line, **special))
    rest = FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)
    blocks += [Block("", found[0], rest[: found.start()].count("\n") + 1) for found in INDENTED.finditer(rest)]
    return sorted(blocks, key=lambda block: block.line)


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def commands_of(document: Path) -> Iterator[Command]:
    """What begins with `showtell` or `curl`: alone, after a prompt, or after `&&`."""
    for block in blocks_of(document):
        for number, line in lines_of(block):
            needs = block.needs if block.part in line else None
            parts = re.split(r"\s*&&\s*", line.strip().removeprefix("$ "))
            yield from (Command(part, number, needs) for part in parts if part.startswith(("showtell ", "curl ")))


def lines_of(block: Block) -> Iterator[tuple[int, str]]:
    """Of a block for a shell: the number of each line, and the line with those that it continues on."""
    for found in LINE.finditer(block.text) if block.language in SHELL else ():
        yield block.line + block.text[: found.start()].count("\n"), found[0].replace("\\\n", " ")


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory, small_meteor: Path) -> Path:
    """Is built once, and copied for each document."""
    if missing := [module for module in NEEDED if find_spec(module) is None]:
        pytest.skip(f"the examples need {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("sandbox")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(small_meteor, folder / "cache")
        patch.setenv("SHOWTELL_CACHE", str(folder / "cache"))
        docs_sandbox.build(folder)
    return folder


@pytest.fixture(scope="session")
def captioners(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captioners")
    docs_sandbox.write_captioners(folder)
    return folder


@pytest.fixture
def place(sandbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy to work in: the current folder, home, and where Python looks for modules."""
    folder = shutil.copytree(sandbox, tmp_path / "place")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for name, value in (("HOME", folder), ("USERPROFILE", folder), ("SHOWTELL_CACHE", folder / "cache")):
        monkeypatch.setenv(name, str(value))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # all models together have 3 GB


def write_files(document: Path) -> list[str]:
    files = {block.file: block.text for block in blocks_of(document) if block.file}
    for name, text in files.items():
        Path(name).write_text(text, encoding="utf-8")
    return list(files)


RUN = [document for document in DOCUMENTS if any(block.language == "python" for block in blocks_of(document))]


@pytest.mark.parametrize("document", RUN, ids=name_of)
def test_its_python_runs(document: Path, place: Path) -> None:
    write_files(document)
    blocks = [block for block in blocks_of(document) if block.language == "python" and not block.file]
    reasons = [REASONS[block.needs] for block in blocks if block.needs in REASONS]
    if len(reasons) == len(blocks):
        pytest.skip(f"all its examples need {' or '.join(reasons)}")
    with Server() as server:
        if any(block.needs == "server" for block in blocks):
            server.start(["serve"])
        program = ["names = {'__name__': 'example'}"]
        for block in blocks:
            if block.needs not in REASONS:
                # With empty lines before it an error's line number is that in the document.
                code = "\n" * (block.line - 1) + block.text.replace(ADDRESS, server.url)
                program.append(f"exec(compile({code!r}, {name_of(document)!r}, 'exec'), names)")
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(program)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr


WITH_COMMANDS = [document for document in DOCUMENTS if any(not command.needs for command in commands_of(document))]


@pytest.mark.parametrize("document", WITH_COMMANDS, ids=name_of)
def test_its_commands_run(
    document: Path, place: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = {Path(name).stem for name in write_files(document)}
    for name, source in docs_sandbox.GIVEN.get(document.stem, {}).items():
        shutil.copytree(source, name)
    commands = list(commands_of(document))
    with ExitStack() as stack:
        stack.callback(lambda: [sys.modules.pop(name, None) for name in modules])
        if any(re.search(r"\b(hf|hub):", command.text) for command in commands):
            written = request.getfixturevalue("captioners")
            shutil.copytree(written / "blip", "FOLDER")
            stack.enter_context(docs_sandbox.hub(written, Path(docs_sandbox.RUN), place / "hub", monkeypatch))
        server = stack.enter_context(Server())
        for command in commands:
            if not command.needs:
                print(f"$ {command.text}")
                where = f"{name_of(document)}:{command.line}: {command.text}"
                assert run_command(command.words, server) == 0, where


def run_command(words: list[str], server: Server) -> int:
    """The exit code."""
    if words[0] == "curl":
        return server.ask(words)
    for text, instead in STAND_INS.items():
        words = [re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", instead, word) for word in words]
    words = [str(Path(word).expanduser()) if word.startswith("~") else word for word in words[1:]]
    if words[0] == "serve":
        return server.start(words)
    return main([*words, *one_epoch(words)] if words[0] == "train" else words)


def one_epoch(words: list[str]) -> list[str]:
    """Settings that shorten a training."""
    from showtell.cli.commands.train import recipes
    from showtell.training.recipe import load_recipe

    recipe = recipes().get(words[1], Path(words[1]))
    stages = len(load_recipe(recipe, []).stages) if recipe.suffix == ".yaml" else 1
    return [word for number in range(stages) for word in ("--set", f"stages.{number}.epochs=1")]


MARKED = [
    pytest.param(command.words, id=f"{name_of(document)}:{command.line}")
    for document in DOCUMENTS
    for command in commands_of(document)
    if command.needs
]


@pytest.mark.parametrize("words", MARKED)
def test_a_command_that_is_not_run_is_understood(words: list[str]) -> None:
    """Parsed as the command line parses it: command and options exist, values fit."""
    parse(words)


def parse(words: list[str]) -> None:
    """Raise what the command line would raise before it begins."""
    words = words[1:]
    command = get_command(import_module(f"showtell.cli.commands.{words[0]}").app) if words[0] in COMMANDS else None
    assert command is not None, f"there is no command {words[0]}"
    with command.make_context(words[0], words[1:]) as context:
        if hasattr(command, "resolve_command"):  # `showtell data info ...`
            name, below, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            below.make_context(name, rest).close()


def test_a_wrong_command_would_be_found() -> None:
    for line in ("showtell captoin a.jpg", "showtell caption a.jpg --beem 3", "showtell data inof shapes:3"):
        with pytest.raises(Exception, match=r"captoin|beem|inof"):
            parse(line.split())


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_no_command_is_overlooked(document: Path) -> None:
    """Each one runs or is marked. Guards the patterns above against a new way of writing, and marks against slips."""
    found = Counter(command.line for command in commands_of(document) if command.text.startswith("showtell "))
    for block in blocks_of(document):
        lines = dict(lines_of(block))
        for number, line in lines.items():
            there = MENTIONED.findall(line.split(" #")[0])
            assert len(there) == found[number] or line.strip().startswith(LAUNCHED), line
        assert block.needs in (None, *REASONS) or (block.language, block.needs) == ("python", "server")
        assert not block.part or any(block.part in line for line in lines.values())


def test_examples_and_commands_are_found() -> None:
    assert name_of(ROOT / "docs/python.md") in map(name_of, RUN)
    assert sum(len(list(commands_of(document))) for document in DOCUMENTS) > 50
