"""The command line's root: light help, errors on one line, exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
import types

import pytest
import typer

from showtell import __version__, cli
from showtell.cli import COMMANDS, main
from showtell.errors import ImageError, Interrupted, MissingExtraError, UsageError, needs
from tests.fake_model import picture

HEAVY = {"torch", "transformers", "accelerate", "tensorboard", "onnxruntime", "pyarrow", "matplotlib"}


@pytest.fixture
def command(monkeypatch):
    """Put a function in the place of `showtell models`."""

    def put(function, **options):
        module = types.ModuleType("showtell.cli.commands.models")
        module.app = typer.Typer()
        module.app.command(**options)(function)
        monkeypatch.setitem(sys.modules, "showtell.cli.commands.models", module)

    return put


def run_python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def modules_after(*arguments: str) -> set[str]:
    """What a fresh process has imported after a command line."""
    code = f"""
import sys
from showtell.cli import main
main({list(arguments)!r})
print(*sys.modules, file=sys.stderr)"""
    done = run_python("-c", code)
    return set(done.stderr.split())


def test_help_names_every_command_and_imports_none():
    modules = modules_after("-h")
    assert not HEAVY & modules
    assert not {f"showtell.cli.commands.{name}" for name in COMMANDS} & modules
    assert "numpy" not in modules


@pytest.mark.parametrize("name", ["caption", "evaluate", "models"])
def test_help_of_a_command_imports_that_command_only(name):
    modules = modules_after(name, "-h")
    assert not HEAVY & modules
    assert {other for other in COMMANDS if f"showtell.cli.commands.{other}" in modules} == {name}


def test_help_lists_the_commands(capsys):
    assert main([]) == main(["-h"]) == main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert text.count(f" {name} ") >= 3, name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    """Every name in COMMANDS has its module, whose help neither fails nor offers completion again."""
    pytest.importorskip(f"showtell.cli.commands.{name}", reason="this command is still to come")
    assert main([name, "-h"]) == 0
    text = capsys.readouterr().out
    assert f"showtell {name}" in text
    assert "--install-completion" not in text


def test_summaries_fit_one_line():
    assert all(len(summary) < 66 and summary[-1] in ".?" for summary in COMMANDS.values())


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"showtell {__version__}\n"


def test_unknown_command_names_the_nearest(capsys):
    assert main(["captoin", "x.jpg"]) == 2
    error = capsys.readouterr().err
    assert error == "showtell: No such command 'captoin'. Did you mean 'caption'? See: showtell -h\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["caption", "x.jpg", "--beem", "3"], r"No such option: --beem.*See: showtell caption -h"),
        (["caption", "x.jpg", "--beam", "three"], r"Invalid value for '--beam'.*See: showtell caption -h"),
        (
            ["caption", "x.jpg", "--format", "xml"],
            r"'--format'.*'text', 'jsonl', 'csv', 'tsv', 'coco'",
        ),
        (["export"], r"Missing argument.*MODEL.*See: showtell export -h"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("showtell: ")
    assert error.count("\n") == 1
    assert re.search(message, error)


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (ImageError("a.jpg is cut off.", "Copy it again."), "a.jpg is cut off. Copy it again.", 1),
        (UsageError("--x is\n wrong."), "--x is wrong.", 2),
        (
            MissingExtraError("Training", "train"),
            "Training needs packages that are not",
            2,
        ),
        (Interrupted("Stopped.", "Go on."), "Stopped. Go on.", 130),
        (PermissionError(13, "Permission denied", "/x/y"), "/x/y: Permission denied.", 1),
        (OSError(28, "No space left on device"), "No space left on device.", 1),
        (
            KeyError("oops"),
            "unexpected KeyError: 'oops' (a bug in showtell; run again",
            1,
        ),
    ],
)
def test_errors_are_one_line_without_a_traceback(error, line, code, command, capsys, monkeypatch):
    def fail() -> None:
        raise error

    command(fail)
    monkeypatch.delenv("SHOWTELL_DEBUG", raising=False)
    assert main(["models"]) == code
    shown = capsys.readouterr().err
    assert shown.startswith(f"showtell: {line}")
    assert shown.count("\n") == 1
    assert "Traceback" not in shown


@pytest.mark.parametrize(("value", "traceback"), [("1", True), ("0", False), ("", False)])
def test_debug_shows_the_traceback(value, traceback, command, capsys, monkeypatch):
    def fail() -> None:
        raise UsageError("--x is wrong.")

    command(fail)
    monkeypatch.setenv("SHOWTELL_DEBUG", value)
    assert main(["models"]) == 2
    shown = capsys.readouterr().err
    assert ("Traceback" in shown) == traceback
    assert shown.endswith("showtell: --x is wrong.\n")


def test_ctrl_c_ends_in_a_sentence(command, capsys):
    def interrupted() -> None:
        raise KeyboardInterrupt

    command(interrupted)
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "showtell: Stopped by Ctrl-C.\n"


def test_ctrl_c_in_a_sub_command_of_a_group(command, capsys, monkeypatch):
    module = types.ModuleType("showtell.cli.commands.data")
    module.app = typer.Typer()

    @module.app.command()
    def info() -> None:
        raise KeyboardInterrupt

    @module.app.callback()
    def callback() -> None:
        """A group."""

    monkeypatch.setitem(sys.modules, "showtell.cli.commands.data", module)
    assert main(["data", "info"]) == 130
    assert capsys.readouterr().err == "showtell: Stopped by Ctrl-C.\n"


def test_a_command_may_choose_its_exit_code(command):
    def some_failed() -> None:
        raise typer.Exit(1)

    command(some_failed)
    assert main(["models"]) == 1


def test_a_command_is_imported_once_it_is_called(command):
    """Two command lines in one process (a test, a notebook) must not see each other's commands."""
    calls = []
    command(lambda: calls.append("first"))
    main(["models"])
    command(lambda: calls.append("second"))
    main(["models"])
    assert calls == ["first", "second"]


def test_python_m_showtell():
    done = subprocess.run([sys.executable, "-m", "showtell", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"showtell {__version__}\n")
    done = subprocess.run([sys.executable, "-m", "showtell", "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_sigint_to_a_process():
    """The whole way: a signal, one sentence, exit code 130, no traceback."""
    code = """
import signal, sys, time, types, typer
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it, and is inherited
module = types.ModuleType("showtell.cli.commands.models")
module.app = typer.Typer()
@module.app.command()
def wait() -> None:
    print("ready", flush=True)
    time.sleep(30)
sys.modules["showtell.cli.commands.models"] = module
from showtell.cli import main
sys.exit(main(["models"]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert (process.returncode, error) == (130, "showtell: Stopped by Ctrl-C.\n")


@pytest.mark.parametrize("command", ["caption", "alt"])
def test_what_a_terminal_can_t_encode_is_escaped(tmp_path, command):
    """Windows gives a pipe cp1252: such a name ended the run, and what came behind it was lost."""
    for name in ("写.png", "é.png", "z.png"):
        picture("red").save(tmp_path / name)
    (tmp_path / "写.html").write_text('<img src="写.png"><img src="z.png">', encoding="utf-8")
    arguments = {"caption": [".", "--format", "jsonl"], "alt": ["写.html", "--min-confidence", "0"]}[command]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "showtell", command, *arguments], cwd=tmp_path, env=environment, capture_output=True
    )
    assert done.returncode == 0
    lines = done.stdout.decode("ascii").splitlines()
    if command == "caption":
        assert [json.loads(line)["image"] for line in lines] == ["z.png", "é.png", "写.png"]
    else:
        assert [line.split("\t")[1] for line in lines] == ["\\u5199.png", "z.png"]


def test_the_error_class_of_typer_is_found():
    """Typer does not export it: guards the look-up against a version that changes the class tree."""
    assert cli.CommandLineError.__name__ == "ClickException"
    assert issubclass(typer.BadParameter, cli.CommandLineError)


def test_only_what_is_not_showtells_own_is_a_missing_extra():
    """A module of its own that can't be imported is a defect: no `pip install` mends that."""
    with pytest.raises(MissingExtraError, match=r"'showtell\[wings\]'"), needs("wings", "Flying"):
        import no_such_package  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), needs("wings", "Flying"):
        import showtell.no_such_module  # noqa: F401
