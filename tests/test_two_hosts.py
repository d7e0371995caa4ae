"""Training under torchrun on two hosts, made of network namespaces: one is gone, the other says so, and the run goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gossamer import Run
from gossamer.errors import RunError, SettingsError
from gossamer.settings import Settings
from gossamer.training import loop
from gossamer.training.distributed import Processes, others_answer, peer_limit
from tests.runs import gossamer
from tests.twohosts import ADDRESSES, DEVICES, SPACES, ip, on_host, two_hosts

LIMIT = 20  # seconds until the host that is left ends


@pytest.fixture
def hosts() -> Iterator[None]:
    """Two network namespaces with a cable between them."""
    with two_hosts():
        yield


def started(rank: int, *words: str | Path, seconds: int = LIMIT) -> subprocess.Popen[str]:
    """`gossamer ...` under torchrun on a host, as one of two."""
    launch = on_host(rank, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", str(rank))
    launch += ["--nproc_per_node", "1", "--master_addr", ADDRESSES[0], "--master_port", "29417"]
    launch += ["-m", "gossamer", *map(str, words)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": DEVICES[rank],
        "GOSSAMER_PEER_SECONDS": str(seconds),
    }
    return subprocess.Popen(
        launch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_host_that_is_gone_is_told_and_the_run_goes_on_with_one_or_two(
    hosts: None, image_folder: Path, tmp_path: Path
) -> None:
    """The cable is cut, so that nothing says goodbye: the other host waits for its limit and no longer."""
    run = tmp_path / "run"
    words: list[str | Path] = ["train", image_folder, "--net", "lenet5", "--input", "32", "--batch", "12"]
    words += ["--epochs", "4000"]
    words += ["--threads", "1", "--workers", "0", "--precision", "float32", "--memory-format", "channels_last"]
    words += ["--save-steps", "3", "--out", run]
    both = [started(rank, *words) for rank in (0, 1)]
    try:
        limit = time.monotonic() + 400
        while not (run / "last.json").exists():
            assert time.monotonic() < limit and all(one.poll() is None for one in both), "it did not begin"
            time.sleep(0.1)
        ip("-n", SPACES[1], "link", "set", DEVICES[1], "down")
        os.killpg(both[1].pid, signal.SIGKILL)
        begun = time.monotonic()
        out, _ = both[0].communicate(timeout=LIMIT + 200)
        took = time.monotonic() - begun
    finally:
        for one in both:
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGKILL)
            if one.stdout is not None and not one.stdout.closed:
                one.communicate()
    lines = [line for line in out.splitlines() if line.startswith("gossamer: ")]
    assert len(lines) == 1 and "another process of this training is gone" in lines[0], out
    assert f"gossamer train --resume {run}" in lines[0] and f"within {LIMIT} seconds" in lines[0]
    assert both[0].returncode != 0 and took < LIMIT + 120  # torchrun's own end included
    assert Run.open(run).environment["processes"] == 2
    state = Run.open(run)
    step = state.counters()["step"]
    state.save_settings(state.settings.replace(epochs=step / 3 + 1))
    shutil.copytree(run, tmp_path / "two")
    gossamer("train", "--resume", run)
    assert Run.open(run).counters()["step"] > step and Run.open(run).environments()[-1]["processes"] == 1
    ip("-n", SPACES[1], "link", "set", DEVICES[1], "up")
    both = [started(rank, "train", "--resume", tmp_path / "two", seconds=300) for rank in (0, 1)]
    try:
        said = [one.communicate(timeout=400)[0] for one in both]
    finally:
        for one in both:
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGKILL)
    assert [one.returncode for one in both] == [0, 0], said
    again = Run.open(tmp_path / "two")
    assert again.counters()["step"] == Run.open(run).counters()["step"] and again.environments()[-1]["processes"] == 2
    losses = [one.metrics()[-1]["loss"] for one in (Run.open(run), again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # the same batches, summed in another order


@pytest.mark.parametrize(
    "text",
    [
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:25231",
        "[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 20000ms for recv operation",
        "NCCL error in: ProcessGroupNCCL.cpp:1273, remote process exited or there was a network error",
    ],
)
def test_what_torch_says_of_others_is_one_line(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOSSAMER_PEER_SECONDS", "20")
    line = r"gone: .*; allowed: processes that all answer within 20 seconds; resume"
    with pytest.raises(RunError, match=line), others_answer("gone", "resume"):
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="shapes"), others_answer("gone", "resume"):
        raise RuntimeError("shapes do not fit")


@pytest.mark.parametrize("text", ["x", "0", "-1", "nan", "inf", "1e9"])
def test_a_limit_that_cannot_be_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOSSAMER_PEER_SECONDS", text)
    with pytest.raises(SettingsError, match="GOSSAMER_PEER_SECONDS"):
        peer_limit()
    monkeypatch.delenv("GOSSAMER_PEER_SECONDS")
    assert peer_limit() == 600 and torch.distributed.is_available()


def test_a_process_that_is_gone_before_the_first_epoch_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the first process refuses its folder and the others wait for it; alone, such an error is another one."""
    text = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:25231"
    for world, kind in ((2, RunError), (1, RuntimeError)):
        monkeypatch.setattr(loop, "start", lambda _, world=world: (torch.device("cpu"), Processes(world - 1, world)))
        with pytest.raises(kind, match="Connection closed by peer"), loop._processes(Settings(data="photos")):
            raise RuntimeError(text)
