"""Batch prediction: the rows are those of `predict --json`, what is missing is done and nothing else, bad input is one line."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import gossamer
from gossamer.batch import answering, fill, folder, plan, rows
from gossamer.batch.folder import AnswerFolder
from gossamer.batch.status import batch_status
from gossamer.cli.main import main
from gossamer.errors import DataError, GossamerError, InputError, MissingPackageError, StorageError
from gossamer.predictions.limits import DecodingLimits
from tests import batchcases
from tests.batchcases import in_process, picture, row_files, write_source, write_tar
from tests.trained import TASKS, runs_of_tasks


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return batchcases.model_files(tmp_path_factory)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Path) -> Path:
    """The current folder, with shards/, photos/ and a.onnx."""
    monkeypatch.chdir(write_source(tmp_path / "home"))
    shutil.copy(models / "a.onnx", "a.onnx")
    return Path.cwd()


def test_rows_are_the_answers_of_predict(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With processes of their own: shards and files, what cannot be read has its reason, a second start has nothing to do."""
    assert main(["predict", "a.onnx", "photos", "--top", "2", "--json"]) == 0
    wanted = {one["source"]: one for one in json.loads(capsys.readouterr().out)["predictions"]}
    command = ["predict", "a.onnx", "shards", "photos", "--top", "2", "--out", "answers", "--workers", "2", "--json"]
    assert main(command) == 0
    summary = json.loads(capsys.readouterr().out)
    found = batchcases.rows(Path("answers"))
    assert (summary["images"], summary["unreadable"], summary["damaged"]) == (4 * 9 + 21, 5, [])
    assert (summary["workers"], summary["images_now"], len(found)) == (2, 57, 57)
    for key, one in wanted.items():
        row = found.pop(key)
        assert row["error"] == one["error"]
        assert row["answer"] == (None if one["error"] else one)
    for shard in range(4):
        row = found.pop(f"shards/{shard:03}.tar/bad.jpg")
        assert row["answer"] is None and row["error"].startswith(f"shards/{shard:03}.tar/bad.jpg: damaged")
        model = gossamer.load("a.onnx")
        for index in range(8):
            row = found.pop(f"shards/{shard:03}.tar/{index:04}.png")
            assert row["answer"]["source"] == row["key"] and row["error"] == ""
            same = model.predict(picture(shard * 1000 + index), top=2).to_json()
            assert row["answer"]["classes"] == same["classes"]
            assert row["answer"]["scores"] == pytest.approx(same["scores"], rel=1e-5)
    assert not found
    log = [json.loads(line) for line in Path("answers", "log.jsonl").read_text().splitlines()]
    assert {record["model"] for record in log} == {summary["sha256"]} and all(record["seconds"] >= 0 for record in log)
    assert {record["key"] for record in log} >= {f"shards/{shard:03}.tar" for shard in range(4)}
    before = {path: path.stat().st_mtime_ns for path in Path("answers").rglob("*.jsonl")}
    assert main(command) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["units_now"], again["images_now"], again["images"]) == (0, 0, 57)
    assert {path: path.stat().st_mtime_ns for path in Path("answers").rglob("*.jsonl")} == before
    assert main(["predict", "--status", "answers", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["complete"], status["images"], status["filled_by"]) == (True, 57, None)
    assert main(["predict", "--status", "answers"]) == 0
    assert (
        f"{status['total_units']} of {status['total_units']} units are answered: 57 images" in capsys.readouterr().out
    )
    assert sorted(path.name for path in Path("answers").iterdir()) == [
        ".lock", "batch.json", "log.jsonl", "plan.jsonl", "rows",
    ]  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_the_answers_of_predict(
    task: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    in_process(monkeypatch)
    tasks = runs_of_tasks(tmp_path_factory)
    source = tasks / TASKS[task]
    gossamer.predict_many(tasks / f"{task}.onnx", source, tmp_path / "answers")
    capsys.readouterr()
    assert main(["predict", str(tasks / f"{task}.onnx"), str(source), "--json"]) == 0
    wanted = {one["source"]: one for one in json.loads(capsys.readouterr().out)["predictions"]}
    found = batchcases.rows(tmp_path / "answers")
    assert found.keys() == wanted.keys() and len(found) >= 4
    assert {key: row["answer"] for key, row in found.items()} == wanted


def test_parquet_has_the_same_rows(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    in_process(monkeypatch)
    gossamer.predict_many("a.onnx", ["shards", "photos"], "lines")
    gossamer.predict_many("a.onnx", ["shards", "photos"], "tables", format="parquet")
    table = [
        row for path in sorted(Path("tables/rows").rglob("*.parquet")) for row in parquet.read_table(path).to_pylist()
    ]
    lines = batchcases.rows(Path("lines"))
    assert len(table) == len(lines) == 57
    for row in table:
        answer = None if row["answer"] is None else json.loads(row["answer"])
        assert {**row, "answer": answer} == lines[row["key"]]


def test_without_pyarrow_the_extra_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match=r"gossamer\[batch\]"):
        gossamer.predict_many("a.onnx", "photos", "answers", format="parquet")
    assert not Path("answers").exists()


# a second start


def test_only_what_is_missing_is_answered(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = in_process(monkeypatch)

    def again() -> list[int]:
        answered.clear()
        gossamer.predict_many("a.onnx", ["shards", "photos"], "answers")
        return sorted(answered)

    first = again()
    assert first == list(range(len(first))) and len(first) > 4
    undisturbed = row_files(Path("answers"))
    assert again() == []
    # rows that are gone, and rows that were never committed
    name = json.loads(Path("answers/log.jsonl").read_text().splitlines()[1])["rows"]
    Path("answers", name).unlink()
    stray = Path("answers/rows/000/000999.jsonl")
    stray.write_text('{"key": "stray"}\n')
    assert again() == [1] and not stray.exists() and row_files(Path("answers")) == undisturbed
    # a log whose last line was cut off
    log = Path("answers/log.jsonl").read_bytes().splitlines(keepends=True)
    Path("answers/log.jsonl").write_bytes(b"".join(log[:3]) + log[3][:20])
    assert again() == [3, *range(4, len(first))] and row_files(Path("answers")) == undisturbed
    # new, changed and deleted inputs
    Path("photos/new.png").write_bytes(picture(77))
    assert again() == [len(first)] and "photos/new.png" in batchcases.rows(Path("answers"))
    write_tar(Path("shards/001.tar"), [("other.png", picture(5))])
    assert again() == [1]
    assert {key for key in batchcases.rows(Path("answers")) if key.startswith("shards/001")} == {
        "shards/001.tar/other.png"
    }
    Path("shards/002.tar").unlink()
    assert again() == [] and "shards/002.tar/0000.png" in batchcases.rows(Path("answers"))


def test_another_model_settings_or_sources_are_refused(
    home: Path, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_process(monkeypatch)
    gossamer.predict_many("a.onnx", ["shards", "photos"], "answers")
    before = row_files(Path("answers"))
    cases: list[tuple[list[str], str]] = [
        ([str(models / "b.onnx"), "shards", "photos"], "holds answers of a.onnx with SHA-256"),
        (["a.onnx", "shards", "photos", "--top", "3"], "was begun with top 1, not 3"),
        (["a.onnx", "shards", "photos", "--batch", "7"], "was begun with batch 32, not 7"),
        (["a.onnx", "shards", "photos", "--runtime", "reference"], "was begun with runtime"),
        (["a.onnx", "photos"], "was begun with shards, photos, not photos"),
    ]
    for words, message in cases:
        assert main(["predict", *words, "--out", "answers"]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    shutil.copy(models / "b.onnx", "a.onnx")  # the model changed between two starts
    assert main(["predict", "a.onnx", "shards", "photos", "--out", "answers"]) == 2
    assert "a.onnx has" in capsys.readouterr().err
    assert row_files(Path("answers")) == before


def test_a_folder_that_another_process_fills_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = AnswerFolder("answers")
    other.begin()
    try:
        assert main(["predict", "a.onnx", "photos", "--out", "answers"]) == 2
        assert f"another process ({os.getpid()}) fills it" in capsys.readouterr().err
        other.save_settings({"model": "a.onnx", "sha256": "", "settings": {}, "sources": []})
        status = batch_status("answers")
        assert (status.filled_by, status.complete) == (os.getpid(), False)
    finally:
        other.end()
    assert batch_status("answers").filled_by is None


def test_the_status_of_a_folder_that_is_being_filled_says_speed_and_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what this process has answered: 3 images of 30 bytes in 10 s, of 100 bytes in all, 20 of them answered before."""
    units = [plan.Unit.of(number, plan.FILES, [(f"{number}.png", size, 1)]) for number, size in enumerate((20, 30, 50))]
    out = AnswerFolder(tmp_path / "answers")
    out.begin()
    try:
        out.save_settings({"model": "a.onnx", "sha256": "", "settings": {}, "sources": []})
        out.save_plan(units)
        (begun,) = [out.filler()]
        assert begun is not None and batch_status(out.path).seconds_left is None
        rows = [(1, 20, begun["started"] - 5), (3, 30, begun["started"] + 4)]
        facts = {"unreadable": 0, "repeated": 0, "bytes": 5, "rows": "rows/000/000000.jsonl", "damaged": ""}
        out.commit(
            {
                **facts,
                "images": images,
                "input_bytes": size,
                "at": at,
                "unit": unit.number,
                "fingerprint": unit.fingerprint,
            }
            for unit, (images, size, at) in zip(units, rows)
        )
        monkeypatch.setattr("gossamer.batch.status.time.time", lambda: begun["started"] + 10)
        status = batch_status(out.path)
        assert status.images_per_second == pytest.approx(0.3)
        assert status.seconds_left == pytest.approx(10 * 50 / 30)
    finally:
        out.end()


def test_units_that_have_changed_since_they_were_answered_are_not_answered(tmp_path: Path) -> None:
    """As between the start that finds the change and the end of its work, or of a kill in it."""
    units = [plan.Unit.of(number, plan.FILES, [(f"{number}\udce9.png", 10, 1)]) for number in range(3)]
    changed = plan.Unit.of(0, plan.FILES, [("0\udce9.png", 10, 2)])
    out = AnswerFolder(tmp_path / "answers")
    out.begin()
    out.save_settings({"model": "a.onnx", "sha256": "", "settings": {}, "sources": []})
    facts = {"images": 1, "unreadable": 0, "repeated": 0, "bytes": 5, "rows": "rows/000/000000.jsonl", "damaged": ""}
    out.commit({**facts, "unit": unit.number, "fingerprint": unit.fingerprint} for unit in units)
    out.end()
    for planned, answered in ((units, 3), ([changed, units[1]], 1), ([], 0)):
        out.save_plan(planned)
        status = batch_status(tmp_path / "answers")
        assert (status.units, status.total_units, status.images) == (answered, len(planned), answered)
        assert status.complete is (answered == len(planned) > 0)
    with (tmp_path / "answers" / "plan.jsonl").open("ab") as file:
        file.write(b"[x]\n")
    with pytest.raises(DataError, match="is damaged"):
        batch_status(tmp_path / "answers")


def test_answers_to_images_that_have_changed_go_before_they_are_answered_again(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A start that is killed between its plan and its work, behind which the images go: their old rows are of none of them."""
    write = Path("some").mkdir() or Path("some", "a.png").write_bytes
    write(picture(1))
    assert main(["predict", "a.onnx", "some", "--out", "answers"]) == 0
    write(picture(2) + b"longer")
    out = AnswerFolder("answers")
    (unit,) = out.plan() or ()
    out.save_plan(plan.next_plan([unit], plan.scan([Path("some")]), {0: unit.fingerprint}).units)
    Path("some", "a.png").unlink()
    Path("some", "b.png").write_bytes(picture(3))
    assert main(["predict", "a.onnx", "some", "--out", "answers"]) == 0
    assert "1 new shard or file is added\n1 shard or file that was planned is gone\n" in capsys.readouterr().err
    assert set(batchcases.rows(Path("answers"))) == {"some/b.png"}
    assert batch_status("answers").images == 1 and batch_status("answers").complete


def test_units_are_claimed_once(tmp_path: Path) -> None:
    out = AnswerFolder(tmp_path)
    out.begin()
    unit = plan.Unit.of(3, plan.FILES, [("a\udce9.png", 5, 7)])
    out.hand_out(unit)
    assert folder.claim(tmp_path, 3) == unit and unit.entries() == [("a\udce9.png", 5, 7)]
    with pytest.raises(InputError, match="cannot be claimed"):
        folder.claim(tmp_path, 3)
    out.end()


# bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photos", "photos"], "is the same as the source photos"),
        (["photos/inner", "photos"], "photos/inner: is a part of the source"),
        (["photos", "photos/000.png"], "photos/000.png: is a part of the source"),
        (["empty"], "empty: holds no images and no shards"),
        (["photos", "empty"], "empty: holds no images and no shards"),
        (["nothing"], "nothing: No such file or directory"),
        (["packed"], "packed/a.tar.gz: is compressed"),
        (["photos", "--format", "csv"], "no format is called 'csv'"),
        (["photos", "--runtime", "tflite"], "no runtime is called 'tflite'"),
        (["photos", "--threshold", "0.5"], "threshold for a model of kind classify"),
        (["photos", "--draw", "drawn"], "--out with --draw"),
        (["shards-{000..002}.tar"], "shards-000.tar"),
    ],
)
def test_bad_input_is_one_line(words: list[str], message: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    Path("packed").mkdir()
    Path("packed/a.tar.gz").write_bytes(b"\x1f\x8b")
    assert main(["predict", "a.onnx", *words, "--out", "answers"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "defect" not in error
    assert not Path("answers").exists()


def test_bad_folders_are_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["a.onnx", "photos", "--out", "photos"], "photos: holds 000.png and no batch.json"),
        (["a.onnx", "photos", "--out", "a.onnx"], "a.onnx: is a file"),
        (["a.onnx", "photos", "--workers", "2"], "--workers without --out"),
        (["a.onnx", "photos", "--format", "jsonl"], "--format without --out"),
        (["--status", "photos"], "photos: holds no batch.json"),
        (["--status", "nothing"], "nothing: no such folder"),
        (["a.onnx", "--status", "photos"], "--status FOLDER alone"),
        (["photos/000.png", "photos", "--out", "answers"], "an image"),
    ):
        assert main(["predict", *words]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    Path("to_nothing").symlink_to("gone")
    Path("linked").mkdir()
    Path("linked/batch.json").symlink_to("gone")
    for words, message in (
        (["a.onnx", "photos", "--out", "to_nothing"], "to_nothing: is a link to nothing"),
        (["a.onnx", "photos", "--out", "linked"], "linked/batch.json: is a link to nothing"),
        (["--status", "linked"], "linked/batch.json: is a link to nothing"),
        (["--status", "a.onnx"], "a.onnx: is no folder"),
        (["--status", "a\0b"], "a\\x00b"),
    ):
        assert main(["predict", *words]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    for name, text in (("batch.json", "{"), ("plan.jsonl", '{"units": 2, "bytes": 0}\n'), ("plan.jsonl", "[]\n")):
        out = Path(f"damaged-{name}")
        out.mkdir(exist_ok=True)
        good = {"format": 1, "model": "a", "sha256": gossamer.load("a.onnx").sha256, "sources": ["photos"]}
        asked = {"top": 1, "batch": 32, "threshold": None, "iou": None, "max_boxes": None, "format": "jsonl"}
        network = fill.open_network("a.onnx", "auto", DecodingLimits(), 1)
        (out / "batch.json").write_text(json.dumps({**good, "settings": {**asked, "runtime": network.runtime}}))
        (out / name).write_text(text)
        assert main(["predict", "a.onnx", "photos", "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert f"{out}/{name}" in error and "list indices" not in error


def test_a_folder_that_cannot_be_read_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("inner"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(plan.os, "scandir", refuse)
    with pytest.raises(DataError, match="photos/inner: Permission denied"):
        plan.scan([Path("photos")])


def test_shards_that_are_cut_off_or_repeat_names(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Complete images are answered, the rest is told; so is a name that comes twice, and what is no tar."""
    in_process(monkeypatch)
    content = Path("shards/000.tar").read_bytes()
    Path("odd").mkdir()
    Path("odd/cut.tar").write_bytes(content[: content.index(b"0005.png") + 600])
    Path("odd/text.tar").write_text("no tar at all" * 100)
    Path("odd/empty.tar").write_bytes(b"")
    write_tar(
        Path("odd/twice.tar"),
        [("a.png", picture(1)), ("./a.png", picture(2)), ("._a.png", b"x"), ("b/a.png", picture(3)), ("a.webp", b"")],
    )
    result = gossamer.predict_many("a.onnx", "odd", "answers")
    found = batchcases.rows(Path("answers"))
    assert {key for key in found if "cut" in key} == {
        "odd/cut.tar",
        *(f"odd/cut.tar/{index:04}.png" for index in range(5)),
    }
    assert "is cut off: 5 files are complete" in found["odd/cut.tar"]["error"]
    assert "is not a tar file" in found["odd/text.tar"]["error"]
    assert {key for key in found if "twice" in key} == {
        f"odd/twice.tar/{name}" for name in ("a.png", "b/a.png", "a.webp")
    }
    assert "is empty" in found["odd/twice.tar/a.webp"]["error"]
    assert (result.images, result.unreadable, result.repeated, len(result.damaged)) == (8, 1, 1, 2)
    assert result.exit_code == 2 and "damaged: odd/cut.tar" in result.text()


def test_names_that_are_no_text_have_rows(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_process(monkeypatch)
    Path("names").mkdir()
    try:
        Path(os.fsdecode(b"names/\xe9.png")).write_bytes(picture(1))
    except OSError:
        pytest.skip("a file system whose names are all UTF-8")
    Path("names/\u00fc\n.png").write_bytes(picture(2))
    gossamer.predict_many("a.onnx", "names", "answers")
    assert batchcases.rows(Path("answers")).keys() == {os.fsdecode(b"names/\xe9.png"), "names/\u00fc\n.png"}


def test_another_runtime_takes_a_file_that_the_engine_refuses(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found before a worker starts, as `load` finds it."""
    from gossamer.errors import ModelFileError
    from gossamer.runtime import native

    def refuse(self: native.Native, path: Path, threads: int = 0) -> None:
        raise ModelFileError(2, f"{path}: a version that this engine does not support", "another", "compile it again")

    in_process(monkeypatch)
    monkeypatch.setattr(native.Native, "__init__", refuse)
    monkeypatch.setattr(native.Native, "__del__", lambda self: None)
    assert gossamer.predict_many("a.onnx", "photos", "answers").runtime != "native"


# disks and memory


@pytest.mark.parametrize("place", ["rows", "log"])
def test_a_full_disk_is_one_line_and_resumes(place: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = in_process(monkeypatch)
    gossamer.predict_many("a.onnx", ["shards", "photos"], "undisturbed")
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as disk:
        if place == "rows":
            write = rows.JsonRows.write

            def refuse(self: rows.JsonRows, more: Any) -> None:
                if len(answered) > 8:
                    raise full
                write(self, more)

            disk.setattr(rows.JsonRows, "write", refuse)
        else:
            sync, calls = os.fsync, [0]

            def refuse_sync(handle: int) -> None:
                calls[0] += 1
                if calls[0] > 15:
                    raise full
                sync(handle)

            disk.setattr(os, "fsync", refuse_sync)
        answered.clear()
        answered += [-1] * 6
        with pytest.raises(StorageError, match="the disk is full"):
            gossamer.predict_many("a.onnx", ["shards", "photos"], "answers")
    assert not list(Path("answers").rglob("*.part"))
    assert 0 < batch_status("answers").units < batch_status("undisturbed").units
    gossamer.predict_many("a.onnx", ["shards", "photos"], "answers")
    assert row_files(Path("answers")) == row_files(Path("undisturbed"))


def test_decoded_images_that_wait_are_bounded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: a network that waits sees at most two batches decoded before it."""
    ahead: list[int] = []
    decoded = [0]
    decode, run = answering.Answering._decode, answering.Answering._run

    def counted(self: answering.Answering, image: Any) -> Any:
        decoded[0] += 1
        return decode(self, image)

    def watched(self: answering.Answering, work: Any) -> None:
        time.sleep(0.02)
        ahead.append(decoded[0])
        decoded[0] -= len(work.part)
        run(self, work)

    monkeypatch.setattr(answering.Answering, "_decode", counted)
    monkeypatch.setattr(answering.Answering, "_run", watched)
    in_process(monkeypatch)
    gossamer.predict_many("a.onnx", ["shards", "photos"], "answers", batch=4)
    assert len(ahead) > 10 and max(ahead) <= 4 + 2 * 4


def test_a_worker_that_is_killed_again_and_again_stops_the_whole(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gossamer.batch import losses, workers

    monkeypatch.setattr(workers, "COMMAND", ["/bin/sh", "-c", "kill -9 $$"])
    monkeypatch.setattr(losses, "MOST_KILLS", 3)
    with pytest.raises(GossamerError, match=r"3 workers were lost with no unit .* the last one was ended by SIGKILL"):
        gossamer.predict_many("a.onnx", "shards", "answers", workers=1)


@pytest.mark.full
def test_a_hundred_thousand_shards_are_planned_within_ten_seconds(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / "shards" / f"{number:03}").mkdir(parents=True)
        for index in range(1000):
            (tmp_path / "shards" / f"{number:03}" / f"{index:03}.tar").touch()
    started = time.process_time()  # of this process: a busy machine must not fail the test
    units = plan.first_plan(plan.scan([tmp_path / "shards"]))
    out = AnswerFolder(tmp_path / "answers")
    out.begin()
    out.save_plan(units)
    first = time.process_time() - started
    started = time.process_time()
    found = plan.scan([tmp_path / "shards"])
    saved = out.plan()
    out.end()
    assert saved == units and len(units) == 100_000
    assert plan.next_plan(saved, found, {}).changed is False
    assert first < 10 and time.process_time() - started < 10
