"""Images behind URLs: URLs that the user names, and URLs that others send to a server.

URLs from others are fetched from public addresses only. A name is resolved once, all its addresses are checked, and the
connection goes to a checked address, so a name server that gives another answer later changes nothing. Redirects are
checked in the same way.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.error import HTTPError
from urllib.parse import SplitResult, quote, urljoin, urlsplit
from urllib.request import Request, urlopen

from showtell import __version__
from showtell.errors import ImageError, reason_of

PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 3
SECONDS = 10.0  # for a whole download of a URL that somebody sent
SILENCE = 20.0  # seconds without a byte from a URL that the user named
SAFE = "%/?#[]@!$&'()*+,;=:"
HEADERS = {"User-Agent": f"showtell/{__version__}", "Accept": "image/*"}
TRY_LATER = {408, 425, 429, 500, 502, 503, 504}
EMBEDS_IPV4 = [ipaddress.ip_network(each) for each in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "::/96")]


class Unanswered(ImageError):
    """A URL that could not be fetched now; the next try may succeed."""


def fetch(url: str, max_bytes: int, *, trusted: bool = False) -> bytes:
    """The bytes behind a URL.

    Args:
        url: with spaces and letters as people paste them, or percent-encoded.
        max_bytes: more is refused.
        trusted: the user has named it. It may then be anywhere, and is fetched through the proxy that the environment
            names. Others' URLs must be public, on the usual ports, and arrive within `SECONDS`.

    Raises:
        ImageError: it may not or can't be fetched; Unanswered if another try may succeed.
    """
    deadline = time.monotonic() + SECONDS
    try:
        data = _of_the_user(url, max_bytes) if trusted else _of_others(url, max_bytes, deadline)
    except HTTPError as error:
        raise _refusal(url, error.code, error.reason) from None
    except TimeoutError:
        raise ImageError(f"{url} can't be fetched: no answer for {SILENCE:g} s.") from None
    except (ConnectionResetError, http.client.IncompleteRead) as error:
        raise Unanswered(f"{url} can't be fetched: {reason_of(error)}.") from None
    except (OSError, http.client.HTTPException, ValueError) as error:  # also if the port is not a number
        raise ImageError(f"{url} can't be fetched: {getattr(error, 'reason', None) or reason_of(error)}.") from None
    if len(data) > max_bytes:
        raise ImageError(
            f"{url} is larger than {max_bytes / 2**20:.3g} MiB.", "Download it, and give the file." if trusted else ""
        )
    return data


def is_public(address: str) -> bool:
    """Whether an address is one of the open Internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return is_public(str(ip.ipv4_mapped))
        if any(ip in network for network in EMBEDS_IPV4):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _refusal(url: str, status: int, reason: str) -> ImageError:
    kind = Unanswered if status in TRY_LATER else ImageError
    return kind(f"{url} can't be fetched: the server answers {status} {reason}".rstrip() + ".")


def _of_the_user(url: str, max_bytes: int) -> bytes:
    with urlopen(Request(quote(url, safe=SAFE), headers=HEADERS), timeout=SILENCE) as answer:
        data: bytes = answer.read(max_bytes + 1)
    return data


def _of_others(url: str, max_bytes: int, deadline: float) -> bytes:
    try:
        for _ in range(MAX_REDIRECTS + 1):
            found = _get(url, max_bytes, deadline)
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, TimeoutError) or time.monotonic() > deadline:
            raise ImageError(f"{url} can't be fetched within {SECONDS:g} s.") from None
        raise
    raise ImageError(f"{url} can't be fetched: more than {MAX_REDIRECTS} redirects.")


def _get(url: str, max_bytes: int, deadline: float) -> bytes | str:
    """The bytes, or where a redirect leads."""
    parts = _checked(url)
    host = parts.hostname or ""
    with _connection(parts.scheme, host, _public_addresses(url, host), deadline) as connection:
        target = quote(parts.path or "/", safe=SAFE) + (f"?{quote(parts.query, safe=SAFE)}" if parts.query else "")
        connection.request("GET", target, headers=HEADERS)
        answer = connection.getresponse()
        if answer.status in REDIRECTS and answer.headers.get("Location"):
            return str(answer.headers["Location"])
        if answer.status != 200:
            raise _refusal(url, answer.status, answer.reason)
        data = answer.read(max_bytes + 1)
        _left(deadline)  # when time is over, the answer may be incomplete
    return data


def _checked(url: str) -> SplitResult:
    """The parts of a URL that may be fetched.

    Raises:
        ImageError: it may not.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ImageError(f"{url} is not a URL.") from None
    if parts.scheme not in PORTS or not parts.hostname:
        raise ImageError(f"{url} is not a URL that showtell fetches.", "Give http:// or https:// URLs.")
    if parts.username or parts.password or port not in (None, PORTS[parts.scheme]):
        raise ImageError(f"{url} is not fetched.", "Give a URL without a user name and without a port of its own.")
    return parts


def _public_addresses(url: str, host: str) -> list[str]:
    """The host's addresses.

    Raises:
        ImageError: it has none, or one of them is not public.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ImageError(f"{url} can't be fetched: there is no host {host}.") from None
    addresses = [str(each[4][0]) for each in found]
    if not addresses or not all(map(is_public, addresses)):
        raise ImageError(f"{url} is not fetched: its address is not public.", "Send the file, in data.")
    return addresses


@contextmanager
def _connection(scheme: str, host: str, addresses: list[str], deadline: float) -> Iterator[http.client.HTTPConnection]:
    """A connection to the first address that answers; it still names the host, and ends at the deadline."""
    plain = _connected(addresses, PORTS[scheme], deadline)
    # Python's timeouts are for each read: a server that sends a byte now and then would never time out.
    handle = plain.dup()
    end = threading.Timer(_left(deadline), _shut, (handle,))
    end.start()
    connection = http.client.HTTPConnection(host, PORTS[scheme])
    try:
        connection.sock = plain
        if scheme == "https":
            connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        yield connection
    finally:
        end.cancel()
        connection.close()
        handle.close()


def _connected(addresses: list[str], port: int, deadline: float) -> socket.socket:
    """A socket that is connected to the first address that answers."""
    error: OSError | None = None
    for address in addresses:
        try:
            return socket.create_connection((address, port), _left(deadline))
        except OSError as its_error:
            error = its_error
    raise error or OSError("no address")


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # it has already ended
        connection.shutdown(socket.SHUT_RDWR)


def _left(deadline: float) -> float:
    """The seconds that are left.

    Raises:
        TimeoutError: none.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
