"""Who reads a file or a folder while another process replaces it, over and over, finds the old or the new."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np

from showtell.bundle import load_bundle
from showtell.files import write_file
from showtell.pages.training import write_report
from tests.fake_model import save_fake_model
from tests.fresh_processes import CONTEXT

SECONDS = 3


def over_and_over(write: Callable[[Path], object], folder: Path, stop: Event) -> None:
    while not stop.is_set():
        write(folder)


@contextmanager
def replaced_meanwhile(write: Callable[[Path], object], folder: Path) -> Iterator[None]:
    """Another process writes without a pause."""
    write(folder)
    stop = CONTEXT.Event()
    writer = CONTEXT.Process(target=over_and_over, args=(write, folder, stop))
    writer.start()
    try:
        yield
        assert writer.is_alive(), "the writer failed"
    finally:
        stop.set()
        writer.join(20)
    assert writer.exitcode == 0


def read_often(read: Callable[[], object]) -> None:
    begun, times = time.monotonic(), 0
    while time.monotonic() - begun < SECONDS:
        read()
        times += 1
    assert times > 5


def test_a_model_folder(tmp_path: Path) -> None:
    with replaced_meanwhile(save_fake_model, tmp_path / "m"):
        read_often(lambda: load_bundle(tmp_path / "m").weights())


def write_run(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    line = '{"epoch": 1, "scores": {"CIDEr": 0.5}}\n'
    write_file(folder / "log.jsonl", line * np.random.default_rng().integers(1, 400))


def test_the_log_of_a_run(tmp_path: Path) -> None:
    def read() -> None:
        write_report(tmp_path / "run")
        assert "can’t be read" not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")

    with replaced_meanwhile(write_run, tmp_path / "run"):
        read_often(read)
