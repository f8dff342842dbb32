"""`showtell serve` under load: 1, 8 and 64 clients on loopback, with batching and without, in one run.

    python benchmarks/serve.py MODEL PHOTOS                  # MODEL: an exported one; PHOTOS: a folder of JPEGs
    python benchmarks/serve.py MODEL PHOTOS --requests 100 --memory-requests 500

Two servers run in processes of their own, one with its default batches and one with `--batch-size 1`, and take turns.
A client sends one photo at a time over one connection, and the next one when it has the captions. After a 429, it
waits as long as the server says and sends the photo again; 429s are counted. Every answer must name the photo that was
sent: missing or mixed-up answers count as lost. Latency is the time from the first byte sent to the last byte received
of the request that was answered.

The clients use part of the same cores. The rate of folder captioning is that of `Captioner.stream` on the same photos,
as `showtell caption` calls it, without its start and while nothing else runs. The last table is the server's memory
over many requests of 64 clients.
"""

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from urllib.request import urlopen

CLIENTS = (1, 8, 64)
PHOTOS = 256  # different ones
BOUNDARY = "photo-----"
FOLDER = """
import sys, time
from pathlib import Path
import showtell
captioner = showtell.load(sys.argv[1], threads=1)
photos = sys.stdin.read().split("\\n")
list(captioner.stream(photos[:32]))
begin = time.perf_counter()
count = sum(1 for _ in captioner.stream(photos))
print(count / (time.perf_counter() - begin))
"""


@dataclass
class Load:
    """What a number of clients measured."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refused: int = 0
    lost: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Requests answered a second."""
        return len(self.latencies) / self.seconds

    def milliseconds(self, share: float) -> float:
        """The latency that this share of the requests did not exceed."""
        ordered = sorted(self.latencies)
        return 1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@contextmanager
def server(model: Path, *options: str) -> Iterator[int]:
    """A server in its own process; its port."""
    command = [sys.executable, "-m", "showtell", "serve", "--model", str(model), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        line = process.stderr.readline()
        port = re.search(r"http://[^ ]*:(\d+)", line)
        if port is None:
            sys.exit(f"The server did not start: {line}{process.stderr.read()}")
        yield int(port[1])
    finally:
        process.terminate()
        process.wait(60)


def request_bytes(photo: Path) -> bytes:
    """The whole request for the captions of a photo, which has its file's name."""
    body = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{photo.name}"\r\n\r\n'.encode()
        + photo.read_bytes()
        + f"\r\n--{BOUNDARY}--\r\n".encode()
    )
    head = (
        "POST /v1/captions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(port: int, clients: int, todo: Sequence[tuple[str, bytes]]) -> Load:
    """Let clients send all requests (name, bytes); each takes the next one that is left."""
    load, left = Load(), iter(todo)
    begin = time.perf_counter()
    await asyncio.gather(*(client(port, left, load) for _ in range(clients)))
    load.seconds = time.perf_counter() - begin
    return load


async def client(port: int, left: Iterator[tuple[str, bytes]], load: Load) -> None:
    """One client, which keeps its connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for name, request in left:
        while True:
            begin = time.perf_counter()
            try:
                writer.write(request)
                await writer.drain()
                status, retry_after, body = await answer(reader)
            except (OSError, EOFError) as error:
                load.lost.append(f"{name}: {error!r}")
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            if status == 429:
                load.refused += 1
                await asyncio.sleep(retry_after)
                continue
            if status == 200 and f'"name":"{name}","captions":[{{"text":"'.encode() in body:
                load.latencies.append(time.perf_counter() - begin)
            else:
                load.lost.append(f"{name}: {status} {body[:200]!r}")
            break
    writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, float, bytes]:
    """Status, Retry-After and body of the next answer of a connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    values = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    body = await reader.readexactly(int(values["content-length"]))
    return int(head.split(" ")[1]), float(values.get("retry-after", 0)), body


def folder_rate(model: Path, photos: Sequence[Path]) -> float:
    """Images a second of folder captioning, without its start."""
    command = [sys.executable, "-c", FOLDER, str(model)]
    done = subprocess.run(command, input="\n".join(map(str, photos)), capture_output=True, text=True, check=True)
    return float(done.stdout)


def memory(port: int) -> float:
    """MB of the server's memory."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as found:
        text = found.read().decode()
    match = re.search(r"^process_resident_memory_bytes (\S+)", text, re.MULTILINE)
    return float(match[1]) / 1e6 if match else float("nan")


def print_memory(port: int, requests: Sequence[tuple[str, bytes]], count: int) -> int:
    """Print the server's memory while it answers `count` requests of 64 clients; returns how many were lost."""
    print(f"\nmemory over {count:,} requests of {CLIENTS[-1]} clients, MB:")
    parts, lost = 10, 0
    print(f"{0:9,}{memory(port):9.0f}")
    for part in range(1, parts + 1):
        load = asyncio.run(ask(port, CLIENTS[-1], list(islice(cycle(requests), count // parts))))
        lost += len(load.lost)
        print(f"{part * (count // parts):9,}{memory(port):9.0f}", flush=True)
    return lost


def main() -> None:
    """Print the tables; the exit code is 1 if a request was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--requests", type=int, default=600, help="for each line of the table")
    parser.add_argument("--memory-requests", type=int, default=5000)
    options = parser.parse_args()
    photos = sorted(options.photos.glob("*.jpg"))[:PHOTOS]
    if not photos:
        sys.exit(f"There is no .jpg in {options.photos}.")
    requests = [(photo.name, request_bytes(photo)) for photo in photos]
    size = statistics.mean(len(request) for _, request in requests)
    folder = folder_rate(options.model, list(islice(cycle(photos), options.requests)))
    print(f"{len(photos)} photos of {size / 1e3:.0f} KB; folder captioning: {folder:.1f} images/s\n")
    print("clients   batching   requests/s   of folder's   p50 ms   p99 ms   429s   lost")
    lost = 0
    with server(options.model) as together, server(options.model, "--batch-size", "1") as alone:
        for port in (together, alone):
            asyncio.run(ask(port, 8, requests[:32]))  # warms up
        for clients in CLIENTS:
            for kind, port in (("on", together), ("off", alone)):
                load = asyncio.run(ask(port, clients, list(islice(cycle(requests), options.requests))))
                missing = load.lost + ["no answer"] * (options.requests - len(load.latencies) - len(load.lost))
                lost += len(missing)
                print(
                    f"{clients:7}{kind:>11}{load.rate:13.1f}{100 * load.rate / folder:12.0f} %"
                    f"{load.milliseconds(0.5):9.0f}{load.milliseconds(0.99):9.0f}{load.refused:7}{len(missing):7}",
                    flush=True,
                )
                for each in missing[:3]:
                    print(f"    lost: {each}")
        if options.memory_requests:
            lost += print_memory(together, requests, options.memory_requests)
    print(json.dumps({"lost": lost}))
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
