"""Threads of a training give their core away while they wait: OpenMP must be told before PyTorch is loaded."""

import os
import subprocess
import sys

import pytest

LOADED = """
import os, sys
import showtell.cli.commands.train, showtell.data, showtell.training
print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
"""


@pytest.mark.parametrize(("own", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_openmp_is_told_before_pytorch_is_loaded(own: dict[str, str], policy: str) -> None:
    """And what the user has said stays."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | own
    told = subprocess.run(
        [sys.executable, "-c", LOADED], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout.split() == [policy, "False"]
