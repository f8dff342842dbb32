"""The OpenVINO engine: who chooses it, and its cache, which may break and must not matter."""

import os
import subprocess
import sys
import threading
from typing import get_args

import numpy as np
import pytest

import showtell
from showtell import captioner as captioner_module
from showtell.bundle import load_bundle
from showtell.captioner import EngineName
from showtell.cli import main
from showtell.cli.commands.caption import what_captions_depend_on
from showtell.engines import openvino as openvino_module
from showtell.engines.onnx import OnnxEngine
from showtell.engines.openvino import OpenVinoEngine
from showtell.errors import BundleError, MissingExtraError, UsageError
from showtell.export.graphs import export
from tests.fake_model import picture
from tests.tiny_model import save_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An exported model."""
    folder = tmp_path_factory.mktemp("models")
    export(load_bundle(save_tiny_model(folder / "trained", attention=True)), folder / "exported")
    return folder / "exported"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def words(model, engine="openvino-float32"):
    return [caption.text for caption in showtell.load(model, engine=engine)(picture("red", 64), num=3)]


@pytest.mark.parametrize(("has", "engine"), [(True, OpenVinoEngine), (False, OnnxEngine)])
def test_auto_takes_it_where_it_is_faster(model, monkeypatch, has, engine):
    monkeypatch.setattr(openvino_module, "has_bfloat16", lambda: has)
    assert isinstance(showtell.load(model).engine, engine)
    assert isinstance(showtell.load(model, engine="onnx").engine, OnnxEngine)
    assert showtell.load(model, engine="openvino-float32").engine.arithmetic == "openvino float32"


def test_without_the_package(model, monkeypatch):
    monkeypatch.setattr(captioner_module, "find_spec", lambda name: None)
    assert isinstance(showtell.load(model).engine, OnnxEngine)
    with pytest.raises(MissingExtraError, match=r"The engine openvino needs .* pip install 'showtell\[openvino\]'"):
        showtell.load(model, engine="openvino")


def test_engines_are_for_exported_models(model):
    with pytest.raises(
        UsageError, match=r"trained is not exported, so only PyTorch can run it\. Run 'showtell export' first"
    ):
        showtell.load(model.parent / "trained", engine="onnx")
    with pytest.raises(UsageError, match=r"There is no engine 'fast'\. Choose from: auto, onnx, openvino"):
        showtell.load(model, engine="fast")


def test_what_it_cannot_read_onnx_runtime_runs(tmp_path, monkeypatch):
    """Int8 convolutions."""
    monkeypatch.setattr(openvino_module, "has_bfloat16", lambda: True)
    photos = np.random.default_rng(0).normal(size=(4, 3, 64, 64)).astype(np.float32)
    try:
        export(load_bundle(save_tiny_model(tmp_path / "trained")), tmp_path / "int8", calibration=photos)
    except UsageError:
        pytest.skip("int8 moves this model's words too far")
    assert isinstance(showtell.load(tmp_path / "int8").engine, OnnxEngine)


def test_nothing_is_told_to_anybody(model, tmp_path):
    """Importing openvino notes an id in the home folder, and sends it."""
    (tmp_path / "home").mkdir()
    picture("red", 64).save(tmp_path / "red.png")
    code = f"""
import sys
from showtell.cli import main
assert main(["caption", {str(tmp_path / "red.png")!r}, "-m", {str(model)!r}, "--engine", "openvino"]) == 0
assert "openvino" in sys.modules
assert not {{"openvino_telemetry", "onnxruntime", "torch"}} & set(sys.modules)"""
    environment = {**os.environ, "HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "home").iterdir())


def test_compiled_graphs_are_kept(model, cache):
    first = words(model)
    assert first == words(model) == words(model, "onnx")
    assert len(list(cache.rglob("*.blob"))) == 3


@pytest.mark.parametrize("content", [b"", b"nonsense", None], ids=["empty", "nonsense", "cut off"])
def test_a_damaged_cache_does_not_matter(model, cache, content):
    expected = words(model)
    for blob in cache.rglob("*.blob"):
        blob.chmod(0o600)
        blob.write_bytes(blob.read_bytes()[: blob.stat().st_size // 2] if content is None else content)
    assert words(model) == expected


def test_nor_does_one_that_cannot_be_written(model, cache):
    cache.write_text("a file, where a folder should be")
    assert words(model) == words(model, "onnx")


def test_searches_at_once(model):
    """Making a request while another one ran stopped both for ever."""
    captioner = showtell.load(model, threads=1, engine="openvino-float32")
    photos = [picture(colour, 64) for colour in ("red", "green", "blue", "white")]
    expected = [[caption.text for caption in captions] for captions in captioner(photos)]
    found = []

    def search():
        for _ in range(5):
            found.append([[caption.text for caption in captions] for captions in captioner(photos)])

    threads = [threading.Thread(target=search, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [expected] * 20


@pytest.mark.parametrize(("engine", "said"), [("onnx", "onnx"), ("openvino-float32", "openvino float32")])
def test_a_run_goes_on_with_its_own_engine_only(model, engine, said):
    """The journal notes what captions depend on, and `--resume` refuses another."""
    for models in (model, [model, model]):
        captioner = showtell.load(models, engine=engine)
        assert what_captions_depend_on(captioner, captioner.options())["engine"] == said


@pytest.mark.parametrize("engine", [*get_args(EngineName), "local"])
def test_the_command_line(model, tmp_path, capsys, engine):
    picture("red", 64).save(tmp_path / "red.png")
    assert main(["caption", "-m", str(model), str(tmp_path / "red.png"), "--engine", engine]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/red.png\t")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the signal stack as Linux has it")
def test_python_keeps_its_signal_stack(model):
    """OpenVINO's has no room for a handler, so Ctrl-C during a training after captions ended in SIGSEGV."""
    code = (
        "import ctypes, sys, showtell\n"
        "class Stack(ctypes.Structure):\n"
        "    _fields_ = [('start', ctypes.c_void_p), ('flags', ctypes.c_int), ('size', ctypes.c_size_t)]\n"
        "def stack():\n"
        "    now = Stack()\n"
        "    assert not ctypes.CDLL(None).sigaltstack(None, ctypes.byref(now))\n"
        "    return now.start, now.flags, now.size\n"
        "before = stack()\n"
        "engine = showtell.load(sys.argv[1], engine='openvino-float32').engine\n"
        "loaded = stack()\n"
        "del engine\n"
        "assert before == loaded == stack(), (before, loaded, stack())\n"
    )
    subprocess.run([sys.executable, "-c", code, str(model)], check=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, to begin anew fast")
def test_two_threads_may_be_the_first_to_run_something():
    """OpenVINO's table of types, if two threads first ask for it at once, lets both wait for ever."""
    code = (
        "import os, signal, sys, threading\n"
        "from showtell.engines.openvino import openvino\n"
        "sys.setswitchinterval(1e-6)\n"
        "barrier = threading.Barrier(2)\n"
        "def use():\n"
        "    barrier.wait()\n"
        "    openvino.Type.f32.to_dtype()\n"
        "for _ in range(20):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        signal.alarm(10)\n"
        "        threads = [threading.Thread(target=use) for _ in range(2)]\n"
        "        [thread.start() for thread in threads], [thread.join() for thread in threads]\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0, 'it hangs'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_processor_on_which_it_does_not_run(model, monkeypatch):
    """Its kernels are chosen by what the processor has, and there may be none: `auto` is then ONNX Runtime."""

    class Core:
        def __getattr__(self, name):
            return getattr(core, name)

        def compile_model(self, *_):
            raise RuntimeError("Supported primitive descriptors list is empty for node: node_softmax")

    core = openvino_module._core()
    monkeypatch.setattr(openvino_module, "_core", Core)
    monkeypatch.setattr(openvino_module, "has_bfloat16", lambda: True)
    assert isinstance(showtell.load(model).engine, OnnxEngine)
    with pytest.raises(BundleError, match=r"can't run this model on this processor\. Use --engine onnx"):
        showtell.load(model, engine="openvino")
