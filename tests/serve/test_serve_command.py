"""`showtell serve` as a process: how it starts, what it refuses, and how it stops."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from http.client import HTTPConnection
from pathlib import Path

import pytest

from showtell.cli import main
from showtell.cli.commands import serve as command
from showtell.errors import UsageError
from showtell.serve import server
from showtell.serve.examples import find_examples
from tests.fake_model import picture, save_fake_model, use_fake_engine
from tests.serve.serving import RED, fake_captioner, until
from tests.serve.test_api import as_json
from tests.serve.test_hostile import waiting

REPOSITORY = Path(__file__).parents[2]

# A model that says how many images a batch has, and captions it when a line comes on stdin; served as the command does.
HELD = """
import sys
sys.path.insert(0, {repository!r})
from showtell.serve.server import serve
from showtell.serve.settings import Settings
from tests.fake_model import FakeEngine
from tests.serve.serving import fake_captioner

class Held(FakeEngine):
    def encode(self, images):
        print(len(images), flush=True)
        sys.stdin.readline()
        return super().encode(images)

def announce(url):
    print(url, file=sys.stderr, flush=True)

serve({{"fake": fake_captioner(Held)}}, Settings(batch_size=2), host="127.0.0.1", port=0, announce=announce)
print("served to the end")
"""


@pytest.fixture
def held_server():
    code = HELD.format(repository=str(REPOSITORY))
    process = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, stderr=-1, text=True)
    process.stdin.write("\n")  # for the run with which it warms up
    process.stdin.flush()
    try:
        assert process.stdout.readline() == "1\n"
        yield process, int(re.search(r":(\d+)\n", process.stderr.readline())[1])
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_what_was_taken_is_finished_when_it_is_told_to_stop(held_server, kind):
    """Eight requests, batches of two: most of them wait in the queue when the signal comes."""
    process, port = held_server
    body = json.dumps(as_json("red")).encode()
    answers, sent = [], threading.Barrier(9)

    def ask() -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/v1/captions", body, {"Content-Type": "application/json"})
        sent.wait(60)
        answer = connection.getresponse()
        answers.append((answer.status, json.load(answer)["images"][0]["captions"][0]["text"]))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    sent.wait(60)
    taken = int(process.stdout.readline())
    until(lambda: waiting(port) == 8 - taken)
    process.send_signal(kind)
    process.stdin.write("\n" * 8)
    process.stdin.flush()
    for thread in threads:
        thread.join(60)
    assert answers == [(200, RED)] * 8
    out, error = process.communicate(timeout=60)
    *batches, last = out.splitlines()
    assert last == "served to the end"
    assert taken + sum(map(int, batches)) == 8
    assert error == ""
    assert process.returncode == 0


def test_the_command_says_where_and_what_it_serves(tmp_path, monkeypatch, capsys):
    use_fake_engine(monkeypatch)
    save_fake_model(tmp_path / "m")
    served = {}

    def serve(captioners, settings, *, announce, **values):
        served.update(values, captioners=captioners, settings=settings)
        announce("http://127.0.0.1:8000")

    monkeypatch.setattr("showtell.serve.server.serve", serve)
    monkeypatch.setenv("SHOWTELL_TOKEN", "s3cret")
    model = str(tmp_path / "m")
    assert main(["serve", "-m", model, "-m", model, "--max-size", "0.5", "--queue", "7", "--fetch-urls"]) == 0
    line = "showtell serves fake, fake 2 at http://127.0.0.1:8000 (Ctrl-C stops it)\n"
    assert capsys.readouterr().err == line
    assert served["host"] == "127.0.0.1"
    settings = served["settings"]
    assert (settings.max_bytes, settings.queue, settings.fetch_urls) == (2**19, 7, True)
    assert settings.token.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(settings)
    monkeypatch.delenv("SHOWTELL_TOKEN")
    assert main(["serve", "-m", model, "--host", "0.0.0.0"]) == 0
    assert "other machines can reach this server, and it asks for no --token" in capsys.readouterr().err


def test_a_port_that_is_taken_is_a_sentence(tmp_path, monkeypatch, capsys):
    use_fake_engine(monkeypatch)
    save_fake_model(tmp_path / "m")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "-m", str(tmp_path / "m"), "--port", str(taken.getsockname()[1])]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"showtell: The server can't listen on 127\.0\.0\.1:\d+: .*\. Choose another --port or --host\.\n", error
    )


def test_a_missing_extra_is_a_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "showtell.serve.server", None)
    monkeypatch.setattr(sys.modules["showtell.serve"], "server", None, raising=False)
    for name in [name for name in sys.modules if name.startswith("showtell.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve"]) == 2
    assert "pip install 'showtell[serve]'" in capsys.readouterr().err


def test_serving_loads_no_pytorch():
    """Exported models are served without it: the imports of the server must not bring it."""
    code = "import sys, showtell.serve.server, showtell.cli.commands.serve; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "uvicorn" in modules
    assert not {"torch", "transformers", "matplotlib", "skimage"} & set(modules)


@pytest.mark.parametrize(
    ("host", "alone"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("web", False)]
)
def test_loopback_is_known(host, alone):
    assert command.is_loopback(host) == alone


def test_examples_are_of_the_users_folder(tmp_path):
    for name in ("b", "a", "c"):
        picture("red", 2000).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.jpg").write_bytes(b"no")
    (tmp_path / "notes.txt").write_text("no")
    found = find_examples([fake_captioner()], tmp_path)
    assert [each.name for each in found] == ["a", "b", "c"]
    assert all(each.jpeg.startswith(b"\xff\xd8") for each in found)
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="holds no photo"):
        find_examples([fake_captioner()], tmp_path / "none")


def test_a_model_of_drawn_scenes_gets_drawn_scenes(monkeypatch):
    from showtell.serve import examples

    monkeypatch.setattr(examples, "_knows_shapes_only", lambda captioner: True)
    found = find_examples([fake_captioner()], None)
    assert [each.name for each in found] == ["Scene 1", "Scene 2", "Scene 3", "Scene 4"]


def test_answers_are_sent_without_delay():
    """With Nagle's algorithm an answer's body waits 40 ms for the receipt of its head."""
    with server._listening("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
