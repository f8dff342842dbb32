"""All the speeds that the README and docs quote, as Markdown with machine, date and versions.

    make benchmarks                                                  # what needs no data and no training
    make benchmarks RUN=runs/flickr8k PHOTOS=photos/ SCORED=folder/  # PyTorch's rows, the server and the metrics, too

With --into docs/benchmarks.md, the new tables replace what follows the line `MARK` there, once all of them are done.
Meanwhile the machine should do nothing else.
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
MARK = "<!-- make benchmarks replaces all that follows -->"


def main() -> None:
    """Print the tables, and put them into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="a training run, for the rows of PyTorch and int8")
    parser.add_argument("--photos", help="a folder of photos, for captioning and the server")
    parser.add_argument("--scored", help="a folder for benchmarks/metrics.py")
    parser.add_argument("--into", type=Path, help="a Markdown page with the mark")
    options = parser.parse_args()
    if options.into:
        replaced(options.into.read_text(encoding="utf-8"), "")  # fails now, before the long work, if there is no mark
    parts, failed = [machine()], False
    print(parts[0], flush=True)
    for command in commands(options.run, options.photos, options.scored):
        print(f"\n    python benchmarks/{shlex.join(command)}\n", flush=True)
        said, good = run(command)
        failed |= not good
        parts.append(f"    python benchmarks/{shlex.join(command)}\n\n```\n{said}```")
    if options.into and not failed:
        page = replaced(options.into.read_text(encoding="utf-8"), "\n\n".join(parts))
        options.into.write_text(page, encoding="utf-8")
    raise SystemExit(failed)


def run(command: list[str]) -> tuple[str, bool]:
    """Run a benchmark and show what it prints; returns that, and whether it succeeded."""
    said = []
    arguments = [sys.executable, str(HERE / command[0]), *command[1:]]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            said.append(line)
    return "".join(said), process.returncode == 0


def replaced(page: str, tables: str) -> str:
    """The page with these tables after its mark."""
    head, mark, _ = page.partition(f"{MARK}\n")
    if not mark:
        raise SystemExit(f"The page lacks the line {MARK}")
    return f"{head}{mark}\n{tables}\n"


def commands(run: str | None, photos: str | None, scored: str | None) -> Iterator[list[str]]:
    """The benchmarks that can run with what is given, as command lines."""
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
