"""Units of work and trials on Ray: the rows of one process, a worker killed included; a cluster that is not there is one line."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gossamer
from gossamer.batch import rays
from gossamer.cli.main import main
from gossamer.errors import GossamerError, InputError, StorageError
from gossamer.host import cluster, steprunner
from gossamer.host.progress import SILENT, Progress
from gossamer.host.steprunner import Step, StepRunner
from tests import batchcases, stepcases
from tests.batchcases import picture, row_files, write_source
from tests.trained import runs_of_tasks

there = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not there, reason="Ray is an extra of its own that development does without")


@pytest.mark.parametrize(
    "address", ["ray://", "ray://host", "host", "host:0", "host:99999", "ray://a b:1", "auto ", "http://a:1"]
)
def test_what_is_no_address_is_refused(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"allowed: auto \(a running cluster"):
        cluster.check_address(address)
    assert main(["predict", "a.onnx", "b.png", "--ray", "auto"]) == 2
    assert "predict --ray without --out" in capsys.readouterr().err


def test_an_address_where_nothing_answers_is_one_line_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(InputError, match=rf"ray ray://127\.0\.0\.1:{port}: .*refused.* within 10 seconds"):
        cluster._check_there(f"ray://127.0.0.1:{port}")
    assert time.monotonic() - begun < cluster.ANSWER_LIMIT


def test_joining_that_takes_for_ever_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "JOIN_LIMIT", 0.05)
    with pytest.raises(InputError, match=r"ray host:1: not joined in 0\.05 seconds"):
        cluster._within(threading.Event().wait, "host:1")
    with pytest.raises(InputError, match="ray host:1: ValueError: no"):
        cluster._within(lambda: (_ for _ in ()).throw(ValueError("no")).__next__(), "host:1")


def test_the_error_of_a_worker_is_raised_again() -> None:
    def refuse() -> dict[str, Any]:
        raise InputError("a", "b", "c")

    assert steprunner.result_of(steprunner.called(dict, ())) == {}
    with pytest.raises(GossamerError, match="a; allowed: b; c") as caught:
        steprunner.result_of(steprunner.called(refuse, ()))
    assert caught.value.exit_code == 2


def test_a_worker_that_fails_is_not_called_lost_and_works_where_the_paths_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: Exception) -> dict[str, Any]:
        raise error

    for error, line, code in ((KeyError("a"), "a defect of gossamer: KeyError: 'a'", 70), (MemoryError(), "memory", 2)):
        with pytest.raises(GossamerError, match=line) as caught:
            steprunner.result_of(steprunner.called(fail, (error,)))
        assert caught.value.exit_code == code
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shared").mkdir()
    assert cluster.called_in(str(tmp_path / "shared"), lambda: {"at": str(Path.cwd())}, ()) == {
        "value": {"at": str(tmp_path / "shared")}
    }
    with pytest.raises(StorageError, match="none: No such file or directory on a machine of the cluster"):
        steprunner.result_of(cluster.called_in(str(tmp_path / "none"), dict, ()))


def test_an_address_of_the_environment_that_is_no_cluster_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise ConnectionError("nobody\nhere")

    monkeypatch.setattr(cluster, "import_ray", lambda: SimpleNamespace(is_initialized=lambda: False, init=init))
    monkeypatch.setattr(cluster, "_check_there", lambda address: None)
    monkeypatch.setenv("RAY_ADDRESS", "host:6379")
    with (
        pytest.raises(InputError, match="ray host:6379: ConnectionError: nobody here"),
        cluster.connected("auto", SILENT),
    ):
        pass


def test_a_cluster_that_wants_a_token_gets_the_one_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `ray start --head` does (2.60 on); what the environment says stays."""
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "")  # so that it is as before in the end
        monkeypatch.delenv(name)
    cluster.import_ray()
    assert "RAY_AUTH_MODE" not in os.environ and os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x")
    cluster.import_ray()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster.import_ray()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as of a user without a home
    cluster.import_ray()
    assert "RAY_AUTH_MODE" not in os.environ


class Lost(Exception):
    """In place of Ray's."""


class Cluster:
    """In place of Ray: an actor is prepared at the second look; the first is lost as it answers, a second one answers."""

    exceptions = SimpleNamespace(RayError=Lost)

    def __init__(self) -> None:
        self.begun = 0
        self.looks: Counter[Any] = Counter()

    def remote(self, kind: Any) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._actor))

    def _actor(self, config: dict[str, Any]) -> Any:
        self.begun += 1
        number = self.begun
        return SimpleNamespace(
            prepare=SimpleNamespace(remote=lambda: ("prepare", number, 0)),
            answer=SimpleNamespace(remote=lambda unit: ("answer", number, unit)),
        )

    def wait(self, running: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        self.looks.update(running)
        assert self.looks.total() < 20
        ready = [each for each in running if each[0] == "answer" or self.looks[each] > 1]
        return ready[:num_returns], []

    def get(self, reference: tuple[str, int, int]) -> dict[str, Any]:
        if reference[:2] == ("answer", 1):
            raise Lost("its machine is gone")
        record = {"unit": reference[2], "images": 1, "rows": "a", "bytes": 1}
        return {"value": record if reference[0] == "answer" else {}}

    def kill(self, handle: Any) -> None:
        pass


def test_a_worker_that_takes_the_place_of_the_only_one_has_its_time_to_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also hours after the start: its limit counts from when it was asked for."""
    clock = iter(range(0, 10**6, 400))  # seconds at each look
    monkeypatch.setattr(rays, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    folder = rays.AnswerFolder(tmp_path)
    folder.begin()
    committed: list[Any] = []
    said: list[str] = []
    unit = rays.Unit.of(0, "files", [("a.png", 1, 1)])
    ray = Cluster()
    rays.answer_on_ray(ray, folder, [unit], {"threads": 1}, 1, committed.append, lambda images, line: said.append(line))
    folder.end()
    assert ray.begun == 2 and [one["unit"] for one in committed] == [0]
    assert "a worker was lost (its machine is gone): another one takes its unit" in said


@pytest.fixture
def home(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_source(tmp_path / "home", shards=20, each=30, files=100))
    shutil.copy(batchcases.model_files(tmp_path_factory) / "a.onnx", "a.onnx")
    return Path.cwd()


@pytest.fixture
def local() -> Iterator[Any]:
    with cluster.connected("local", SILENT) as ray:
        yield ray


def actors() -> list[int]:
    """The processes of actors."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ray::UnitActor" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


class Killer(Progress):
    """Kills an actor when units are answered; lines: what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.killed = 0

    def kill(self) -> None:
        for pid in actors()[:1]:
            os.kill(pid, signal.SIGKILL)
            self.killed += 1

    def say(self, line: str) -> None:
        self.lines.append(line)


@needs_ray
@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_step_whose_worker_is_killed_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    monkeypatch.chdir(tmp_path)
    Path("once").write_text("1\n")
    Path("always").write_text("1\n" * 9)
    (tmp_path / "steps.json").write_text("{}")
    with cluster.joined("local", SILENT) as workers:
        runner = StepRunner(stepcases.Folder(tmp_path), 1e9, SILENT, [])
        steps = [Step(name, name, stepcases.killed, (name, "a")) for name in ("never", "once", "always")]
        found = runner.do_each(steps, workers)
    assert [(one or {}).get("lost") for one in found] == [None, 1, cluster.TRIES]
    assert found[2] is not None and "its worker was lost: " in found[2]["error"]
    assert len(Path("always").read_text().splitlines()) == 9 - cluster.TRIES


@needs_ray
@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_rows_are_those_of_one_process_though_a_worker_is_killed(
    home: Path, local: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    gossamer.predict_many("a.onnx", ["shards", "photos"], "one", workers=1)
    killer = Killer()
    commit = rays.AnswerFolder.commit

    def killing(self: Any, records: Any) -> None:
        commit(self, records)
        if not killer.killed:
            killer.kill()

    monkeypatch.setattr(rays.AnswerFolder, "commit", killing)
    result = gossamer.predict_many("a.onnx", ["shards", "photos"], "many", workers=2, ray="local", progress=killer)
    assert killer.killed == 1 and any("a worker was lost" in line for line in killer.lines)
    assert result.images == 20 * 31 + 101 and row_files(home / "many") == row_files(home / "one")
    again = gossamer.predict_many("a.onnx", ["shards", "photos"], "many", workers=2, ray="local")
    assert again.units_now == 0 and again.images == result.images


@needs_ray
@pytest.mark.full
@pytest.mark.timeout(600)
def test_an_index_has_the_bytes_of_one_process(
    tmp_path: Path, local: Any, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(runs_of_tasks(tmp_path_factory) / "embed.onnx", "people.onnx")
    for number in range(60):
        path = Path(f"gallery/who{number % 3}/{number:03}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    Path("gallery/who1/broken.png").write_bytes(b"no image")
    assert main(["index", "people.onnx", "gallery", "--out", "one.index", "--batch", "8"]) == 0
    assert main(["index", "people.onnx", "gallery", "--out", "ray.index", "--batch", "8", "--ray", "local"]) == 0
    assert Path("ray.index").read_bytes() == Path("one.index").read_bytes() and not Path("ray.index.parts").exists()
