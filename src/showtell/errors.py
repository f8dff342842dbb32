"""Errors for users: what is wrong, in one sentence, and what to do."""

import json
from collections.abc import Iterator
from contextlib import contextmanager


class ShowtellError(Exception):
    """A problem that the user can fix.

    Args:
        problem: one sentence that names the file, the option or the value: ``"photo.jpg is cut off"``.
        way_out: what to do, as one sentence; empty if the problem says it already.
    """

    exit_code = 1

    def __init__(self, problem: str, way_out: str = "") -> None:
        super().__init__(f"{problem} {way_out}".strip())
        self.problem = problem
        self.way_out = way_out

    def __reduce__(self) -> tuple[type["ShowtellError"], tuple[str, str]]:
        """Keep both sentences when the error crosses a process boundary."""
        return type(self), (self.problem, self.way_out)


class ImageError(ShowtellError):
    """One image can't be read; the others are not affected."""


class DataError(ShowtellError):
    """A data set, a predictions file or a feature cache is not what it should be."""


class BundleError(ShowtellError):
    """A model folder can't be read or written."""


class UsageError(ShowtellError):
    """An option, a recipe key or an argument is wrong: exit code 2."""

    exit_code = 2


class Interrupted(ShowtellError):
    """Ctrl-C or SIGTERM: says how much is done and how to continue."""

    exit_code = 130


class MissingExtraError(UsageError):
    """A feature needs packages that the core install leaves out."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs packages that are not installed.", f"Run: pip install 'showtell[{extra}]'")
        self.feature = feature
        self.extra = extra

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str]]:
        """As above, with this class's own two arguments."""
        return type(self), (self.feature, self.extra)


@contextmanager
def needs(extra: str, feature: str) -> Iterator[None]:
    """Wrap imports of packages that the core install leaves out. Raises MissingExtraError if one is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("showtell"):  # our own modules are never missing: it is a bug
            raise
        raise MissingExtraError(feature, extra) from None


def one_line(text: str) -> str:
    """The text on one line and without control characters: scripts count errors by lines."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in " ".join(text.split()))


def reason_of(error: BaseException) -> str:
    """The message of another library's exception, on one line and without its full stop."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return one_line(said).rstrip(".") or type(error).__name__
