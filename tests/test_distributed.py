"""Two processes with the same global batch follow the loss curve of one, and a run changes their number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gossamer import Run
from gossamer.distributed import SyncedBatchNorm2d, sync_batch_norm
from gossamer.trainer import resume
from tests.runs import gossamer, same, torchrun, weights

RECIPE = "--net mobilenet_v2 --width 0.25 --input 32 --batch 12 --lr 0.05 --mixup 0.3 --ema 0.9 --deterministic --threads 1".split()


@pytest.mark.timeout(600)
def test_two_processes_give_the_loss_curve_of_one(pictures: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    gossamer("train", pictures, *RECIPE, "--epochs", "3", "--out", one)
    torchrun(2, "train", pictures, *RECIPE, "--epochs", "3", "--out", two)
    curves = [[(row["loss"], row["val_loss"]) for row in Run.open(path).metrics()] for path in (one, two)]
    np.testing.assert_allclose(curves[0], curves[1], rtol=2e-3)
    assert Run.open(two).environment["processes"] == 2
    a, b = weights(one), weights(two)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0.05, atol=2e-3, err_msg=name)


@pytest.mark.timeout(600)
def test_a_run_of_two_processes_goes_on_with_one(pictures: Path, tmp_path: Path) -> None:
    """The state after one epoch of two processes, set back to unfinished, as a crash would leave it."""
    constant = [*RECIPE, "--schedule", "constant", "--warmup", "0"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    gossamer("train", pictures, *constant, "--epochs", "2", "--out", whole)
    torchrun(2, "train", pictures, *constant, "--epochs", "1", "--out", cut)
    run = Run.open(cut)
    tensors, facts = run.load_state("last")
    facts["counters"]["finished"] = ""
    run.save_state("last", tensors, facts)
    run.save_settings(run.settings.replace(epochs=2.0))
    resume(cut)
    curves = [
        [(row["step"], row["loss"], row["val_loss"]) for row in Run.open(path).metrics()] for path in (whole, cut)
    ]
    assert len(curves[1]) == 2
    np.testing.assert_allclose(curves[0], curves[1], rtol=2e-3)


def test_without_other_processes_it_is_plain_batch_norm() -> None:
    torch.manual_seed(0)
    plain, synced = torch.nn.BatchNorm2d(3), sync_batch_norm(torch.nn.Sequential(torch.nn.BatchNorm2d(3)))
    assert isinstance(synced[0], SyncedBatchNorm2d)  # type: ignore[index]
    x = torch.randn(4, 3, 5, 6)
    assert torch.equal(plain(x), synced(x))
    assert same(*({k: v.numpy() for k, v in m.state_dict().items()} for m in (plain, synced[0])))  # type: ignore[index]
