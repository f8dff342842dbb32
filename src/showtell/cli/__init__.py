"""The command line's root: it names the commands, and imports a command's module only when it is called.

A command's module holds a Typer application named ``app`` that parses, calls the layers below and prints.
Exit codes: 0 all done, 1 some inputs failed (the rest are done and written), 2 wrong usage, 130 Ctrl-C.
"""

import codecs
import io
import json
import logging
import os
import sys
import traceback
import warnings
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from showtell import __version__
from showtell.cli.progress import tell
from showtell.errors import Interrupted, ShowtellError, UsageError

COMMANDS = {
    "caption": "Caption photos: files, folders, globs, URLs or stdin.",
    "gallery": "Write a page of photos and captions, to correct them.",
    "train": "Train on captions of your own, or by a recipe.",
    "evaluate": "Caption a data set's split and score the captions.",
    "score": "Score captions against people's: BLEU, METEOR, ROUGE-L, CIDEr.",
    "alt": "Propose alternative text for images in HTML and Markdown.",
    "compare": "Compare two systems: do they differ, and where?",
    "features": "Build the feature cache of a data set.",
    "data": "Look at a data set: images, captions, splits; or download one.",
    "calibrate": "Fit a model's confidence to people's captions.",
    "average": "Average the weights of several models.",
    "export": "Write a model for captioning without PyTorch (ONNX).",
    "serve": "Serve a web page and an HTTP API for captions.",
    "models": "Show what a model is, and how good it is.",
    "push": "Put a model on the Hugging Face Hub.",
}

ESCAPED = "showtell.escaped"  # an error handler of codecs

COMPLETION = ("install_completion", "show_completion")

# The base class of the command line's own errors, such as an unknown option. Typer exports only subclasses of it,
# and since 0.26 brings its own copy of click. Taken from a subclass, it is the right one in every version.
CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]


class ToStderr(logging.Handler):
    """Prints what the layers below log, a line each on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        tell(record.getMessage())


class LazyGroup(TyperGroup):
    """Holds a one-line stand-in for each command, and puts the real one in its place when it is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the called command, and only that one."""
        if args[0] in COMMANDS:
            command = get_command(import_module(f"showtell.cli.commands.{args[0]}").app)
            command.params = [param for param in command.params if param.name not in COMPLETION]  # the root's
            self.commands[args[0]] = command
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a Ctrl-C that it does not handle still ends in a sentence."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("Stopped by Ctrl-C.") from None


app = typer.Typer(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="'showtell COMMAND -h' lists a command's options. SHOWTELL_DEBUG=1 shows where an error comes from.",
)
for name, summary in COMMANDS.items():
    app.command(name, help=summary)(lambda: None)


def import_named(modules: list[str]) -> list[str]:
    """Import the modules of decoders that the user trusts, before a command loads a model that names one."""
    for module in modules:
        try:
            import_module(module)
        except (ImportError, ValueError, TypeError) as error:  # the latter two if it is not a module's name
            raise UsageError(
                f"--decoder-module {module} can't be imported: {error}.",
                "Install its package, or add its folder to PYTHONPATH.",
            ) from error
    return modules


def print_version(wanted: bool) -> None:
    """Answer ``--version`` before looking for a command."""
    if wanted:
        print(f"showtell {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
    decoder_module: Annotated[
        list[str],
        typer.Option(metavar="MODULE", callback=import_named, help="Import this module of your own decoder."),
    ] = [],  # noqa: B006
) -> None:
    """Train the classic image-captioning models, and caption images with them."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code; ``arguments`` are by default those of the process.

    Errors become one line on stderr. With ``SHOWTELL_DEBUG=1`` in the environment, the traceback precedes it.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPED)
    warnings.filterwarnings("ignore", module="PIL")  # about oddities in a file: its pixels are read, or it is refused
    logger = logging.getLogger("showtell")
    if not logger.handlers:
        logger.addHandler(ToStderr())
        logger.setLevel(logging.INFO)
    try:
        code = get_command(app).main(arguments or ["-h"], prog_name="showtell", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except Exception as error:
        if os.environ.get("SHOWTELL_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        line, code = message_and_exit_code(error)
        tell(line)
        return code


def escaped(error: UnicodeError) -> tuple[str, int]:
    r"""Write what a terminal or a Windows pipe (cp1252) can't encode as `\u5199`: to JSON that means the same."""
    assert isinstance(error, UnicodeEncodeError), "it is for writing only"
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(ESCAPED, escaped)


def message_and_exit_code(error: Exception) -> tuple[str, int]:
    """The line that a user reads about an error, and the exit code that a script sees."""
    if isinstance(error, ShowtellError):
        return str(error), error.exit_code
    if isinstance(error, CommandLineError):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "showtell"
        return f"{error.format_message()} See: {path} -h", 2  # type: ignore[attr-defined]
    if isinstance(error, OSError) and error.strerror:  # a full disk, a folder that may not be written
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}.", 1
    return (
        f"unexpected {type(error).__name__}: {error} (a bug in showtell; run again with SHOWTELL_DEBUG=1 to see where)",
        1,
    )
