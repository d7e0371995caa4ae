"""A sweep: what may be asked, which trials there are, who goes on, what a second start does, and what it leaves."""

from __future__ import annotations

import csv
import fcntl
import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("optuna")

import gossamer
from gossamer.cli.main import main
from gossamer.errors import GossamerError, RunError, SettingsError
from gossamer.host import steprunner
from gossamer.host.progress import SILENT, Progress
from gossamer.settings.file import load_settings
from gossamer.sweeps import steps
from gossamer.sweeps.folder import SweepFolder
from gossamer.sweeps.halving import Standing, fractions, going_on
from gossamer.sweeps.settings import checked_sweep
from gossamer.sweeps.space import Range
from gossamer.sweeps.study import Study
from tests.pickcases import MadeUpTimes

SAME = {"epochs": 2, "input": 32, "batch": 8, "threads": 1, "workers": 0}


class Trainings:
    """In place of trainings: a score that the settings decide. calls: (run folder, fraction) of each; stop: raised at one."""

    def __init__(self, clock: SimpleNamespace) -> None:
        self.calls: list[tuple[str, float]] = []
        self.seconds, self.clock = 1.0, clock
        self.stop: dict[int, BaseException] = {}

    def __call__(
        self, folder: str, settings: dict[str, Any], end: float, score: str, split_of: str, *_: Any
    ) -> dict[str, Any]:
        if error := self.stop.pop(len(self.calls), None):
            raise error
        self.calls.append((Path(folder).name, end))
        self.clock.now += self.seconds
        best = 0.9 - abs(math.log10((settings["lr"] or 0.05) / 0.1)) / 4 + 0.001 * settings["seed"]
        return {"score": best * (1 - 0.3 * (1 - end)), "epochs": 2 * end, "fraction": end}


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, image_folder: Path) -> Trainings:
    """The current folder, with photos; times are made up, and so is the clock of the budget."""
    clock = SimpleNamespace(now=0.0)
    fake = Trainings(clock)
    monkeypatch.setattr(steps, "train_step", fake)
    monkeypatch.setattr(steps, "NetworkTimes", MadeUpTimes)
    monkeypatch.setattr(steprunner, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.chdir(tmp_path)
    Path("photos").symlink_to(image_folder)
    return fake


def asked(**sections: Any) -> dict[str, Any]:
    return {"settings": {"data": "photos", **SAME, "net": "lenet5"}, **sections}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("settings: [", "sweep.yaml: not YAML: "),
        ("- a", "sweep.yaml: holds list"),
        ("", "sweep.yaml: holds NoneType"),
        ("settings: {data: p}\na: &x [1]\nb: *x", "has anchors or aliases"),
        ("settings: " + "[" * 600 + "]" * 600, "nested too deep"),
        ("settings: {data: p}\ngrid: {lr: [1" + "0" * 5000 + "]}", "not YAML"),
        ("settings: {data: p}\ngrid: {lr: [.inf]}", "sweep.yaml: lr: inf; allowed: a finite number"),
        ("settings: {data: p}\ngrid: {lr: [.nan]}", "sweep.yaml: lr: nan; allowed: a finite number"),
        ("settings: {data: p}\ngrid: {lr: [1.0e+300]}", "sweep.yaml: lr: 1e+300; allowed: 0 to 100"),
        ("settings: {data: p}\ngrid: {lrr: [1]}", "no setting is called 'lrr'; allowed: lr"),
        ("settings: {data: p}\nranges: {1: {low: 0, high: 1}}", "no setting is called '1'"),
        ("settings: {data: p}\ngird: {lr: [1]}", "no part of a sweep is called 'gird'; allowed: grid"),
        ("data: p\ngrid: {lr: [1]}", "data beside the sections; allowed: it below settings"),
        ("settings: {data: p}", "sweep.yaml: nothing varies"),
        ("settings: {data: p}\ngrid: {lr: []}", "grid.lr holds no values"),
        ("settings: {data: p}\ngrid: {lr: 0.1}", "grid.lr holds float 0.1; allowed: a list of values"),
        ("settings: {data: p}\ngrid: [lr]", "sweep.yaml: grid holds list"),
        ("settings: {data: p}\ngrid: {lr: [0.1, 0.2], lr: [0.3]}", "lr is given twice"),
        ("settings: {data: p, lr: 1}\ngrid: {lr: [0.1]}", "lr is in settings and in grid"),
        ("settings: {data: p}\ngrid: {task: [classify, segment]}", "task in grid: scores of such trials would not compare"),
        ("settings: {data: p}\ngrid: {seed: [1, 2]}", "--seeds for the spread"),
        ("settings: {data: p, out: x}\ngrid: {lr: [0.1]}", "out in settings"),
        ("settings: {data: p}\ngrid: {net: [mobilnet_v2]}", "no network is called 'mobilnet_v2'; allowed: mobilenet_v2"),
        ("settings: {data: p}\ngrid: {optimizer: [sdg]}", "no optimizer setting is called 'sdg'; allowed: sgd"),
        ("settings: {data: p}\ngrid: {input: [7]}", "input size '7'"),
        ("settings: {data: p}\ngrid: {width: [null, big]}", "width: 'big'; allowed: a finite number"),
        ("settings: {}\ngrid: {lr: [1]}", "sweep.yaml: no data"),
        ("settings: {data: p}\nchoices: {lr: [1, 2]}", "choices or ranges without trials"),
        ("settings: {data: p}\ngrid: {lr: [1, 2, 3]}\ntrials: 2", "trials 2 for a grid of 3 combinations"),
        ("settings: {data: p}\ngrid: {lr: [1, 2]}\nchoices: {ema: [0.9]}\ntrials: 1", "trials 1 for a grid of 2"),
        ("settings: {data: p}\nchoices: {lr: [1, 2]}\ntrials: 1000000000000", "trials 1000000000000; allowed: a whole"),
        ("settings: {data: p}\nchoices: {lr: [1, 2]}\ntrials: true", "trials True; allowed: a whole number"),
        ("settings: {data: p}\nranges: {lr: {low: 0.1}}\ntrials: 3", "ranges.lr: no high"),
        ("settings: {data: p}\nranges: {lr: {low: 1, high: 0.1}}\ntrials: 3", "ranges.lr: 1 to 0.1"),
        ("settings: {data: p}\nranges: {lr: {low: 0, high: 1, log: true}}\ntrials: 3", "a logarithm from 0 on"),
        ("settings: {data: p}\nranges: {lr: {low: 0, high: 1, step: -1}}\ntrials: 3", "ranges.lr: step -1"),
        ("settings: {data: p}\nranges: {lr: {low: 0, high: 1, stp: 1}}\ntrials: 3", "no part of ranges.lr is called 'stp'"),
        ("settings: {data: p}\nranges: {lr: {low: 0, high: 1, step: 1.0e-300}}\ntrials: 3", "a number from 1e-09 to 1"),
        ("settings: {data: p}\nranges: {lr: {low: 0, high: 1, step: 1.0e-320}}\ntrials: 3", "a number from 1e-09 to 1"),
        ("settings: {data: p}\nranges: {lr: {low: 0, high: 1, step: .nan}}\ntrials: 3", "ranges.lr: step nan"),
        ("settings: {data: p}\nranges: {lr: {low: 0, high: 1, step: .inf}}\ntrials: 3", "ranges.lr: step inf"),
        ("settings: {data: p}\ngrid: {lr: [1" + "0" * 400 + "]}", "not YAML: a whole number of"),
        ("settings: {data: p}\ngrid: {lr: [1]}\nthreads: 0x" + "F" * 5000, "not YAML: a whole number of"),
        ("settings: {data: p}\nranges: {net: {low: 0, high: 1}}\ntrials: 3", "ranges.net: no number"),
        ("settings: {data: p}\nranges: {epochs: {low: 1, high: 1.0e+9}}\ntrials: 3", "epochs: 1000000000.0"),
        ("settings: {data: p}\nranges: {batch: {low: 8, high: 64, step: 0.5}}\ntrials: 3", "ranges.batch: step 0.5"),
        ("settings: {data: p}\ngrid: {lr: [1]}\nruntime: nativ", "no runtime to time in is called 'nativ'"),
        ("settings: {data: p}\ngrid: {lr: [1]}\nprecision: int9", "no precision is called 'int9'"),
        ("settings: {data: p}\ngrid: {lr: [1]}\nthreads: 0", "threads 0; allowed: a whole number from 1"),
        ("settings: {data: p}\ngrid: {lr: [1], deformable_stages: [2]}", "deformable_stages without deformable"),
        (
            "settings: {data: p}\ngrid: {lr: [" + ", ".join(f"0.{i:03}" for i in range(1, 101)) + "], "
            "ema: [" + ", ".join(f"0.{i:03}" for i in range(1, 101)) + "]}",
            "a grid of 10000 combinations; allowed: 1000 at most",
        ),
    ],
)  # fmt: skip
def test_what_no_sweep_can_be_is_one_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sweep.yaml").write_text(text)
    assert main(["sweep", "sweep.yaml"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert message in error[-1] and sum(line.startswith("gossamer: ") for line in error) == 1
    assert [path.name for path in Path().iterdir()] == ["sweep.yaml"]


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "1e9", "0.01"])
def test_a_budget_that_cannot_be_is_refused(minutes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sweep.yaml").write_text("settings: {data: p}\ngrid: {lr: [1]}")
    assert main(["sweep", str(tmp_path / "sweep.yaml"), "--minutes", minutes]) == 2
    assert "minutes" in capsys.readouterr().err.splitlines()[-1]


def test_equal_trials_are_one_and_numbers_may_have_an_exponent() -> None:
    space = checked_sweep(
        {
            "settings": {"data": "photos", "net": "mobilenet_v2"},
            "grid": {"lr": [0.01, "1e-2", 0.1], "input": [32, "32x32"], "width": [None, 1]},
        },
        "s",
    ).space
    assert len(space.combinations()) == 2
    assert checked_sweep(asked(ranges={"lr": {"low": "1e-4", "high": 1, "log": True}}, trials=5), "s").trials == 5
    counted = checked_sweep(
        asked(choices={"ema": [0.5, 0.9]}, ranges={"patience": {"low": 2, "high": 7, "step": 2}}, trials=5)
    )
    assert counted.space.size() == 6 and len(list(counted.space.every())) == 6


def test_who_goes_on() -> None:
    assert fractions(12) == fractions(9) == (1 / 9, 1 / 3, 1) and fractions(2) == (1 / 3, 1) and fractions(1) == (1,)
    fast, better, slow, bad = Standing(0, 0.5, 1), Standing(1, 0.7, 2), Standing(2, 0.6, 3), Standing(3, 0.2, 4)
    assert going_on([fast, better, slow, bad], [fast, better, slow, bad]) == [1, 0]
    # a trial of an earlier bracket beats them all: the best third goes on all the same
    assert going_on([slow, bad], [Standing(9, 0.9, 1), slow, bad]) == [2]
    near = Standing(4, 0.695, 2)
    assert going_on([fast, better, near, bad], [fast, better, near, bad]) == [1, 0]
    assert going_on([better, near, bad, slow], [better, near, bad, slow]) == [1, 4]


def test_a_grid_is_tried_once_left_early_and_resumed(
    trainings: Trainings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The files, the text and the JSON; a second start trains nothing; another sweep and a second process are refused."""
    Path("sweep.yaml").write_text(
        "settings: {data: photos, epochs: 2, input: 32, batch: 8}\n"
        "grid: {net: [lenet5, mobilenetv1_025], lr: [0.1, 1e-1, 0.01, 0.001, 1]}\n"
    )
    assert main(["sweep", "sweep.yaml", "--minutes", "10", "--seeds", "3", "--json"]) == 0
    out = capsys.readouterr()
    found = json.loads(out.out)
    assert len(found["trials"]) == 8 and found["left"] == 0 and found["score"] == "accuracy"
    assert Counter(call[0] for call in trainings.calls if call[1] < 0.2) == {f"{number:04d}": 1 for number in range(8)}
    complete = [one for one in found["trials"] if one["complete"]]
    assert 1 <= len(complete) < 8 and all(
        one["reason"].startswith("left after") for one in found["trials"] if not one["complete"]
    )
    front = [one for one in found["trials"] if one["front"]]
    assert front and all(one["values"]["lr"] == 0.1 for one in front) and front[0]["values"]["net"] == "lenet5"
    for one in front:
        assert len(one["seeds"]) == 3 and one["deviation"] == pytest.approx(0.001) and one["seeds"][0] == one["score"]
        settings = load_settings(one["settings"])
        assert (settings.net, settings.lr, settings.out) == (one["values"]["net"], 0.1, "")
    assert json.loads(Path("runs/sweep/trials.json").read_text()) == found
    with Path("runs/sweep/trials.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["trial"] for row in table] == [str(one["number"]) for one in found["trials"]]
    assert "<svg" in Path("runs/sweep/front.svg").read_text() and "lenet5" in Path("runs/sweep/front.svg").read_text()
    assert out.err.splitlines()[0] == "reading sweep.yaml"

    calls = list(trainings.calls)
    assert main(["sweep", "sweep.yaml", "--minutes", "10", "--seeds", "3"]) == 0
    text = capsys.readouterr().out
    assert trainings.calls == calls and "8 trials" in text and "± 0.0010 of 3" in text
    assert "gossamer train --config runs/sweep/front/" in text

    with Path("runs/sweep/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["sweep", "sweep.yaml"]) == 2
    assert "runs/sweep: another process is at work there" in capsys.readouterr().err
    Path("sweep.yaml").write_text(Path("sweep.yaml").read_text().replace("0.001, 1]", "0.001]"))
    assert main(["sweep", "sweep.yaml"]) == 2
    said = capsys.readouterr().err
    assert "was begun with grid.lr [0.1, 0.01, 0.001, 1.0], now it is [0.1, 0.01, 0.001]" in said
    Path("sweep.yaml").write_text(Path("sweep.yaml").read_text().replace("batch: 8", "batch: 8, ema: 0.5"))
    assert main(["sweep", "sweep.yaml"]) == 2 and "settings.ema not there" in capsys.readouterr().err
    assert trainings.calls == calls


@pytest.mark.full
def test_drawn_trials_are_never_the_same_and_end_where_there_are_no_others(trainings: Trainings) -> None:
    result = gossamer.sweep(
        asked(choices={"optimizer": ["sgd", "adamw"], "lr": [0.01, 0.1]}, grid={"ema": [0, 0.5]}, trials=12), "out"
    )
    values = [json.dumps(one.values, sort_keys=True) for one in result.trials]
    assert len(values) == len(set(values)) == 8 and result.left == 0
    assert any("all 8 different trials" in note for note in result.notes)
    numbers = sorted(one.number for one in result.trials)
    assert numbers == list(range(8))


@pytest.mark.full
def test_later_brackets_learn_from_earlier_ones(trainings: Trainings) -> None:
    """The sampler is Optuna's own: rates of the second half come nearer to the best one."""
    space = {"lr": {"low": 1e-3, "high": 10, "log": True}}
    result = gossamer.sweep(asked(ranges=space, trials=27), "out")
    distance = {one.number: abs(math.log10(one.values["lr"] / 0.1)) for one in result.trials}
    assert len(distance) == 27 and sum(one.complete for one in result.trials) < 27
    first, last = ([distance[number] for number in numbers] for numbers in (range(9), range(18, 27)))
    assert sorted(last)[4] < sorted(first)[4]
    assert len(result.front) == 1 and abs(math.log10(result.front[0].values["lr"] / 0.1)) < 0.5


@pytest.mark.full
def test_interrupted_at_every_training_none_is_lost_or_done_twice(trainings: Trainings) -> None:
    values = asked(ranges={"lr": {"low": 1e-3, "high": 10, "log": True}}, trials=11)
    journal = Path("broken/study.journal")

    def run() -> Any:
        if journal.exists():  # as a kill in the middle of a line leaves it
            with journal.open("ab") as file:
                file.write(b'{"op_code": 5, "wor')
        return gossamer.sweep(values, "broken")

    for number in range(100):
        trainings.stop[number] = KeyboardInterrupt()
        try:
            result = run()
            break
        except KeyboardInterrupt:
            assert len(trainings.calls) == number
    calls = list(trainings.calls)
    assert 11 < len(calls) < 33
    assert max(Counter(calls).values()) == 1
    assert len({name for name, _ in calls}) == 11
    trainings.stop.clear()
    assert gossamer.sweep(values, "broken").to_json()["front"] == result.to_json()["front"]
    assert len(result.trials) == 11 and trainings.calls == calls
    study = Study(journal, checked_sweep(values).space, 0)
    assert len({trial.number for trial in study.trials}) == 11


def test_a_trial_that_was_cut_off_while_it_was_drawn_does_not_count(trainings: Trainings) -> None:
    values = asked(ranges={"lr": {"low": 1e-3, "high": 10, "log": True}}, trials=3)
    trainings.stop[0] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        gossamer.sweep(values, "out")
    journal = Path("out/study.journal")
    lines = journal.read_bytes().splitlines(keepends=True)
    last = max(index for index, line in enumerate(lines) if b'"drawn"' in line)
    journal.write_bytes(b"".join(lines[:last]))
    result = gossamer.sweep(values, "out")
    assert [one.number for one in sorted(result.trials, key=lambda one: one.number)] == [0, 1, 2]


def test_the_minutes_of_all_starts_count(trainings: Trainings) -> None:
    """Trainings of a minute each: three fit into three minutes; what is left is told, and more minutes go on."""
    trainings.seconds = 60.0
    values = asked(grid={"lr": [0.001, 0.01, 0.1, 1.0]})
    trainings.stop[2] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        gossamer.sweep(values, "out", minutes=3.0)
    result = gossamer.sweep(values, "out", minutes=3.0)
    assert len(trainings.calls) == 3 and result.left >= 1 and not result.front and result.exit_code == 1
    assert any("the 3 minutes are used up" in note for note in result.notes)
    more = gossamer.sweep(values, "out", minutes=60.0)
    assert more.left == 0 and len(more.front) == 1 and max(Counter(trainings.calls).values()) == 1
    assert more.front[0].values == {"lr": 0.1}


def test_the_minutes_of_a_killed_training_count_in_every_later_start(
    trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = {"0000": 60.0}  # of the run folder; only the killed start is in no step
    monkeypatch.setattr(steps, "seconds_of_killed", lambda folder, known: max(0.0, clock.get(folder.name, 0.0) - known))
    trainings.seconds = 0.0
    values = asked(grid={"lr": [0.1, 0.2]})
    minutes = [gossamer.sweep(values, "out").minutes for _ in range(3)]
    assert minutes == pytest.approx([1.0, 1.0, 1.0])


def test_a_length_is_derived_from_the_minutes(trainings: Trainings, monkeypatch: pytest.MonkeyPatch) -> None:
    values = asked(grid={"lr": [0.01, 0.1]})
    del values["settings"]["epochs"]
    gossamer.sweep(values, "out", minutes=10.0)
    schedule = json.loads(Path("out/steps/plan.json").read_text())["schedule"]
    assert 4 < schedule < 9
    number = json.loads(Path("out/trials.json").read_text())["front"][0]
    assert load_settings(f"out/front/{number:04d}.yaml").minutes == pytest.approx(schedule)


def test_networks_that_cannot_be_built_have_their_reason(
    trainings: Trainings, capsys: pytest.CaptureFixture[str]
) -> None:
    result = gossamer.sweep(asked(grid={"net_options": ["", "no_such=1"]}), "out")
    by_options = {one.values["net_options"]: one for one in result.trials}
    assert by_options[""].complete and by_options["no_such=1"].ms is None
    assert "no_such" in by_options["no_such=1"].reason and len(by_options["no_such=1"].reason.splitlines()) == 1
    with pytest.raises(SettingsError, match=r"no combination of the grid can be trained; the first: .*no_such"):
        gossamer.sweep(asked(grid={"net_options": ["no_such=1", "no_other=2"]}), "none")
    assert not Path("none").exists()
    one_of_them = gossamer.sweep(asked(choices={"net_options": ["no_such=1", ""]}, trials=2), "chosen")
    assert sorted(bool(one.ms) for one in one_of_them.trials) == [False, True]


def test_a_folder_that_is_moved_ends_the_sweep_and_goes_on_there(trainings: Trainings) -> None:
    values = asked(grid={"lr": [0.1, 0.2]})

    class Mover(Progress):
        def say(self, line: str) -> None:
            if line.startswith("step 4: train"):
                Path("out").rename("moved")

    with pytest.raises(RunError, match="out: was moved or removed while gossamer sweep was at work there"):
        gossamer.sweep(values, "out", progress=Mover())
    assert not Path("out").exists() and not trainings.calls
    assert len(gossamer.sweep(values, "moved").trials) == 2


def test_a_training_that_fails_has_its_reason_and_the_others_go_on(trainings: Trainings) -> None:
    trainings.stop[0] = GossamerError("the loss is nan")
    lines: list[str] = []
    progress = Progress()
    progress.say = lines.append  # type: ignore[method-assign]
    result = gossamer.sweep(asked(grid={"lr": [0.1, 0.2]}), "out", progress=progress)
    assert "failed: train 0000 0.1 to 33.3 % of its schedule: the loss is nan; the next step follows" in lines
    assert not any("inf" in line for line in lines)  # minutes of a sweep without a budget
    reasons = sorted(one.reason for one in result.trials)
    assert reasons == ["", "its training failed: the loss is nan"] and len(result.front) == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("study.journal", b"no journal\n{}\n", "study.journal: is damaged"),
        ("sweep.json", b"[]", "sweep.json: is damaged"),
        ("sweep.json", b'{"format": 1, "settings": {}, "environments": []}', "does not hold the settings of a sweep"),
        ("steps/plan.json", b"{", "plan.json: is damaged"),
        ("steps/trial-0000-time.json", b'{"seconds": 1, "what": "", "ms": null}', "ms is missing or of another type"),
        ("steps/trial-0000-rung-1.json", b'{"seconds": 1, "what": "", "score": "x"}', "score is missing"),
        ("steps/trial-0000-rung-1.json", b'{"seconds": 1, "what": "", "score": 1, "fraction": "x"}', "fraction is missing"),
        ("steps/trial-0000-rung-1.json", b'{"what": "", "seconds": 1' + b"0" * 400 + b"}", "seconds is missing"),
        ("steps/plan.json", b'{"seconds": 1, "what": "", "schedule": null, "elapsed": "x"}', "elapsed is missing"),
        ("study.journal", b"", "study.journal: holds 0 trials, not that of out/steps/trial-0000-"),
    ],
)  # fmt: skip
def test_damaged_folders_are_one_line(file: str, content: bytes, message: str, trainings: Trainings) -> None:
    values = asked(grid={"lr": [0.1, 0.2]})
    gossamer.sweep(values, "out")
    Path("out", file).write_bytes(content)
    with pytest.raises(RunError, match=message):
        gossamer.sweep(values, "out")


@pytest.mark.parametrize("place", ["photos", "a_file", "a_run"])
def test_a_place_that_is_no_folder_of_a_sweep_is_refused(place: str, trainings: Trainings) -> None:
    Path("a_file").write_text("x")
    Path("a_run").mkdir()
    Path("a_run/settings.yaml").write_text("")
    with pytest.raises(RunError, match=f"{place}: "):
        gossamer.sweep(asked(grid={"lr": [0.1, 0.2]}), place)


def test_a_journal_that_is_gone_gives_no_trial_the_result_of_another(trainings: Trainings) -> None:
    values = asked(ranges={"lr": {"low": 1e-3, "high": 10, "log": True}}, trials=3)
    gossamer.sweep(values, "out")
    journal = Path("out/study.journal")
    lines = journal.read_bytes().splitlines(keepends=True)
    calls = list(trainings.calls)
    last = max(index for index, line in enumerate(lines) if b'"drawn"' in line)
    for rest in ([], lines[:last]):
        journal.write_bytes(b"".join(rest))
        with pytest.raises(RunError, match=r"study.journal: holds \d trials, not that of out/steps/trial-000"):
            gossamer.sweep(values, "out")
    journal.unlink()
    with pytest.raises(RunError, match="holds 0 trials"):
        gossamer.sweep(values, "out")
    assert trainings.calls == calls


def test_sections_in_another_order_are_the_same_sweep(tmp_path: Path) -> None:
    """Values keep their columns, and of a grid none is left out."""
    pairs = {"lr": [0.1, 0.2], "ema": [0.0, 0.5], "optimizer": ["sgd", "adamw"]}
    one, other = (dict(order) for order in (pairs.items(), reversed(pairs.items())))
    for section, trials in (("grid", None), ("choices", 8)):
        path = tmp_path / section
        first, second = (checked_sweep(asked(**{section: each}, trials=trials)).space for each in (one, other))
        study = Study(path, first, 0)
        drawn = [study.draw(combination, 0) for combination in (first.combinations() * 8)[:5]]
        again = Study(path, second, 0)
        assert [trial.values for trial in again.trials] == [trial.values for trial in drawn if trial]
        drawn += [again.draw(combination, 0) for combination in (second.combinations() * 8)[5:8]]
        assert None not in drawn and again.draw(second.combinations()[0], 0) is None
        assert {tuple(trial.values) for trial in again.trials} == {tuple(other)}
        assert len({json.dumps(trial.values) for trial in again.trials}) == 8


def test_steps_of_a_range_end_where_decimal_numbers_do(tmp_path: Path) -> None:
    """Warnings are errors: Optuna's own would tell of 0.7000000000000001."""
    each = Range(0.1, 0.7, step=0.2)
    assert each.end == 0.7 and each.values() == pytest.approx([0.1, 0.3, 0.5, 0.7]) and max(each.values() or ()) == 0.7
    assert Range(2, 7, step=2, whole=True).values() == [2, 4, 6] and Range(2, 4, whole=True).values() == [2, 3, 4]
    assert Range(0.0, 1.0, step=1e-9).values() is None and Range(0.0, 1.0).end == 1.0
    section = {"lr": {"low": 0.1, "high": 0.7, "step": 0.2}, "patience": {"low": 1, "high": 4, "step": 2}}
    study = Study(tmp_path / "journal", checked_sweep(asked(ranges=section, trials=8)).space, 0)
    drawn = [study.draw({}, 0) for _ in range(9)]
    assert drawn.pop() is None and len({json.dumps(one.values) for one in drawn if one}) == 8
    assert {one.values["lr"] for one in drawn if one} == set(each.values() or ())


def test_a_sampler_that_comes_back_to_the_same_trial_ends_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(tmp_path / "journal", checked_sweep(asked(ranges={"lr": {"low": 0, "high": 1}}, trials=9)).space, 0)
    ask = Study._ask
    monkeypatch.setattr(
        Study, "_ask", lambda self, *words, at_random=False: ask(self, *words, at_random=True) if at_random else None
    )
    assert study.draw({}, 0) is not None


def test_a_width_is_another_trial_where_a_network_has_none() -> None:
    grid = {"net": ["lenet5", "mobilenet_v2"], "width": [1, None]}
    assert checked_sweep({"settings": {"data": "photos"}, "grid": grid}).space.combinations() == [
        {"net": "lenet5", "width": 1.0}, {"net": "lenet5", "width": None}, {"net": "mobilenet_v2", "width": 1.0},
    ]  # fmt: skip


def test_trials_beside_one_another_take_a_thread_and_the_time_that_passed(
    trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seconds of two that were killed side by side passed once."""
    asked_threads: list[int] = []

    class Pair:
        count, tries = 2, 1

        def __init__(self) -> None:
            self.done: dict[int, dict[str, Any]] = {}

        def start(self, function: Any, arguments: tuple[Any, ...]) -> int:
            asked_threads.append(arguments[1]["threads"])
            self.done[len(self.done)] = function(*arguments)
            return len(self.done) - 1

        def first(self, running: list[int], seconds: float) -> Any:
            return running[0], lambda: self.done[running[0]]

    @contextmanager
    def joined(*_: Any) -> Iterator[Pair]:
        yield Pair()

    monkeypatch.setattr("gossamer.sweeps.sweep.joined", joined)
    monkeypatch.setattr(steps, "seconds_of_killed", lambda folder, known: 60.0 if known == 0 else 0.0)
    values = asked(grid={"lr": [0.1, 0.2]})
    del values["settings"]["threads"]
    result = gossamer.sweep(values, "out", ray="local")
    assert set(asked_threads) == {1} and load_settings(result.front[0].settings).threads == 0
    assert result.minutes == pytest.approx((60 + len(trainings.calls)) / 60)


def test_minutes_that_are_left_are_not_called_used_up(tmp_path: Path) -> None:
    runner = steprunner.StepRunner(SweepFolder(tmp_path), 10.0, SILENT, [])
    runner.before = 5 * 60.0
    runner.stop("a", 400.0)
    runner.before = 11 * 60.0
    runner.stop("b", 400.0)
    assert runner.notes == [
        "5 of the 10 minutes are left, which are not enough; not tried: a",
        "the 10 minutes are used up; not tried: b",
    ]
    one = steprunner.StepRunner(SweepFolder(tmp_path), 1.0, SILENT, [])
    one.before = 2 * 60.0
    one.stop("c")
    assert one.notes == ["the 1 minute is used up; not tried: c"]
