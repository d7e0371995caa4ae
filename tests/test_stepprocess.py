"""Steps in processes that are killed, as where the memory is not enough: begun again, given up, and told."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gossamer.errors import GossamerError, InputError
from gossamer.host.progress import SILENT, Progress
from gossamer.host.stepprocess import StepProcess
from gossamer.host.steprunner import Step, StepRunner, WorkerLost
from tests import stepcases


class Lines(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StepProcess]:
    """One that finds the functions of the tests."""
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    monkeypatch.chdir(tmp_path)
    with StepProcess(Lines()) as process:
        yield process


def test_a_step_whose_process_is_killed_is_done_by_another_one_and_then_given_up(process: StepProcess) -> None:
    """What it says is passed on, and errors are raised as they are; the process serves many steps and ends with the block."""
    first = process.call(stepcases.killed, ("kills", "a"))
    assert first["pid"] != os.getpid() and process.call(stepcases.killed, ("kills", "b"))["pid"] == first["pid"]
    Path("kills").write_text("1\n")
    again = process.call(stepcases.killed, ("kills", "c"))
    assert again["lost"] == 1 and again["pid"] != first["pid"]
    assert process.progress.lines == [  # type: ignore[attr-defined]
        "a begins", "b begins", "c begins",
        "the process of this step was ended by SIGKILL: another one goes on with it", "c begins",
    ]  # fmt: skip
    with pytest.raises(GossamerError, match="a; allowed: b; c"):
        process.call(stepcases.killed, ("kills", "refused"))
    Path("kills").write_text("1\n2\n3\n")
    with pytest.raises(WorkerLost, match="its process was ended by SIGKILL, 2 times; where the memory") as caught:
        process.call(stepcases.killed, ("kills", "d"))
    assert caught.value.lost == 2 and Path("kills").read_text() == "3\n"
    Path("kills").unlink()
    assert process.call(stepcases.forking, ()) == {"code": 0}
    last = process.call(stepcases.killed, ("kills", "e"))
    assert last["pid"] != again["pid"] and "lost" not in last
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(last["pid"], 0)


def test_a_function_that_has_no_name_elsewhere_is_called_here() -> None:
    with StepProcess() as process:
        assert process.call(lambda *words: {"pid": os.getpid(), "words": words[:-1]}, (1, 2)) == {
            "pid": os.getpid(), "words": (1, 2),
        }  # fmt: skip


class Pool:
    """Workers of which some are lost: `losses` of each step, as often."""

    count, tries = 2, 3

    def __init__(self, losses: dict[str, int]) -> None:
        self.losses, self.begun = losses, []

    def start(self, function: Any, arguments: tuple[Any, ...]) -> tuple[int, str]:
        self.begun.append(arguments[0])
        return len(self.begun), arguments[0]

    def first(self, running: list[tuple[int, str]], seconds: float) -> Any:
        name = running[0][1]

        def get() -> dict[str, Any]:
            if self.losses.get(name, 0):
                self.losses[name] -= 1
                raise WorkerLost(f"its worker was lost: {name}")
            if name == "refused":
                raise InputError("a", "b", "c")
            return {"schedule": None}

        return running[0], get


def test_a_step_whose_worker_is_lost_is_begun_again_a_number_of_times(tmp_path: Path) -> None:
    said, pool = Lines(), Pool({"a": 2, "b": 9})
    (tmp_path / "steps.json").write_text("{}")
    runner = StepRunner(stepcases.Folder(tmp_path), 1e9, said, [])
    steps = [Step(name, f"step {name}", stepcases.killed, (name,)) for name in ("a", "b", "c")]
    found = runner.do_each(steps, pool)  # type: ignore[arg-type]
    assert [(one or {}).get("lost") for one in found] == [2, 3, None] and pool.begun.count("a") == 3
    assert pool.begun.count("b") == 3 and pool.begun.count("c") == 1
    assert found[1] is not None and found[1]["error"] == "its worker was lost: b, the last of 3 times"
    assert said.lines.count("its worker was lost: a; begun again: step a") == 2
    assert json.loads((tmp_path / "steps" / "a.json").read_text())["lost"] == 2
    again = StepRunner(stepcases.Folder(tmp_path), 1e9, SILENT, []).do_each(steps, pool)  # type: ignore[arg-type]
    assert again == found and len(pool.begun) == 7
    assert [(one or {}).get("given_up") for one in found] == [None, True, None]


def test_a_step_that_fails_after_its_worker_was_lost_is_not_called_given_up(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text("{}")
    pool = Pool({"refused": 1})
    found = StepRunner(stepcases.Folder(tmp_path), 1e9, SILENT, []).do_each(
        [Step("refused", "a step", stepcases.killed, ("refused",))],
        pool,  # type: ignore[arg-type]
    )[0]
    assert found is not None and (found["error"], found["lost"]) == ("a; allowed: b; c", 1) and "given_up" not in found


def test_an_interrupt_ends_the_process_of_a_step(process: StepProcess) -> None:
    """As Ctrl-C does, while a step is under way: the process is asked to end, and has ended behind the block."""
    pid = process.call(stepcases.killed, ("kills", "a"))["pid"]

    class Interrupting(Progress):
        """Sent by what the step says, not by a clock: on a busy machine that one may ring outside of the block."""

        def say(self, line: str) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    process.progress = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        process.call(stepcases.waiting, ())
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.fixture
def trials(process: StepProcess, monkeypatch: pytest.MonkeyPatch, image_folder: Path) -> None:
    pytest.importorskip("optuna")
    from gossamer.sweeps import steps
    from tests.pickcases import MadeUpTimes

    monkeypatch.setattr(steps, "train_step", stepcases.killed_trial)
    monkeypatch.setattr(steps, "NetworkTimes", MadeUpTimes)
    Path("photos").symlink_to(image_folder)
    Path("sweep.yaml").write_text(
        "settings: {data: photos, net: lenet5, epochs: 2, input: 32, batch: 8}\ngrid: {lr: [0.1, 0.2, 0.3]}\n"
    )


@pytest.mark.full
def test_a_trial_whose_process_is_killed_has_its_row_and_the_others_go_on(
    trials: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from gossamer.cli.main import main

    Path("kills-0.2").write_text("1\n")
    Path("kills-0.3").write_text("1\n" * 9)
    assert main(["sweep", "sweep.yaml", "--out", "out", "--json"]) == 2
    found = {one["values"]["lr"]: one for one in json.loads(capsys.readouterr().out)["trials"]}
    assert {lr: (one["lost"], one["given_up"]) for lr, one in found.items()} == {
        0.1: (0, False), 0.2: (1, False), 0.3: (2, True),
    }  # fmt: skip
    assert found[0.2]["complete"] and found[0.2]["front"]
    assert found[0.3]["reason"].startswith("its training failed: its process was ended by SIGKILL, 2 times")
    assert len(Path("kills-0.3").read_text().splitlines()) == 7
    assert main(["sweep", "sweep.yaml", "--out", "out"]) == 2  # nothing is done again
    text = capsys.readouterr().out
    assert "worker lost 1 time" in text and "given up, as their process was killed again and again: 000" in text
    assert len(Path("kills-0.3").read_text().splitlines()) == 7
    rows = Path("out/trials.csv").read_text().splitlines()
    assert rows[0].split(",")[-2:] == ["lost", "run"] and sorted(row.split(",")[-2] for row in rows[1:]) == [
        "0",
        "1",
        "2",
    ]
    Path("kills-0.3").unlink()
    Path(f"out/steps/trial-{found[0.3]['number']:04d}-rung-1.json").unlink()
    assert main(["sweep", "sweep.yaml", "--out", "out"]) == 0
