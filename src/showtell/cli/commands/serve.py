"""``showtell serve``: a web page that captions photos, and an HTTP API."""

import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer

from showtell.bundle import default_model
from showtell.captioner import Captioner, EngineName, load
from showtell.cli.options import Engine
from showtell.cli.progress import tell
from showtell.errors import needs

LIMITS, SPEED = "Limits", "Speed"
BODIES_HELD = 8  # of the largest size; more if they are smaller

app = typer.Typer()


@app.command()
def serve(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="Model, by name or folder. Repeat it to offer several models."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option("--port", "-p", min=0, max=65535, metavar="N", help="Port to listen on; 0 takes any free one."),
    ] = 8000,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="SHOWTELL_TOKEN", metavar="TEXT", help="Ask clients for this bearer token."),
    ] = None,
    examples: Annotated[
        Path | None, typer.Option("--examples", metavar="DIR", help="Example photos for the page.")
    ] = None,
    fetch_urls: Annotated[
        bool, typer.Option("--fetch-urls", help="Fetch images that requests name by URL; never from private addresses.")
    ] = False,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size",
            min=1,
            metavar="N",
            help="Images captioned together; 1 captions each alone.",
            rich_help_panel=SPEED,
        ),
    ] = 16,
    threads: Annotated[
        int,
        typer.Option(
            "--threads",
            min=1,
            metavar="N",
            help="Cores for each batch. 1 answers the most requests; all cores answer a single request fastest.",
            rich_help_panel=SPEED,
        ),
    ] = 1,
    engine: Engine = "auto",
    queue: Annotated[
        int,
        typer.Option(
            "--queue",
            min=1,
            metavar="N",
            help="Images that may wait for a model; more get a 429.",
            rich_help_panel=LIMITS,
        ),
    ] = 128,
    max_images: Annotated[
        int, typer.Option("--max-images", min=1, metavar="N", help="Images in a request.", rich_help_panel=LIMITS)
    ] = 16,
    max_size: Annotated[
        float, typer.Option("--max-size", min=0.01, metavar="MIB", help="Size of a request.", rich_help_panel=LIMITS)
    ] = 32,
    max_pixels: Annotated[
        int, typer.Option("--max-pixels", min=1, metavar="N", help="Pixels of an image.", rich_help_panel=LIMITS)
    ] = 50_000_000,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Time for a request.", rich_help_panel=LIMITS),
    ] = 30,
) -> None:
    """Serve a page and an HTTP API (POST /v1/captions) until Ctrl-C. Nothing that is sent is stored."""
    with needs("serve", "The server"):
        from showtell.serve.examples import find_examples
        from showtell.serve.server import serve as run
        from showtell.serve.settings import Settings
    settings = Settings(
        max_bytes=int(max_size * 2**20),
        held_bytes=BODIES_HELD * int(max_size * 2**20),
        max_pixels=max_pixels,
        max_images=max_images,
        queue=queue,
        batch_size=batch_size,
        timeout=timeout,
        fetch_urls=fetch_urls,
        token=token,
    )
    captioners = load_by_name(models, threads, engine)

    def announce(url: str) -> None:
        print(f"showtell serves {', '.join(captioners)} at {url} (Ctrl-C stops it)", file=sys.stderr, flush=True)
        if not token and not is_loopback(host):
            tell("other machines can reach this server, and it asks for no --token.")

    offered = find_examples(captioners.values(), examples)
    run(captioners, settings, host=host, port=port, examples=offered, announce=announce)


def load_by_name(models: list[str] | None, threads: int, engine: EngineName) -> dict[str, Captioner]:
    """Models by their names; a repeated name gets a number."""
    captioners: dict[str, Captioner] = {}
    wanted: list[str | Path] = [*models] if models else [default_model()]
    for captioner in [load(model, threads=threads, engine=engine) for model in wanted]:
        name, number = captioner.config.name, 1
        while name in captioners:
            number += 1
            name = f"{captioner.config.name} {number}"
        captioners[name] = captioner
    return captioners


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
