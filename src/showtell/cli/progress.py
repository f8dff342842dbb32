"""Progress on stderr: people see bars, a log file gets a line a minute."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from showtell.errors import one_line


def tell(*said: object) -> None:
    """Say on stderr, one line each, what went wrong, or what a reader of the results should know."""
    for each in said:
        print(f"showtell: {one_line(str(each))}", file=sys.stderr)


class LogLines:
    """For a log file: a line a minute with what is done, how fast, and the time left."""

    EVERY = 60  # seconds

    def __init__(self) -> None:
        self.label, self.before, self.begun, self.told = "", 0, 0.0, 0.0

    def tell(self, label: str, done: int, total: int, rate: str = "") -> None:
        """Say that `done` of `total` are done, if a minute has passed. A new label means new work, with its own speed.

        `rate` is the speed in words; by default it is computed.
        """
        now = time.monotonic()
        if label != self.label:
            self.label, self.before, self.begun, self.told = label, done, now, now
        if now - self.told < self.EVERY:
            return
        self.told = now
        speed = (done - self.before) / (now - self.begun)
        left = f", {-(-(total - done) // (60 * speed)):,.0f} min left" if speed else ""
        print(f"{label}: {done:,} of {total:,}, {rate or f'{speed:,.1f}/s'}{left}", file=sys.stderr, flush=True)


@contextmanager
def progress_bar(label: str, total: int, *, done: int = 0, shown: bool = True) -> Iterator[Callable[[], None]]:
    """Show how many of `total` are done, how fast, and the time left; yields a function to call after each item."""
    if not shown:
        yield lambda: None
        return
    if not sys.stderr.isatty():
        lines = LogLines()

        def count() -> None:
            nonlocal done
            done += 1
            lines.tell(label, done, total)

        lines.tell(label, done, total)
        yield count
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True, redirect_stdout=False
    ) as bar:
        task = bar.add_task(label, total=total, completed=done, rate="")

        def advance() -> None:
            speed = bar.tasks[0].speed
            bar.update(task, advance=1, rate=f"{speed:.1f}/s" if speed else "")

        yield advance


@contextmanager
def byte_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each download; yields a function to call with its label, the bytes done, and all its bytes."""
    if not sys.stderr.isatty():
        downloads: dict[str, LogLines] = {}
        yield lambda label, done, total: downloads.setdefault(label, LogLines()).tell(f"{label}, bytes", done, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), redirect_stdout=False) as bars:
        tasks = {}

        def show(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total, completed=done)
            bars.update(tasks[label], completed=done)

        yield show


@contextmanager
def meteor_progress() -> Iterator[Callable[[float], None]]:
    """Say once that METEOR's data are being built, which takes half a minute; yields the function `score` calls."""
    percent = 0
    with ExitStack() as shown:
        advance: Callable[[], None] | None = None

        def progress(fraction: float) -> None:
            nonlocal advance, percent
            if advance is None:
                tell("building METEOR's index in the cache folder; this happens only once.")
                advance = shown.enter_context(progress_bar("percent", 100))
            while percent < int(100 * fraction):
                percent += 1
                advance()

        yield progress
