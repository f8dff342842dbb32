"""Search options on the command line: each stands once, and reaches the search under its own name."""

from dataclasses import fields
from typing import Annotated, Unpack

import typer
from typer.testing import CliRunner

from showtell.cli.options import CaptionFlags, SearchFlags, takes
from showtell.search.options import SearchOptions


def test_flags_are_search_options():
    """A misspelt field would only be found by whoever uses that flag."""
    known = {field.name for field in fields(SearchOptions)}
    assert CaptionFlags.__annotations__.keys() - known == set()
    assert CaptionFlags.__annotations__.keys() - SearchFlags.__annotations__.keys() == {"num", "prefix"}


def test_only_what_is_said_reaches_the_command():
    """0 and --sample are said; an option left out must not override the model's own."""
    app, heard = typer.Typer(), []

    @app.command()
    @takes(CaptionFlags)
    def command(own: Annotated[str | None, typer.Option()] = None, **search: Unpack[CaptionFlags]) -> None:
        heard.append((own, search))

    for arguments in ([], ["--seed", "0", "--sample"], ["--ban", "a", "--ban", "b", "--own", "x", "-n", "2"]):
        assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert heard == [
        (None, {}),
        (None, {"seed": 0, "sample": True}),
        ("x", {"banned_words": ["a", "b"], "num": 2}),
    ]
