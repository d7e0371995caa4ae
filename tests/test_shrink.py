"""The recipe: which limits hold, what is kept whatever happens, and what is refused in one line."""

from __future__ import annotations

import errno
import inspect
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gossamer
from gossamer.cli.main import main
from gossamer.errors import GossamerError, RunError, SettingsError, StorageError, UnknownNameError, VerificationError
from gossamer.host import storage
from gossamer.shrink.recipe import aims, latency, steps
from gossamer.shrink.recipe import recipe as recipes
from gossamer.shrink.recipe.candidates import Candidate, Targets, best_of, candidate_of, pareto, rows
from gossamer.shrink.recipe.folder import RecipeFolder
from gossamer.shrink.recipe.paired import GROUPS, Drop, Outcome, changed, drop_between, outcome_of, paired_interval
from gossamer.shrink.recipe.result import Shrunk

OLD = Path(__file__).parent / "compat" / "0.1"
RUN = "runs/classify"  # 6 validation images

# the name of the package and of the function


def test_the_package_can_be_called_and_its_modules_imported_in_any_order() -> None:
    for first in ("import gossamer.shrink.limits", "gossamer.shrink", "from gossamer import shrink"):
        code = (
            f"import gossamer; {first}; from gossamer.shrink.limits import parse_limit; import gossamer.shrink.limits; "
            "assert gossamer.shrink.limits.parse_limit is parse_limit; assert callable(gossamer.shrink); "
            "import sys; assert gossamer.shrink is sys.modules['gossamer.shrink']; assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


def test_help_shows_the_function_behind_the_package() -> None:
    assert inspect.signature(gossamer.shrink) == inspect.signature(recipes.shrink)
    with pytest.raises(TypeError, match="max_milliseconds"):
        gossamer.shrink("runs/x", "out", max_milliseconds=1)  # type: ignore[call-arg]


# what is better, and by how much


def one(name: str, ms: float | None, size: int, score: float, drop: float = 0.0) -> Candidate:
    return Candidate(name, f"{name}.onnx", "a step", "int8", "native", ms, size, score, drop, drop - 1, drop + 1)


def test_the_best_keeps_the_limits_and_has_the_highest_score() -> None:
    targets = Targets(1.0, 1.0, 1.0)
    good = one("good", 0.9, 900_000, 0.80, 0.5)
    fast = one("fast", 0.5, 500_000, 0.79, 0.9)
    slow = one("slow", 1.2, 900_000, 0.90, -5)
    assert best_of([fast, slow, good], targets) is good
    assert best_of([slow, fast], targets) is fast
    assert targets.misses(good) == [] and [miss.name for miss in targets.misses(slow)] == ["ms"]


def test_the_rows_of_candidates_say_what_is_known() -> None:
    exact = one("exact", 0.5, 600_000, 0.8, 0.25)
    unknown = replace(one("unknown", None, 2_000_000, 0.8, 0.0), drop_low=None, drop_high=None)
    assert rows([exact, unknown], Targets(1.0, 1.0, 1.0)) == [
        ("exact.onnx", "a step", "int8", "0.500", "0.600", "0.8000", "+0.25", "-0.75 to +1.25", "kept", "yes"),
        ("unknown.onnx", "a step", "int8", "-", "2.000", "0.8000", "+0.00", "-", "misses ms, MB", ""),
    ]


def test_of_those_that_miss_the_nearest_is_best() -> None:
    targets = Targets(1.0, None, 1.0)
    far, near, worse = one("far", 2.0, 1, 0.9), one("near", 1.1, 1, 0.8), one("worse", 0.9, 1, 0.5, 30.0)
    assert best_of([far, near, worse], targets) is near
    (miss,) = targets.misses(near)
    assert (miss.limit, miss.reached) == (1.0, 1.1) and miss.excess == pytest.approx(0.1)
    assert "0.100 too many" in miss.text()
    untimed = one("untimed", None, 1, 0.99)
    assert targets.misses(untimed)[0].reached == math.inf and best_of([untimed, far], targets) is far


def test_the_pareto_list_leaves_out_what_another_beats() -> None:
    a, b = one("a", 1.0, 100, 0.9), one("b", 2.0, 200, 0.9)
    c, d = one("c", 3.0, 50, 0.7), one("d", None, 40, 0.95)
    assert pareto([a, b, c, d]) == [a, c, d]
    assert pareto([a, a]) == [a, a], "equal ones do not beat each other"


def test_a_candidate_comes_back_from_json() -> None:
    first = one("a", None, 100, 0.9)
    assert candidate_of(json.loads(json.dumps(asdict(first)))) == first


def of(right: list[int], names: list[str] | None = None) -> Outcome:
    names = names or [str(number) for number in range(len(right))]
    accuracy = sum(right) / len(right)
    return Outcome(
        "accuracy", len(right), {"accuracy": accuracy}, tuple(names), tuple(1 - r for r in right), (0,) * len(right)
    )


def test_drops_are_paired_by_image() -> None:
    before, after = of([1] * 90 + [0] * 10), of([1] * 88 + [0] * 2 + [1] * 1 + [0] * 9)
    drop = drop_between(before, after)
    assert (drop.lost, drop.gained) == (2, 1) and drop.points == pytest.approx(1.0)
    assert drop.low < 0 < drop.high and not drop.resolved
    shuffled = of([0, 1], ["b", "a"])
    assert drop_between(of([1, 0], ["a", "b"]), shuffled).points == 0, "by name, not by place"
    rows = changed(before, after)
    assert [row[0] for row in rows] == ["88", "89", "90"] and rows[0][1:] == (0, 0, 1)


def test_the_interval_is_that_of_bonett_and_price() -> None:
    low, high = paired_interval(9, 1, 100)
    p, q = 10 / 102, 2 / 102
    error = 1.96 * math.sqrt((p + q - (p - q) ** 2) / 102)
    assert (low, high) == (pytest.approx(100 * (p - q - error)), pytest.approx(100 * (p - q + error)))
    none = paired_interval(0, 0, 100)
    assert none[0] < 0 < none[1], "no image that differs is not certainty"
    assert paired_interval(0, 0, 10_000)[1] < none[1]


def test_the_interval_covers_the_truth_about_95_times_of_100() -> None:
    draw = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        lost, gained, _ = draw.multinomial(400, [0.05, 0.02, 0.93])
        low, high = paired_interval(lost, gained, 400)
        inside += low <= 3.0 <= high
    assert 0.93 <= inside / 2000 <= 0.98


def test_other_scores_have_a_jackknife_over_groups() -> None:
    draw = np.random.default_rng(1)

    def some(level: float, noise: float) -> Outcome:
        return Outcome("miou", 40, {"miou": level}, replicates=tuple(level + noise * draw.standard_normal(GROUPS)))

    wide, narrow = drop_between(some(0.8, 0.01), some(0.7, 0.01)), drop_between(some(0.8, 0.001), some(0.7, 0.001))
    assert wide.points == narrow.points == pytest.approx(10)
    assert wide.high - wide.low > narrow.high - narrow.low > 0 and narrow.resolved
    none = drop_between(Outcome("miou", 3, {"miou": 0.8}), Outcome("miou", 3, {"miou": 0.7}))
    assert math.isnan(none.low) and "too few" in none.text() and not none.resolved
    again = some(0.5, 0.1)
    assert outcome_of(json.loads(json.dumps(again.to_json()))) == again


# what is tried next


def test_what_is_needed_follows_from_the_int8_file() -> None:
    first, int8 = one("float", 4.0, 4_100_000, 0.9), one("int8", 2.0, 1_100_000, 0.9)
    assert aims.needed(first, int8, Targets(1.0, None, 1.0), 4_000_000) == {"latency": 0.5}
    assert aims.needed(first, int8, Targets(None, 0.6, 1.0), 4_000_000) == {"size": pytest.approx(0.5)}
    assert aims.needed(first, int8, Targets(3.0, 2.0, 1.0), 4_000_000) == {}
    (limit,) = aims.limits_of({"latency": 0.5}, 1.0, native=False)
    assert limit.kind == "macs" and limit.value == pytest.approx(0.485)


def test_the_next_network_follows_from_the_last() -> None:
    targets, fractions = Targets(1.0, None, 1.0), {"latency": 0.25}
    slow, wrong, good = one("a", 1.25, 1, 0.9), one("b", 0.9, 1, 0.8, 5.0), one("c", 0.9, 1, 0.9)
    assert aims.next_scale(1.0, fractions, slow, targets) == pytest.approx(0.95 / 1.25), "narrower"
    assert aims.next_scale(1.0, fractions, wrong, targets) * 0.25 == pytest.approx(0.5), "wider"
    assert aims.next_scale(1.0, fractions, good, targets) == pytest.approx(0.8)
    assert [aims.count_of(minutes) for minutes in (1, 6, 90)] == [1, 2, 3]


# the recipe around its steps, which are replaced by quick ones

SIZES = {"float": 4_000_000, "int8": 1_100_000, "narrow-1": 2_000_000, "narrow-1-int8": 500_000}
STEPS = ["int8", "choose", "train", "narrow-1-int8", "decompose", "measure"]
TRIED = {"layer": "conv1", "method": "svd", "ranks": [4], "ms": [0.5, 0.4], "verdict": "accepted"}


class Work:
    """Steps that write small files and count how often each is done. fail: step -> what it raises."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fail: dict[str, BaseException] = {}
        self.wrong: dict[str, int] = {}  # images of 6 that a file has wrong
        self.sizes = dict(SIZES)
        self.accepted = False  # whether a decomposition is
        self.allowed: list[float] = []

    def do(self, name: str) -> None:
        self.done.append(name)
        if name in self.fail:
            raise self.fail[name]

    def measured(self, place: Any, path: Path, name: str, step: str, precision: str, *_: Any) -> dict[str, Any]:
        right = [1] * (6 - self.wrong.get(name, 0)) + [0] * self.wrong.get(name, 0)
        result = of(right)
        drop = Drop(0.0) if place.before is None else drop_between(place.before, result)
        low, high = (None, None) if place.before is None else (drop.low, drop.high)
        size = self.sizes.get(name, 400_000)
        run = _[1] if len(_) > 1 else "r"
        made = Candidate(
            name, path.name, step, precision, "native", size / 1e6, size, result.value, drop.points, low, high, run
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
        return {"candidate": asdict(made), "outcome": result.to_json()}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    for path in OLD.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    quick = Work()

    def float_file(run: Any, which: str, path: Path, progress: Any) -> None:
        quick.do("export")
        path.parent.mkdir(parents=True, exist_ok=True)

    def quantised(place: Any, run: str, which: str, path: Path, name: str, step: str, *_: Any) -> dict[str, Any]:
        quick.do(name)
        return quick.measured(place, path, name, step, "int8", None, run)

    def narrowed(place: Any, limits: Any) -> dict[str, Any]:
        quick.do("choose")
        return {"changes": "[]", "widths": [["a", 8, 4]], "staircase": []}

    def narrower(place: Any, limits: Any) -> dict[str, Any]:
        quick.do("width")
        return {"width": 0.1, "widths": [], "staircase": []}

    def trained(place: Any, choice: Any, folder: Path, minutes: float) -> dict[str, Any]:
        quick.do("train")
        return {"run": RUN}

    def decomposed(place: Any, run: str, which: str, folder: Path, minutes: float, max_drop: float) -> dict[str, Any]:
        quick.do("decompose")
        quick.allowed.append(max_drop)
        made = "runs/decomposed" if quick.accepted else None
        return {"run": made, "parent": run, "accepted": int(quick.accepted), "tried": [TRIED], "log": [], "before": 0.0}

    def timed(place: Any, candidates: Any, folder: Path) -> dict[str, Any]:
        quick.do("measure")
        return {"ms": {each.name: each.ms for each in candidates}}

    for name, function in (
        ("float_file", float_file),
        ("measured", quick.measured),
        ("quantised", quantised),
        ("narrowed", narrowed),
        ("narrower_network", narrower),
        ("trained", trained),
        ("decomposed", decomposed),
        ("timed_again", timed),
    ):
        monkeypatch.setattr(steps, name, function)
    monkeypatch.setattr(recipes, "runtime_here", lambda file: ("native", ""))
    return quick


def shrunk(**options: Any) -> Shrunk:
    return recipes.shrink(RUN, "out", **{"max_mb": 0.6, "max_drop": 20, "minutes": 2, **options})


def found() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(Path("out/pareto.json").read_text())
    return values


def test_the_recipe_prunes_trains_and_quantises_until_the_limits_hold(work: Work) -> None:
    result = shrunk()
    assert work.done == ["export", "int8", "choose", "train", "export", "narrow-1-int8", "decompose", "measure"]
    assert result.exit_code == 0 and result.best == "narrow-1-int8" and not result.misses
    assert Path(result.file).read_bytes() == b"narrow-1-int8"
    assert [each["name"] for each in found()["candidates"]] == ["float", "int8", "narrow-1", "narrow-1-int8"]
    assert found()["best"] == "narrow-1-int8" and found()["misses"] == []
    lines = Path("out/pareto.csv").read_text().splitlines()
    assert lines[0].startswith("name,file,step") and len(lines) == 5
    assert json.loads(json.dumps(result.to_json()))["exit_code"] == 0
    state = json.loads(Path("out/shrink.json").read_text())
    assert state["settings"]["max_mb"] == 0.6 and state["environments"][0]["versions"]["numpy"]


def test_int8_alone_is_enough_where_it_keeps_the_limits(work: Work) -> None:
    result = shrunk(max_mb=2)
    assert result.best == "int8" and work.done == ["export", "int8", "measure"]
    assert "int8 alone keeps every limit" in result.text()


def test_a_missed_limit_is_exit_1_with_the_nearest(work: Work, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["shrink", RUN, "--out", "out", "--max-mb", "0.1", "--max-drop", "20", "--minutes", "2"]
    assert main([*words, "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    (miss,) = printed["misses"]
    assert (miss["name"], miss["limit"], miss["reached"]) == ("MB", 0.1, 0.5)
    assert main(words) == 1
    out = capsys.readouterr().out
    assert "missed: at most 0.1 MB: 0.500 were reached, 0.400 too many" in out and "nearest that was reached" in out


def test_finished_steps_are_not_done_again(work: Work) -> None:
    first = shrunk()
    work.done.clear()
    again = shrunk()
    assert work.done == [] and again.candidates == first.candidates and again.best == first.best
    assert len(json.loads(Path("out/shrink.json").read_text())["environments"]) == 2


@pytest.mark.parametrize("step", STEPS)
def test_an_error_in_one_step_does_not_end_the_others(work: Work, step: str) -> None:
    work.fail[step] = VerificationError("the numbers do not agree")
    result = shrunk()
    assert work.done[-1] == "measure"
    assert [each.error for each in result.steps if each.error] == ["the numbers do not agree"]
    assert Path(result.file).is_file() and found()["candidates"]
    assert "failed: " in result.text() and "the numbers do not agree" in result.text()
    work.done.clear()
    shrunk()
    assert work.done == [], "what failed once fails again, and is told again"


def test_where_pruning_refuses_a_narrower_network_is_distilled(work: Work) -> None:
    work.fail["choose"] = VerificationError("cannot be reached")
    result = shrunk()
    assert work.done[2:5] == ["choose", "width", "train"] and result.best == "narrow-1-int8"
    assert next(each for each in result.candidates if each.name == "narrow-1").step == "narrower network, distilled"


def test_a_defect_in_one_step_is_told_and_passed(work: Work) -> None:
    work.fail["int8"] = ZeroDivisionError("division by zero")
    result = shrunk()
    assert any("a defect of gossamer: ZeroDivisionError" in each.error for each in result.steps)
    assert result.best == "narrow-1-int8"


@pytest.mark.parametrize("step", STEPS)
def test_what_was_found_is_there_after_an_interruption(work: Work, step: str) -> None:
    work.fail[step] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        shrunk()
    assert Path("out/best.onnx").is_file() and found()["best"]
    before = list(work.done)
    work.fail.clear()
    work.done.clear()
    whole = shrunk()
    assert work.done[0] == step and set(work.done).isdisjoint(set(before[:-1]) - {"export"})
    assert whole.best == "narrow-1-int8" and len(whole.candidates) == 4


def test_layers_stay_in_float_where_only_quantising_costs_too_much(work: Work) -> None:
    work.wrong["narrow-1-int8"] = 3
    result = shrunk()
    assert "narrow-1-int8-fallback" in work.done and result.best == "narrow-1-int8-fallback"


def test_test_images_are_opened_once_at_the_end(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = recipes.same_data

    def with_test(run: Any) -> Any:
        data = real(run)
        data.test = data.val
        return data

    def tested(place: Any, test: Any, first: Path, best: Candidate, path: Path) -> dict[str, Any]:
        assert work.done[-1] == "measure"
        opened.append(best.name)
        return {"before": {"accuracy": 0.9}, "after": {"accuracy": 0.8}, "images": 6, "drop": [10.0, -5.0, 25.0]}

    monkeypatch.setattr(recipes, "same_data", with_test)
    monkeypatch.setattr(steps, "tested", tested)
    result = shrunk()
    shrunk()
    assert opened == ["narrow-1-int8"] and result.test == {"accuracy": (0.9, 0.8)}
    assert "on the test images: 0.9000 -> 0.8000" in result.text()


def test_no_step_begins_when_the_minutes_are_used_up(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(recipes.time, "monotonic", lambda: now[0])
    real = steps.quantised

    def slow(*arguments: Any) -> Any:
        now[0] += 1000
        return real(*arguments)

    monkeypatch.setattr(steps, "quantised", slow)
    result = shrunk()
    assert work.done == ["export", "int8", "measure"] and "minutes are used up; not tried: prune" in result.text()
    assert result.text().count("not tried") == 1
    assert result.exit_code == 1 and Path(result.file).is_file()


def test_a_full_disk_ends_it_and_keeps_what_was_found(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    real = steps.quantised

    def full(*arguments: Any) -> Any:
        def refuse(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        result = real(*arguments)
        monkeypatch.setattr(storage.os, "fsync", refuse)
        return result

    monkeypatch.setattr(steps, "quantised", full)
    with pytest.raises(StorageError, match="the disk is full"):
        shrunk()
    assert Path("out/best.onnx").read_bytes() == b"float" and found()["best"] == "float"
    monkeypatch.undo()


# what is refused

BAD: dict[str, tuple[dict[str, Any], type[GossamerError], str]] = {
    "no limit": ({"max_mb": None}, SettingsError, "no limit of time or size"),
    "milliseconds of 0": ({"max_ms": 0}, SettingsError, "a limit of 0 ms"),
    "milliseconds that are no number": ({"max_ms": math.nan}, SettingsError, "a limit of nan ms"),
    "megabytes below 0": ({"max_mb": -1}, SettingsError, "a limit of -1 MB"),
    "a drop below 0": ({"max_drop": -1}, SettingsError, "a drop of at most -1"),
    "a drop that is infinite": ({"max_drop": math.inf}, SettingsError, "a drop of at most inf"),
    "a drop finer than the images tell": ({"max_drop": 1}, SettingsError, "finer than 6 validation images tell"),
    "no minutes": ({"minutes": 0}, SettingsError, "minutes 0"),
    "minutes that are no number": ({"minutes": math.nan}, SettingsError, "minutes nan"),
    "too few minutes": ({"minutes": 0.5}, SettingsError, "0.5 minutes, too few"),
    "no epochs": ({"epochs": 0}, SettingsError, "trainings of 0 epochs"),
    "an unknown importance": ({"importance": "tailor"}, UnknownNameError, "did you mean taylor"),
    "no threads": ({"threads": 0}, SettingsError, "threads 0"),
    "other weights": ({"which": "first"}, SettingsError, "weights 'first'"),
    "limits that the run keeps": ({"max_mb": 100}, SettingsError, "the run keeps that as it is"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_used_is_refused_before_anything_is_kept(work: Work, kind: str) -> None:
    options, error, said = BAD[kind]
    with pytest.raises(error, match=said.replace("(", r"\(")) as raised:
        shrunk(**options)
    assert "\n" not in str(raised.value)
    assert not Path("out").exists()


def make_run_here() -> None:
    Path("out").symlink_to(OLD / "runs" / "classify")


def make_other_files() -> None:
    Path("out").mkdir()
    Path("out/diary.txt").write_text("dear diary")


PLACES: dict[str, tuple[Callable[[], object], str]] = {
    "a file": (lambda: Path("out").write_text("x"), "out: is no folder"),
    "a run": (make_run_here, "out: holds a run"),
    "other files": (make_other_files, "out: holds other files"),
}


@pytest.mark.parametrize("kind", PLACES)
def test_a_place_that_holds_something_else_is_refused(work: Work, kind: str) -> None:
    make, said = PLACES[kind]
    make()
    with pytest.raises(RunError, match=said):
        shrunk()
    assert work.done == []


CHANGED = {
    "max_mb": 0.7,
    "max_drop": 30,
    "minutes": 3,
    "epochs": 2,
    "importance": "norm",
    "threads": 2,
    "which": "last",
    "decompose": False,
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_folder_that_was_begun_goes_on_with_its_own_settings_alone(work: Work, name: str) -> None:
    shrunk()
    work.done.clear()
    with pytest.raises(RunError, match=r"out: .*the settings that it was begun with") as raised:
        shrunk(**{name: CHANGED[name]})
    assert work.done == [] and ("checkpoint" in str(raised.value) or name in str(raised.value))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 9}', '{"format": 1, "settings": {}, "environments": []}']
)
def test_a_damaged_state_is_refused(work: Work, content: str) -> None:
    shrunk()
    Path("out/shrink.json").write_text(content)
    with pytest.raises(RunError, match=r"shrink\.json"):
        shrunk()


def test_a_damaged_step_and_a_lost_file_are_named(work: Work) -> None:
    shrunk()
    Path("out/steps/int8.json").write_text("{")
    with pytest.raises(RunError, match=r"int8\.json: is damaged.*remove it"):
        shrunk()
    Path("out/steps/int8.json").unlink()
    Path("out/candidates/narrow-1.onnx").unlink()
    with pytest.raises(RunError, match=r"narrow-1\.onnx: is gone"):
        shrunk()


def test_two_processes_do_not_work_in_one_folder(work: Work) -> None:
    with RecipeFolder("out"), pytest.raises(RunError, match="another process is at work"):
        shrunk()


def test_a_run_without_validation_images_is_refused(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    real = recipes.same_data

    def without(run: Any) -> Any:
        data = real(run)
        data.val = data.val.select(np.zeros(0, np.int64))
        return data

    monkeypatch.setattr(recipes, "same_data", without)
    with pytest.raises(GossamerError, match="no validation images"):
        shrunk()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere", "no such file or folder"),
        ("classify.onnx", "give the run folder that it was exported from"),
        ("mobilenet_v2", "train it"),
        ("classes", "without settings.yaml"),
        ("untrained", "has no best.safetensors yet"),
    ],
)
def test_what_is_no_trained_run_is_refused(
    work: Work, target: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("untrained").mkdir()
    for name in ("settings.yaml", "classes.json", "data.json", "split.csv"):
        Path("untrained", name).write_bytes((OLD / "runs" / "classify" / name).read_bytes())
    assert main(["shrink", target, "--max-mb", "0.1", "--max-drop", "50", "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error and not Path("out").exists()


def test_an_interrupted_command_is_exit_130(work: Work, capsys: pytest.CaptureFixture[str]) -> None:
    work.fail["train"] = KeyboardInterrupt()
    assert main(["shrink", RUN, "--max-mb", "0.6", "--max-drop", "20", "--minutes", "2", "--out", "out"]) == 130
    error = capsys.readouterr().err
    assert "found so far: out/best.onnx and out/pareto.json" in error and "the same command goes on" in error


def test_without_the_engine_milliseconds_are_of_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    from gossamer.errors import MissingPackageError
    from gossamer.modelfile.metadata import read_model_file

    def missing() -> None:
        raise MissingPackageError("the native engine", "", "this", "build it")

    monkeypatch.setattr(latency.native, "library", missing)
    runtime, why = latency.runtime_here(read_model_file(OLD / "classify.onnx"))
    assert runtime == "onnxruntime" and "not built" in why
