"""kill -9 of a whole sweep with real trainings: its trials are in the end those of an undisturbed one."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest

import gossamer
from gossamer.cli.main import main
from gossamer.sweeps import steps
from tests import stepcases
from tests.batchcases import started

pytest.importorskip("optuna")
pytest.importorskip("onnxruntime")

SWEEP = """
settings: {data: photos, net: lenet5, epochs: 6, input: 32, batch: 8, threads: 1, workers: 0, precision: float32,
           memory_format: channels_last, save_steps: 2}
ranges: {lr: {low: 1e-3, high: 1, log: true}}
trials: 3
runtime: onnxruntime
"""


def table(out: Path) -> dict[int, tuple[object, ...]]:
    """What does not depend on the time that anything took."""
    found = json.loads((out / "trials.json").read_text())
    return {one["number"]: (one["values"], one["score"] if one["complete"] else None) for one in found["trials"]}


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_training_whose_process_is_killed_goes_on_from_its_last_state(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    monkeypatch.chdir(tmp_path)
    Path("photos").symlink_to(image_folder)
    fixed = SWEEP.split("ranges:")[0].replace("workers: 0", "workers: 1")  # which outlives its parent by a moment
    Path("sweep.yaml").write_text(fixed + "grid: {lr: [0.02]}\nruntime: onnxruntime\n")
    undisturbed = gossamer.sweep("sweep.yaml", "undisturbed").trials[0]
    monkeypatch.setattr(steps, "train_step", stepcases.killed_training)
    Path("kills").write_text("1\n")
    killed = gossamer.sweep("sweep.yaml", "killed").trials[0]
    assert (undisturbed.lost, killed.lost, killed.given_up) == (0, 1, False) and not Path("kills").read_text()
    assert (killed.score, killed.values, killed.complete) == (undisturbed.score, undisturbed.values, True)
    resumed = Path("killed/runs/0000/log.txt").read_text()
    assert "resumed" in resumed or "resuming" in resumed, resumed


@pytest.mark.full
@pytest.mark.timeout(900)
def test_kills_lose_no_trial_and_repeat_none(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").symlink_to(image_folder)
    Path("sweep.yaml").write_text(SWEEP)
    rng = random.Random(0)
    for wanted in (2, 5):  # steps that are finished before the kill
        process = started("sweep", "sweep.yaml", "--out", "killed", cwd=tmp_path)
        limit = time.monotonic() + 300
        while len(list(Path("killed/steps").glob("*.json"))) < wanted and process.poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.communicate()
    assert main(["sweep", "sweep.yaml", "--out", "killed", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["number"] for one in sorted(found["trials"], key=lambda one: one["number"])] == [0, 1, 2]
    assert len({str(one["values"]) for one in found["trials"]}) == 3 and found["left"] == 0
    assert sorted(path.name for path in Path("killed/runs").iterdir()) == ["0000", "0001", "0002"]
    assert main(["sweep", "sweep.yaml", "--out", "undisturbed"]) == 0
    assert {values[0]["lr"] for values in table(Path("killed")).values()} == {
        values[0]["lr"] for values in table(Path("undisturbed")).values()
    }
    scores = [{number: one[1] for number, one in table(Path(out)).items()} for out in ("killed", "undisturbed")]
    both = [number for number in range(3) if scores[0][number] is not None and scores[1][number] is not None]
    assert both and all(scores[0][number] == scores[1][number] for number in both)
