"""README and docs: every Python block runs, and every command line is one that showtell understands.

A file's Python blocks run from its top to its bottom, in one process and one namespace, in an empty folder. Comments
that readers don't see, right above a block, say what is special about it:

    <!-- needs: data -->        or `network`: it is not run
    <!-- file: NAME -->         it is written to that file instead
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.main import get_command

from showtell.cli import COMMANDS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"(?:<!-- (needs|file): ([\w./-]+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?: {4}.*\n)+", re.MULTILINE)
SHELL = ("", "sh", "bash", "console", "shell")


class Block(NamedTuple):
    """What stands between two fences."""

    language: str
    text: str
    line: int
    """Of its first line, from 1."""
    needs: str | None
    file: str | None


def blocks_of(document: Path) -> Iterator[Block]:
    text = document.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        key, value, language, inside = found.groups()
        line = text[: found.start(4)].count("\n") + 1
        yield Block(language, inside, line, value if key == "needs" else None, value if key == "file" else None)


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def commands_of(document: Path) -> Iterator[str]:
    """The command lines that begin with `showtell`, in fences and in indented blocks."""
    text = document.read_text(encoding="utf-8")
    inside = [block.text for block in blocks_of(document) if block.language in SHELL]
    for block in [*inside, *INDENTED.findall(FENCE.sub("\n", text))]:
        for line in block.replace("\\\n", " ").splitlines():
            yield from (part for part in re.split(r"\s*(?:&&|\|)\s*", line.strip().removeprefix("$ ")) if is_ours(part))


def is_ours(line: str) -> bool:
    return line.startswith("showtell ")


RUN = [document for document in DOCUMENTS if any(block.language == "python" for block in blocks_of(document))]


@pytest.mark.parametrize("document", RUN, ids=name_of)
def test_its_python_runs(document: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the examples need [train]")
    blocks = [block for block in blocks_of(document) if block.language == "python" or block.file]
    program = []
    for block in blocks:
        if block.file:
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
        elif not block.needs:
            # With empty lines before it an error's line number is that in the document.
            code = "\n" * (block.line - 1) + block.text
            program.append(f"exec(compile({code!r}, {name_of(document)!r}, 'exec'), names)")
    if not program:
        pytest.skip(f"all its examples need {' or '.join(sorted({block.needs for block in blocks if block.needs}))}")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(["names = {'__name__': 'example'}", *program])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "SHOWTELL_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


COMMAND_LINES = sorted({(name_of(document), line) for document in DOCUMENTS for line in commands_of(document)})


@pytest.mark.parametrize(("document", "line"), COMMAND_LINES)
def test_its_commands_are_understood(document: str, line: str) -> None:
    """Parsed as the command line parses them: commands and options exist, values fit. Nothing is run."""
    parse(line)


def parse(line: str) -> None:
    """Raise what the command line would raise before it begins."""
    words = shlex.split(re.split(r"\s(?:>|2>)\s", line)[0], comments=True)[1:]
    words = [word.strip("[]") for word in words if word not in ("...", "[...]")]
    while words and words[0] == "--decoder-module":  # it would be imported
        words = words[2:]
    command = get_command(import_module(f"showtell.cli.commands.{words[0]}").app) if words[0] in COMMANDS else None
    assert command is not None, f"there is no command {words[0]}"
    with command.make_context(words[0], words[1:]) as context:
        if hasattr(command, "resolve_command"):  # `showtell data info ...`
            name, below, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            below.make_context(name, rest).close()


def test_a_wrong_command_would_be_found() -> None:
    for line in ("showtell captoin a.jpg", "showtell caption a.jpg --beem 3", "showtell data inof shapes:3"):
        with pytest.raises(Exception, match=r"captoin|beem|inof"):
            parse(line)


def test_examples_and_commands_are_found() -> None:
    """Guards the patterns above against a new way of writing."""
    assert name_of(ROOT / "docs/python.md") in map(name_of, RUN)
    assert len(COMMAND_LINES) > 50
