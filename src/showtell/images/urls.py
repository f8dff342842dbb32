"""Images behind URLs, for servers that were started to fetch them; never at addresses that are not public.

A name is resolved once, all its addresses are checked, and the connection goes to the address that was checked: a
name server that answers differently the second time changes nothing. Redirects are checked like first addresses.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from showtell import __version__
from showtell.errors import ImageError

PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 3
SECONDS = 10.0  # for all of it
SAFE = "%/?#[]@!$&'()*+,;=:"
EMBEDS_IPV4 = [ipaddress.ip_network(each) for each in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "::/96")]


def fetch(url: str, max_bytes: int) -> bytes:
    """The bytes behind a URL.

    Raises:
        ImageError: it is not one that a server fetches, or can't be fetched.
    """
    deadline = time.monotonic() + SECONDS
    for _ in range(MAX_REDIRECTS + 1):
        found = _get(url, max_bytes, deadline)
        if isinstance(found, bytes):
            return found
        url = urljoin(url, found)
    raise ImageError(f"{url} can't be fetched: more than {MAX_REDIRECTS} redirects.")


def is_public(address: str) -> bool:
    """Whether an address is one of the open Internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return is_public(str(ip.ipv4_mapped))
        if any(ip in network for network in EMBEDS_IPV4):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _get(url: str, max_bytes: int, deadline: float) -> bytes | str:
    """The bytes, or where a redirect leads."""
    parts = _checked(url)
    host = parts.hostname or ""
    try:
        with _connection(parts.scheme, host, _public_addresses(url, host), deadline) as connection:
            target = quote(parts.path or "/", safe=SAFE) + (f"?{quote(parts.query, safe=SAFE)}" if parts.query else "")
            connection.request("GET", target, headers={"User-Agent": f"showtell/{__version__}", "Accept": "image/*"})
            answer = connection.getresponse()
            if answer.status in REDIRECTS and answer.headers.get("Location"):
                return str(answer.headers["Location"])
            if answer.status != 200:
                raise ImageError(f"{url} can't be fetched: the server answers {answer.status}.")
            data = answer.read(max_bytes + 1)
            _left(deadline)  # if it is over, that may not be all
    except (OSError, http.client.HTTPException, UnicodeError, ValueError) as error:
        if isinstance(error, TimeoutError) or time.monotonic() > deadline:
            raise ImageError(f"{url} can't be fetched within {SECONDS:g} s.") from None
        raise ImageError(f"{url} can't be fetched: {error}.") from None
    if len(data) > max_bytes:
        raise ImageError(f"{url} is larger than {max_bytes / 2**20:.3g} MiB.")
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
        raise ImageError(f"{url} is not a URL that is fetched.", "Give http:// or https:// URLs.")
    if parts.username or parts.password or port not in (None, PORTS[parts.scheme]):
        raise ImageError(f"{url} is not fetched.", "Give URLs without a user's name or another port.")
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
    """A connection to the first address that answers, though it names the host; it ends at the deadline."""
    plain = _connected(addresses, PORTS[scheme], deadline)
    # Python's timeouts are for each read: a server that sends a byte now and then would never meet one.
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
    with suppress(OSError):  # it ended by itself
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
