"""Runs the application on a socket until it is told to stop, and then finishes the requests that it has accepted."""

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import ceil

import numpy as np
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from showtell.captioner import Captioner
from showtell.errors import UsageError
from showtell.serve.app import create_app
from showtell.serve.examples import Example
from showtell.serve.settings import Settings

BACKLOG = 1024  # connections that the kernel holds before they are accepted
CONNECTIONS = 1000  # each takes a file descriptor; more are refused
HEAD_SECONDS = 10.0  # in which a request's headers must arrive


class ImpatientProtocol(H11Protocol):
    """Closes a connection whose client takes too long to send a request; uvicorn would wait for ever."""

    silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._listen()

    def data_received(self, data: bytes) -> None:
        """Stop waiting if that was all of a request's head; the body has a timeout of its own."""
        super().data_received(data)
        self._listen()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_listening()

    def _listen(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_listening()
        elif self.silence is None:
            self.silence = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_listening(self) -> None:
        if self.silence is not None:
            self.silence.cancel()
            self.silence = None


def serve(
    captioners: Mapping[str, Captioner],
    settings: Settings,
    *,
    host: str,
    port: int,
    examples: tuple[Example, ...] = (),
    announce: Callable[[str], None] = print,
) -> None:
    """Serve until Ctrl-C or SIGTERM; requests that came before that are answered.

    Args:
        captioners: by name; the first one is the default.
        settings: the limits.
        host: the address to listen on.
        port: the port; 0 is any that is free.
        examples: photos that the page offers.
        announce: called with the URL, once connections are accepted.

    Raises:
        UsageError: the port is taken, or the address is not this machine's.
    """
    for captioner in captioners.values():  # a model's first run is slow: no request should wait for it
        size = captioner.config.preprocessing.size
        captioner(np.zeros((size, size, 3), np.uint8))
    app = create_app(captioners, settings, examples)
    config = uvicorn.Config(
        app,
        http=ImpatientProtocol,
        lifespan="on",
        log_level="warning",
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=ceil(settings.timeout),
    )
    with _listening(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        announce(f"http://{shown}:{listener.getsockname()[1]}")
        # At its end, uvicorn raises the signal that stopped it again: either one becomes a Ctrl-C, caught here.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that accepts connections, which send without delay."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # Connections inherit it. asyncio sets it only on sockets that it made itself, and without it an answer's body
        # waits for the client's receipt of its head: 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"The server can't listen on {host}:{port}: {reason}.", "Choose another --port or --host."
        ) from None
