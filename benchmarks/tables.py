"""All the tables that README and docs quote, as one Markdown page with machine, date and versions: docs/benchmarks.md.

    make benchmarks                                                  # what needs no data and no training
    make benchmarks RUN=runs/flickr8k PHOTOS=photos/ SCORED=folder/  # PyTorch's rows, the server and the metrics, too

The machine should do nothing else meanwhile.
"""

import argparse
import datetime
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES = ("showtell", "numpy", "pillow", "onnxruntime", "openvino", "torch", "transformers")
EXPORTED = ("onnx", "onnx together", "openvino", "openvino-float32")


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="a training run, for the rows of PyTorch and int8")
    parser.add_argument("--photos", help="a folder of photos, for captioning and the server")
    parser.add_argument("--scored", help="a folder as benchmarks/metrics.py takes it")
    options = parser.parse_args()
    print(f"# Benchmarks\n\n{machine()}\n", flush=True)
    failed = False
    for command in commands(options.run, options.photos, options.scored):
        print(f"    python benchmarks/{shlex.join(command)}\n\n```", flush=True)
        failed |= subprocess.run([sys.executable, HERE / command[0], *command[1:]], check=False).returncode != 0
        print("```\n", flush=True)
    raise SystemExit(failed)


def commands(run: str | None, photos: str | None, scored: str | None) -> Iterator[list[str]]:
    """The benchmarks that can run with what there is, as command lines."""
    yield ["train_step.py"]
    yield ["train_step.py", "--beside", "1"]
    yield ["systems.py"]
    yield ["search.py"]
    systems = [] if run else ["--exported", "flickr8k", "--systems", *EXPORTED]
    yield ["caption.py", run or "flickr8k", *(["--photos", photos] if photos else []), *systems]
    if photos:
        yield ["serve.py", run or "flickr8k", photos]
    if scored:
        yield ["metrics.py", scored]


def machine() -> str:
    """The processor, the date, and the versions of what matters for speed."""
    said = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in said.splitlines() if line.startswith("model name")]
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    processor = names[0] if names else platform.processor() or platform.machine()
    return (
        f"{datetime.date.today():%Y-%m-%d}, {processor}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}, {', '.join(found)}."
    )


if __name__ == "__main__":
    main()
