"""What many processes rest on: shares of a step add up to it; values, gradients and errors reach all of them."""

import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import distributed, nn
from torch.nn import functional as F

from showtell.data.dataset import Example
from showtell.errors import DataError, UsageError
from showtell.models.captioning_model import CaptioningModel, build_decoder
from showtell.models.encoders import build_encoder
from showtell.models.show_attend_and_tell import ShowAttendAndTellConfig
from showtell.training import processes
from showtell.training.inputs.batches import Batch, batch_of, epoch_of_batches
from showtell.training.inputs.features import cached_features
from showtell.training.precision import has_bfloat16
from showtell.training.stages.cross_entropy import CrossEntropy
from tests.fresh_processes import CONTEXT

V = 12
CAPTIONS = [[[1, *range(4, 5 + (i + k) % 5), 2] for k in range(1 + i % 3)] for i in range(7)]
LITE = {"name": "efficientnet_lite0", "weights": "random", "size": 32, "stages": 2}


# ------------------------------------------------------------------ shares of a step


class Expecting:
    """A teacher that is sure of other words than people are."""

    def probabilities(self, model: object, inputs: object, batch: Batch) -> torch.Tensor:
        return F.one_hot((batch.targets[batch.real] + 1) % V, V).float()


@pytest.mark.parametrize("attention", ["soft", "hard"])
@pytest.mark.parametrize("of", [2, 3, 10])
def test_shares_of_a_step_add_up_to_it(attention: str, of: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every term of a loss, though shares differ in words; also when there are more processes than images."""
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda tensor: tensor.fill_(1.0))  # the likeliest cell is chosen
    torch.manual_seed(0)
    config = ShowAttendAndTellConfig(
        embedding_width=8, hidden_width=8, attention_width=4, dropout=0.0, attention=attention, expected=0.0
    )  # fmt: skip
    encoder = build_encoder(LITE)
    model = CaptioningModel(encoder, build_decoder(config, 6, V)).train()
    grids = torch.randn(len(CAPTIONS), 4, 6)
    baseline = getattr(model.decoder, "baseline", torch.zeros(()))
    first = baseline.clone() - 1  # so that it moves
    stage = CrossEntropy(doubly_stochastic=1.0, entropy=0.5)

    def computed(share: slice) -> tuple[dict[str, float], float, float]:
        """The share's terms, its share of the words, and how far the baseline moved."""
        [batch] = epoch_of_batches(CAPTIONS, len(CAPTIONS), 5, np.random.default_rng(0), share)
        baseline.copy_(first)
        if not len(batch.rows):
            assert (batch.words, batch.captions, batch.share) == (0, 0, 0)
            return {}, 0.0, 0.0
        terms = stage.terms(model, grids[batch.rows], batch, 0.0, Expecting())  # type: ignore[arg-type]
        return (
            {name: term.item() for name, term in terms.items()},
            batch.share,
            float(baseline - first),
        )

    whole, _, moved = computed(slice(None))
    shares = [computed(slice(rank, None, of)) for rank in range(of)]
    assert len(whole) == (5 if attention == "hard" else 3)
    for name, value in whole.items():
        assert sum(terms.get(name, 0.0) for terms, _, _ in shares) == pytest.approx(value, rel=1e-4)
    assert sum(share for _, share, _ in shares) == pytest.approx(1)
    assert sum(share * moves for _, share, moves in shares) == pytest.approx(moved, rel=1e-4)


def test_parts_of_a_batch_hold_each_image_once() -> None:
    batch = batch_of(np.arange(7), CAPTIONS)
    for accumulate in (1, 3, 20):
        parts = [batch.images(part) for part in CrossEntropy(accumulate=accumulate).parts(batch)]
        assert len(parts) == min(accumulate, 7)
        assert sorted(row for part in parts for row in part.rows.tolist()) == list(range(7))
        assert sum(part.words for part in parts) == batch.words
        assert sum(part.share for part in parts) == pytest.approx(1)
    assert CrossEntropy(accumulate=3).parts(batch_of(np.arange(0), [])) == []


@pytest.mark.parametrize("length", range(8))
def test_what_is_divided_is_put_together_again(length: int) -> None:
    """No image twice and none lost, in order, whatever the number of processes."""
    for of in range(1, 5):
        shares = [list(range(length))[slice(rank, None, of)] for rank in range(of)]
        assert processes.put_together(shares) == list(range(length))


# ------------------------------------------------------------------ two processes


def on_two(work: Callable[..., Any], folder: Path, *arguments: object) -> list[Any]:
    """What `work` returns in two processes, or how they ended."""
    pipes = [CONTEXT.Pipe(duplex=False) for _ in range(2)]
    children = [
        CONTEXT.Process(target=process, args=(rank, folder / "meeting", sender, work, arguments))
        for rank, (_, sender) in enumerate(pipes)
    ]
    for child in children:
        child.start()
    for _, sender in pipes:
        sender.close()
    results = []
    for receiver, _ in pipes:
        try:
            results.append(receiver.recv())
        except EOFError:
            results.append("killed")
    for child in children:
        child.join(60)
    return results


def process(
    rank: int, meeting: Path, sender: Connection, work: Callable[..., Any], arguments: tuple[object, ...]
) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    try:
        distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=2)
        sender.send(work(*arguments))
    except SystemExit as ended:
        sender.send(f"exit {ended.code}")
    except Exception as error:
        sender.send(f"{type(error).__name__}: {error}")
    os._exit(0)


def add_gradients() -> list[Any]:
    model = nn.Module()
    for name in ("both", "one", "none"):
        model.register_parameter(name, nn.Parameter(torch.tensor([1.0 + processes.rank(), 2.0])))
    model.register_buffer("mean", torch.tensor(8.0))
    model.register_buffer("constant", torch.tensor(0.1))
    processes.same_weights(model)
    share = (0.75, 0.25)[processes.rank()]
    with processes.gradients_added(model, share):
        loss = (10.0 ** processes.rank() * model.both).sum()  # type: ignore[operator]
        if processes.rank():
            loss = loss + model.one[0]  # type: ignore[index]
        loss.backward()
        model.mean += (4.0, -8.0)[processes.rank()]  # type: ignore[operator]
    return [
        *(None if p.grad is None else p.grad.tolist() for p in model.parameters()),
        model.both[0].item(),  # type: ignore[index]
        *(float(buffer) for buffer in model.buffers()),
    ]


def test_gradients_and_buffers_are_added(tmp_path: Path) -> None:
    """A parameter that one process alone used has its gradient in both; one that none used has none, as AdamW needs."""
    expected = [[11.0, 11.0], [1.0, 0.0], None, 1.0, 8 + 0.75 * 4 - 0.25 * 8, torch.tensor(0.1).item()]
    assert on_two(add_gradients, tmp_path) == [expected, expected]


def find_nothing() -> None:
    with processes.agreed():
        if processes.rank():
            raise UsageError("Nothing is here.")


def test_an_error_of_any_process_is_told_once_and_ends_all(tmp_path: Path) -> None:
    assert on_two(find_nothing, tmp_path) == ["UsageError: Nothing is here.", "exit 2"]


def lose_one() -> None:
    processes.wait()
    if processes.rank():
        os.kill(os.getpid(), signal.SIGKILL)
    processes.wait()


def test_who_is_left_says_that_another_is_gone(tmp_path: Path) -> None:
    said, killed = on_two(lose_one, tmp_path)
    assert killed == "killed"
    assert said.startswith("ProcessLost: Process 0 of 2 stopped because another one has failed or was killed.")
    assert said.endswith("The same command with --resume continues from the last checkpoint.")


def draw() -> list[float]:
    torch.manual_seed(0)
    drawn = []
    for place in ((1, 2, 3), (1, 2, 4), (1, 2, 3)):
        processes.own_random_numbers(*place)
        drawn.append(float(torch.rand(())))
    return drawn


def test_random_numbers_differ_and_follow_from_the_place(tmp_path: Path) -> None:
    main, other = on_two(draw, tmp_path)
    torch.manual_seed(0)
    assert main == [float(torch.rand(())) for _ in range(3)], "the main process goes on as if it were alone"
    assert other[0] == other[2] != other[1]
    assert not set(main) & set(other)


def build_cache(folder: Path, examples: list[Example], readable: list[str]) -> tuple[int, list[str], Any]:
    """How often it was told of, which photos it lacks, and what it holds."""
    torch.manual_seed(0)
    told = [0]
    cache = cached_features("photos", examples, build_encoder(LITE), folder, lambda *_: told.append(1))
    return len(told), sorted(cache.unreadable), cache.rows(readable)


def test_two_processes_build_one_cache(tmp_path: Path) -> None:
    """Each encodes its share; photos that the other one could not read are left out too, and named."""
    examples = []
    for number in range(9):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)).save(path)
        examples.append(Example(path.name, "train", ("a photo",), path))
    for number in (2, 5):  # one of each process's share
        (tmp_path / f"{number}.png").write_bytes(b"no photo")
    readable = [example.image_id for example in examples if example.image_id not in ("2.png", "5.png")]
    main, other = on_two(build_cache, tmp_path, tmp_path / "two", examples, readable)
    _, unreadable, rows = build_cache(tmp_path / "one", examples, readable)
    assert (main[0], other[0]) == (1 + 1 + 5, 1 + 1 + 4)
    for of_process in (main, other):
        assert of_process[1] == unreadable == ["2.png", "5.png"]
        np.testing.assert_allclose(of_process[2], rows, rtol=1e-2, atol=1e-3)


# ------------------------------------------------------------------ what can't be combined


def test_contradictions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"2 processes for 1 GPUs\. Start one process per GPU"):
        processes.join()
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UsageError, match=r"says DEEPSPEED.*launch without it"):
        processes.accelerator("float32")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(UsageError, match=r"--mixed_precision bf16.*--set precision=bf16"):
        processes.accelerator("float32")
    with pytest.raises(UsageError, match=r"Process 0 of 1 can't see .*nowhere.*Give --out a folder on a disk"):
        processes.refuse_another_disk(tmp_path / "nowhere", "--out")


@pytest.mark.parametrize("launched", ["no", "bf16"])
@pytest.mark.parametrize(("everywhere", "mixed"), [(True, "bf16"), (False, "no")])
def test_auto_is_what_the_hardware_has(
    launched: str, everywhere: bool, mixed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what a launcher says is held against what `auto` comes to here."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    monkeypatch.setattr(processes, "has_bfloat16", lambda cpu: everywhere)
    monkeypatch.setattr("accelerate.Accelerator", lambda mixed_precision, cpu: mixed_precision)
    if launched == "bf16" and not everywhere:
        with pytest.raises(
            UsageError, match=r"--mixed_precision bf16, but the recipe says precision: auto.*precision=bf16"
        ):
            processes.accelerator("auto")
    else:
        assert processes.accelerator("auto") == mixed


def test_fp16_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"fp16 is for GPUs\. Leave it out"):
        processes.accelerator("fp16")


@pytest.mark.parametrize(
    ("machine", "onednn", "avx512", "mps", "expected"),
    [
        ("x86_64", True, True, False, True),  # Zen 4, Cooper Lake; with AMX too
        ("AMD64", True, True, False, True),  # the same on Windows
        ("x86_64", True, False, False, False),  # AVX-512 alone: emulated
        ("x86_64", False, True, False, False),  # ONEDNN_MAX_CPU_ISA=AVX2
        ("aarch64", True, False, False, True),  # Graviton 3
        ("aarch64", False, False, False, False),
        ("arm64", True, False, True, False),  # a Mac, whose GPU the run uses
    ],
)
def test_bfloat16_is_in_hardware(
    machine: str, onednn: bool, avx512: bool, mps: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert has_bfloat16(cpu=True) is expected


def test_without_onednn_there_is_no_fast_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not has_bfloat16(cpu=True)


def test_errors_of_one_process_alone_are_raised() -> None:
    with pytest.raises(DataError, match="no use"), processes.agreed():
        raise DataError("It is of no use.")
