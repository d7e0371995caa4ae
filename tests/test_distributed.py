"""Two processes with the same global batch follow the loss curve of one, and a run changes their number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gossamer import Run
from gossamer.training.distributed import (
    Processes,
    SyncedBatchNorm2d,
    broadcast,
    gather,
    join_processes,
    sync_batch_norm,
)
from gossamer.training.loop import resume
from tests.runs import gossamer, same, torchrun

RECIPE = (
    "--input 32 --batch 12 --mixup 0.3 --ema 0.9 --deterministic --threads 1 --schedule constant --warmup 0".split()
)
# Without normalisation rounding stays rounding, 2e-5 where torch takes other kernels for half a batch, as with AVX2 alone;
# with it, a batch of 12 multiplies it at every step.
ROUNDING = 1e-5 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 1e-4
NETS = {
    "squeezenet1_1": ("--lr 0.002 --input 64".split(), ROUNDING),
    "mobilenet_v2": ("--width 0.25 --lr 0.001".split(), 1e-2),
}


def curve(run: Path) -> list[tuple[float, float, float]]:
    return [(row["step"], row["loss"], row["val_loss"]) for row in Run.open(run).metrics()]


@pytest.mark.timeout(600)
@pytest.mark.full
@pytest.mark.parametrize("net", ["squeezenet1_1", "mobilenet_v2"])
def test_two_processes_give_the_loss_curve_of_one_and_a_run_goes_on_with_one(
    net: str, image_folder: Path, tmp_path: Path
) -> None:
    """`cut` is the state after one epoch of two processes, set back to unfinished as a crash would leave it."""
    options, tolerance = NETS[net]
    common = [str(image_folder), "--net", net, *RECIPE, *options]
    one, two = tmp_path / "one", tmp_path / "two"
    gossamer("train", *common, "--epochs", "3", "--out", one)
    torchrun(2, "train", *common, "--epochs", "2", "--out", two)
    assert Run.open(two).environment["processes"] == 2
    np.testing.assert_allclose(curve(one)[:2], curve(two), rtol=tolerance)
    run = Run.open(two)
    tensors, facts = run.load_state("last")
    facts["counters"]["finished"] = ""
    run.save_state("last", tensors, facts)
    run.save_settings(run.settings.replace(epochs=3.0))
    resume(two)
    assert len(curve(two)) == 3
    np.testing.assert_allclose(curve(one), curve(two), rtol=tolerance)


@pytest.mark.full
def test_gradients_and_statistics_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    """In float64, where rounding cannot hide a wrong formula."""
    script = str(Path(__file__).with_name("gradients.py"))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    subprocess.run([sys.executable, script, str(tmp_path / "one")], check=True, capture_output=True)
    subprocess.run([*launch, script, str(tmp_path / "two")], check=True, capture_output=True)
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-9, atol=1e-11, msg=name)


def test_without_other_processes_it_is_plain_batch_norm() -> None:
    torch.manual_seed(0)
    plain, synced = torch.nn.BatchNorm2d(3), sync_batch_norm(torch.nn.Sequential(torch.nn.BatchNorm2d(3)))
    assert isinstance(synced[0], SyncedBatchNorm2d)  # type: ignore[index]
    x = torch.randn(4, 3, 5, 6)
    assert torch.equal(plain(x), synced(x))
    assert same(*({k: v.numpy() for k, v in m.state_dict().items()} for m in (plain, synced[0])))  # type: ignore[index]


def test_without_torchrun_a_process_is_alone_and_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_processes("cpu") == Processes(rank=0, world=1, local_rank=0, local_world=1)
    assert Processes().first and not Processes(rank=1, world=2).first
    assert broadcast("x") == "x" and gather("x") == ["x"]
