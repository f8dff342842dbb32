"""Fetching one file: every way in which a server, a network or a file that changes can spoil it."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest

from showtell.data.download import fetching
from showtell.data.download.fetching import RemoteFile, check, fetch
from showtell.errors import DataError
from tests.data.web_server import Behaviour, web_server

CONTENT = random.Random(0).randbytes(3_000_000)
OTHER = random.Random(1).randbytes(3_000_000)


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def pauses(monkeypatch):
    """Waits are listed, and take no time."""
    waited: list[float] = []
    monkeypatch.setattr(fetching.time, "sleep", waited.append)
    return waited


@pytest.fixture
def get(tmp_path, pauses):
    """Fetch CONTENT from a server with these behaviours; returns the server."""

    def run(*behaviours: Behaviour, digest: str = sha256(CONTENT), size: int | None = None):
        with web_server({"/a.zip": list(behaviours)}) as server:
            fetch(RemoteFile(f"{server.url}/a.zip", digest, size), tmp_path / "a.zip")
        assert (tmp_path / "a.zip").read_bytes() == CONTENT
        assert [path.name for path in tmp_path.iterdir()] == ["a.zip"], "the part or its facts stay behind"
        return server

    return run


def test_a_good_server(get, pauses):
    assert get(Behaviour(CONTENT), size=len(CONTENT)).ranges == [None]
    assert pauses == []


def test_md5(get):
    get(Behaviour(CONTENT), digest=f"md5:{hashlib.md5(CONTENT).hexdigest()}")


def test_a_connection_that_breaks_off_is_gone_on_with(get, pauses):
    """http.client gives a short body without an error: the length must be counted."""
    server = get(Behaviour(CONTENT, drop_after=1_200_000), Behaviour(CONTENT, drop_after=500_000), Behaviour(CONTENT))
    assert server.ranges == [None, "bytes=1200000-", "bytes=1700000-"]
    assert [headers.get("If-Range") for _, headers in server.requests] == [None, '"one"', '"one"']
    assert pauses == [1, 1], "each try brought something"


def test_a_server_without_ranges_begins_again(get):
    get(Behaviour(CONTENT, drop_after=1_000_000), Behaviour(CONTENT, ignore_range=True))


def test_a_server_that_names_no_version_is_never_gone_on_with(get):
    """Without ETag and date nobody knows whether the rest belongs to the beginning."""
    server = get(Behaviour(CONTENT, etag=None, drop_after=1_000_000), Behaviour(CONTENT, etag=None))
    assert server.ranges == [None, None]


def test_a_weak_etag_is_no_version(get):
    server = get(Behaviour(CONTENT, etag='W/"x"', drop_after=1_000_000), Behaviour(CONTENT, etag='W/"x"'))
    assert server.ranges == [None, None]


def test_a_date_is_a_version(get):
    date = {"Last-Modified": "Mon, 01 Jan 2018 00:00:00 GMT"}
    first = Behaviour(CONTENT, etag=None, headers=date, drop_after=1_000_000)
    server = get(first, Behaviour(CONTENT, etag=None, headers=date, ignore_if_range=True))
    assert server.ranges == [None, "bytes=1000000-"]
    assert server.requests[1][1]["If-Range"] == date["Last-Modified"]


def test_a_file_that_changes_between_tries_begins_again(get):
    server = get(Behaviour(OTHER, drop_after=1_000_000), Behaviour(CONTENT, etag='"two"'))
    assert server.ranges == [None, "bytes=1000000-"]


def test_a_changed_file_is_seen_even_if_the_server_ignores_if_range(get):
    """Two halves of two versions would pass a check of the length."""
    changed = Behaviour(CONTENT, etag='"two"', ignore_if_range=True)
    server = get(Behaviour(OTHER, drop_after=1_000_000), changed)
    assert server.ranges == [None, "bytes=1000000-", None]


def test_a_shorter_file_on_the_server_begins_again(get):
    longer = Behaviour(CONTENT + OTHER, drop_after=3_500_000)
    server = get(longer, Behaviour(CONTENT, ignore_if_range=True))
    assert server.ranges == [None, "bytes=3500000-", None]


@pytest.mark.parametrize("range_", ["bytes 5-9/3000000", "bytes 0-9/*", "items 1-2/3", ""])
def test_another_range_than_asked_for_begins_again(get, range_):
    wrong = Behaviour(CONTENT, headers={"Content-Range": range_})
    server = get(Behaviour(CONTENT, drop_after=1_000_000), wrong, Behaviour(CONTENT))
    assert server.ranges == [None, "bytes=1000000-", None]


def test_a_range_that_nobody_asked_for(tmp_path, pauses):
    """A proxy's 206 to a plain request: a rest without a beginning, and no reason to try for ever."""
    partial = Behaviour(CONTENT, force_range=0)
    with web_server({"/a.zip": [partial]}) as server, pytest.raises(DataError, match="has changed on the server"):
        fetch(RemoteFile(f"{server.url}/a.zip", sha256(CONTENT)), tmp_path / "a.zip")
    assert len(server.requests) == fetching.TRIES


def test_the_next_run_goes_on(tmp_path, pauses):
    with web_server({"/a.zip": [Behaviour(CONTENT, drop_after=1_000_000)] + [Behaviour(status=503)] * 5}) as server:
        file = RemoteFile(f"{server.url}/a.zip", sha256(CONTENT))
        with pytest.raises(DataError, match=r"answers 503 .* kept: run the command again to continue"):
            fetch(file, tmp_path / "a.zip")
        assert not (tmp_path / "a.zip").exists()
        server.behaviours["/a.zip"] = [Behaviour(CONTENT)]
        fetch(file, tmp_path / "a.zip")
        assert server.ranges[-1] == "bytes=1000000-"
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert pauses == [1, 2, 4, 8], "the try that brought something is the first of the failures in a row"


def test_killed_after_the_last_byte(tmp_path):
    """The whole part is there, and the server has nothing after it: it must not be asked."""
    with web_server({"/a.zip": [Behaviour(CONTENT)]}) as server:
        file = RemoteFile(f"{server.url}/a.zip", sha256(CONTENT))
        (tmp_path / "a.zip.part").write_bytes(CONTENT)
        facts = f'{{"url": "{file.url}", "version": "\\"one\\"", "size": {len(CONTENT)}}}'
        (tmp_path / "a.zip.part.json").write_text(facts)
        fetch(file, tmp_path / "a.zip")
        assert server.requests == []


@pytest.mark.parametrize("facts", ["", "[]", '{"url": "http://elsewhere/a.zip", "version": "x", "size": 9}'])
def test_a_part_of_unknown_origin_is_not_used(tmp_path, facts):
    (tmp_path / "a.zip.part").write_bytes(b"something else")
    (tmp_path / "a.zip.part.json").write_text(facts)
    with web_server({"/a.zip": [Behaviour(CONTENT)]}) as server:
        fetch(RemoteFile(f"{server.url}/a.zip", sha256(CONTENT)), tmp_path / "a.zip")
        assert server.ranges == [None]


def test_a_damaged_part_is_found_and_removed(tmp_path):
    with web_server({"/a.zip": [Behaviour(CONTENT)]}) as server:
        file = RemoteFile(f"{server.url}/a.zip", sha256(CONTENT))
        (tmp_path / "a.zip.part").write_bytes(OTHER[:1_000_000])
        facts = f'{{"url": "{file.url}", "version": "\\"one\\"", "size": {len(CONTENT)}}}'
        (tmp_path / "a.zip.part.json").write_text(facts)
        with pytest.raises(DataError, match=r"a\.zip\.part is not the file that was published: its sha256 is"):
            fetch(file, tmp_path / "a.zip")
        assert list(tmp_path.iterdir()) == [], "the next run must begin again"
        fetch(file, tmp_path / "a.zip")


def test_too_long_a_content_length_is_a_broken_connection(tmp_path, pauses):
    """And it is not tried for ever: each try brings the same bytes."""
    behaviour = Behaviour(CONTENT, length=len(CONTENT) + 10)
    with web_server({"/a.zip": [behaviour]}) as server, pytest.raises(DataError, match="broke off after 3,000,000 of"):
        fetch(RemoteFile(f"{server.url}/a.zip", sha256(CONTENT)), tmp_path / "a.zip")
    assert len(server.requests) <= 2 * fetching.TRIES


def test_too_short_a_content_length_fails_the_check(tmp_path):
    with (
        web_server({"/a.zip": [Behaviour(CONTENT, length=1000)]}) as server,
        pytest.raises(DataError, match="is not the file that was published"),
    ):
        fetch(RemoteFile(f"{server.url}/a.zip", sha256(CONTENT)), tmp_path / "a.zip")


def test_another_size_than_published_is_refused_before_it_is_fetched(tmp_path):
    """13 GB of a proxy's making need not come first."""
    with (
        web_server({"/a.zip": [Behaviour(CONTENT)]}) as server,
        pytest.raises(DataError, match=r"is 3,000,000 bytes long now, but 7.* were published.*Its publisher"),
    ):
        fetch(RemoteFile(f"{server.url}/a.zip", sha256(CONTENT), 7), tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_unsaid_length_is_refused(tmp_path):
    with (
        web_server({"/a.zip": [Behaviour(CONTENT, no_length=True)]}) as server,
        pytest.raises(DataError, match="does not say how long it is"),
    ):
        fetch(RemoteFile(f"{server.url}/a.zip", sha256(CONTENT)), tmp_path / "a.zip")


def test_not_found_is_final(tmp_path, pauses):
    with (
        web_server({}) as server,
        pytest.raises(DataError, match=r"/a\.zip can't be fetched: the server answers 404 Not Found\. Check whether"),
    ):
        fetch(RemoteFile(f"{server.url}/a.zip", sha256(CONTENT)), tmp_path / "a.zip")
    assert (len(server.requests), pauses) == (1, [])


def test_a_busy_server_is_left_alone_as_long_as_it_asks(get, pauses):
    server = get(
        Behaviour(status=503, headers={"Retry-After": "7"}),
        Behaviour(status=429, headers={"Retry-After": formatdate(time.time() + 30, usegmt=True)}),
        Behaviour(status=500, headers={"Retry-After": "soon"}),
        Behaviour(CONTENT),
    )
    assert len(server.requests) == 4
    assert pauses[0] == 7
    assert 25 < pauses[1] <= 30
    assert pauses[2] == 4, "the third failure in a row"


def test_a_server_that_asks_for_an_hour_ends_the_run(tmp_path):
    busy = Behaviour(status=503, headers={"Retry-After": "3600"})
    with (
        web_server({"/a.zip": [busy]}) as server,
        pytest.raises(DataError, match="clients to wait for 60 minutes"),
    ):
        fetch(RemoteFile(f"{server.url}/a.zip", sha256(CONTENT)), tmp_path / "a.zip")


def test_no_server_at_all(tmp_path, pauses):
    with web_server({}) as server:
        url = f"{server.url}/a.zip"
    with pytest.raises(DataError, match=r"a\.zip can't be fetched: .*refused"):
        fetch(RemoteFile(url, sha256(CONTENT)), tmp_path / "a.zip")
    assert pauses == [1, 2, 4, 8]


def test_a_full_disk_is_told_before_the_download(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with (
        web_server({"/a.zip": [Behaviour(CONTENT)]}) as server,
        pytest.raises(DataError, match=r"a\.zip takes 0\.0 GB, but the disk of .* has 0\.0 GB free\. Make room"),
    ):
        fetch(RemoteFile(f"{server.url}/a.zip", sha256(CONTENT)), tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


def test_check_names_the_file(tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(DataError, match=r"x is not the file that was published: its md5 is 9dd4"):
        check(RemoteFile("http://x/x", "md5:00"), tmp_path / "x")


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_kill_9_in_the_middle(tmp_path):
    """The whole way: a process dies without a chance to tidy up, and the next one asks for the rest."""
    code = """
import sys
from pathlib import Path
from showtell.data.download.fetching import RemoteFile, fetch
fetch(RemoteFile(sys.argv[1], sys.argv[2]), Path(sys.argv[3]), lambda done, total: print(done, flush=True))
"""
    path = tmp_path / "a.zip"
    first = Behaviour(CONTENT, drop_after=2_000_000)
    hold = Behaviour(status=503, headers={"Retry-After": "60"})
    with web_server({"/a.zip": [first, hold]}) as server:
        arguments = [f"{server.url}/a.zip", sha256(CONTENT), str(path)]
        process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
        while len(server.requests) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        server.behaviours["/a.zip"] = [Behaviour(CONTENT)]
        fetch(RemoteFile(arguments[0], arguments[1]), path)
        assert server.ranges[-1] == "bytes=2000000-"
    assert Path(path).read_bytes() == CONTENT
