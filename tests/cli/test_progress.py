"""Where no terminal shows a bar, a log file gets a line a minute."""

import pytest

from showtell.cli.progress import LogLines, byte_bars, progress_bar


@pytest.fixture
def clock(monkeypatch):
    """Seconds, to be moved by hand."""
    seconds = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: seconds[0])
    return seconds


def test_a_line_a_minute_with_done_rate_and_time_left(clock, capsys):
    with progress_bar("encoding", 1000, done=100) as advance:
        for _ in range(300):
            clock[0] += 0.5
            advance()
    assert capsys.readouterr().err.splitlines() == [
        "encoding: 220 of 1,000, 2.0/s, 7 min left",
        "encoding: 340 of 1,000, 2.0/s, 6 min left",
    ]


def test_other_work_has_a_speed_of_its_own(clock, capsys):
    lines = LogLines()
    for label in ("encoding images", "epoch 1/2"):
        lines.tell(label, 0, 600)
        clock[0] += 60
        lines.tell(label, 60 if label == "encoding images" else 300, 600)
        clock[0] += 600
    assert capsys.readouterr().err.splitlines() == [
        "encoding images: 60 of 600, 1.0/s, 9 min left",
        "epoch 1/2: 300 of 600, 5.0/s, 1 min left",
    ]


def test_nothing_is_said_of_short_work_or_of_what_is_not_to_be_shown(clock, capsys):
    with progress_bar("captioning", 10) as advance:
        advance()
    with progress_bar("captioning", 10, shown=False) as advance:
        clock[0] += 100
        advance()
    assert capsys.readouterr().err == ""


def test_downloads_each_have_their_line(clock, capsys):
    with byte_bars() as show:
        show("photos.zip", 0, 1_000_000)
        show("captions.zip", 0, 5_000)
        clock[0] += 61
        show("photos.zip", 250_000, 1_000_000)
    assert capsys.readouterr().err == "photos.zip, bytes: 250,000 of 1,000,000, 4,098.4/s, 4 min left\n"
