"""Search options on the command line: what is said reaches the command under the option's name, and nothing else."""

from typing import Annotated, Any

import typer
from typer.testing import CliRunner

from showtell.cli.options import takes_search_options


def test_only_what_is_said_reaches_the_command():
    """0 and --sample are said; an option left out must not override the model's own."""
    app, heard = typer.Typer(), []

    @app.command()
    @takes_search_options()
    def command(own: Annotated[str | None, typer.Option()] = None, **search: Any) -> None:
        heard.append((own, search))

    for arguments in ([], ["--seed", "0", "--sample"], ["--ban", "a", "--ban", "b", "--own", "x", "-n", "2"]):
        assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert heard == [
        (None, {}),
        (None, {"seed": 0, "sample": True}),
        ("x", {"banned_words": ["a", "b"], "num": 2}),
    ]


def test_a_command_may_leave_options_out():
    app = typer.Typer()

    @app.command()
    @takes_search_options(but=("num",))
    def command(**search: Any) -> None:
        assert search == {"beam": 2}

    assert CliRunner().invoke(app, ["--beam", "2"], catch_exceptions=False).exit_code == 0
    assert CliRunner().invoke(app, ["--num", "2"]).exit_code == 2
