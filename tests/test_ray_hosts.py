"""A Ray cluster over two hosts of network namespaces: the rows of one process, by HOST:PORT and by a Ray client."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import gossamer
from tests import batchcases
from tests.batchcases import row_files, write_source
from tests.twohosts import ADDRESSES, on_host, two_hosts

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is an extra of its own that development does without"
)
RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus", "1", "--block"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[None]:
    """A head on the first host, which Ray clients may join, and a node on the second, with a core each."""
    home = str(Path(gossamer.__file__).parents[1])
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "PYTHONPATH": home}
    head = ["--head", "--node-ip-address", ADDRESSES[0], "--port", "6379", "--ray-client-server-port", "10001"]
    node = ["--address", f"{ADDRESSES[0]}:6379", "--node-ip-address", ADDRESSES[1]]
    processes: list[subprocess.Popen[bytes]] = []
    with two_hosts():
        try:
            for number, words in enumerate(([*head, "--include-dashboard", "false"], node)):
                log = tmp_path / f"{number}.log"
                with log.open("wb") as file:
                    command = on_host(number, *RAY, *words)
                    processes.append(subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True))  # fmt: skip
                limit = time.monotonic() + 200
                while b"Ray runtime started" not in log.read_bytes():
                    assert time.monotonic() < limit and processes[-1].poll() is None, log.read_text()
                    time.sleep(0.2)
            yield
        finally:
            for process in reversed(processes):
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_batch_over_two_hosts_has_the_rows_of_one_process(
    cluster: None, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_source(tmp_path / "home", shards=8, each=20, files=0))
    shutil.copy(batchcases.model_files(tmp_path_factory) / "a.onnx", "a.onnx")
    gossamer.predict_many("a.onnx", "shards", "one", workers=1)
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    for host, address in ((0, f"{ADDRESSES[0]}:6379"), (1, f"ray://{ADDRESSES[0]}:10001")):
        command = [sys.executable, "-P", "-m", "gossamer", "predict", "a.onnx", "shards", "--out", f"from-{host}"]
        done = subprocess.run(
            on_host(host, *command, "--ray", address), capture_output=True, text=True, timeout=300, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert "2 workers" in done.stderr and row_files(Path(f"from-{host}")) == row_files(Path("one"))
