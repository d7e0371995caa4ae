"""The commands around boxes, masks and embeddings, each run as from a shell on images made here."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gossamer.cli.main import main
from gossamer.data.boxes.open import read_boxes
from gossamer.data.boxes.table import KINDS
from gossamer.data.check.dataset import check_dataset
from gossamer.data.check.images import check_images
from gossamer.data.open import open_data
from gossamer.microscope.compare import Candidate, NetworkComparison, _marked
from gossamer.run import Run
from gossamer.settings import Settings, to_dict
from gossamer.training.rerun import OWN, settings_with_net
from tests.conftest import write_boxes, write_image_folder, write_masks
from tests.trained import TASKS, runs_of_tasks

SCORES = {"detect": "map50", "segment": "miou", "embed": "recall1"}


def ran(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What a command prints; it must succeed."""
    capsys.readouterr()
    code = main([str(one) for one in arguments])
    out, error = capsys.readouterr()
    assert code == 0, error
    return out


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of three tasks, a run and a model file of each; not to be changed."""
    return Path(shutil.copytree(runs_of_tasks(tmp_path_factory), tmp_path_factory.mktemp("home"), dirs_exist_ok=True))


def test_an_index_finds_its_own_images_with_the_model_beside_it(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "people.index").unlink(missing_ok=True)
    summary = json.loads(
        ran(capsys, "index", home / "embed.onnx", home / "people" / "val", "--out", home / "people.index", "--json")
    )
    assert (summary["images"], summary["identities"], summary["unreadable"]) == (8, 2, [])
    query = home / "people" / "val" / "class1" / "002.png"
    beside = json.loads(ran(capsys, "search", home / "people.index", query, "--top", "3", "--json"))
    assert Path(beside["model"]).name == "embed.onnx"
    (result,) = beside["queries"]
    assert len(result["matches"]) == 3
    assert (result["matches"][0]["name"], result["matches"][0]["label"]) == ("class1/002.png", "class1")
    assert result["matches"][0]["similarity"] == pytest.approx(1, abs=1e-5)
    named = ran(capsys, "search", home / "people.index", query, "--model", home / "embed.onnx", "--backend", "numpy")
    assert named.splitlines()[0] == f"{query}:"
    assert named.splitlines()[1].split() == ["1.0000", "class1/002.png"]
    assert len(named.splitlines()) == 6


def test_a_search_with_nothing_that_can_be_read_fails(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.index"
    assert main(["index", str(home / "embed.onnx"), str(home / "people" / "val"), "--out", str(out)]) == 0
    (tmp_path / "no.png").write_bytes(b"no image")
    assert main(["search", str(out), str(tmp_path / "no.png"), "--model", str(home / "embed.onnx")]) == 2


@pytest.mark.full
def test_a_swap_trains_another_network_on_the_same_images(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "swapped"
    summary = json.loads(ran(capsys, "swap", home / "detect", "--net", "shufflenet_v2_x0_5", "--out", out, "--json"))
    old, new = Run.open(home / "detect"), Run.open(out)
    assert summary["dropped"] == {"width": 0.25}
    assert (new.classes, new.split(), new.data["fingerprint"]) == (old.classes, old.split(), old.data["fingerprint"])
    same, other = to_dict(old.settings), to_dict(new.settings)
    assert {name for name in same if same[name] != other[name]} == {"net", "width", "out"}
    assert len(new.metrics()) == 1
    table = ran(capsys, "compare", home / "detect", out)
    assert "mAP@0.5" in table.splitlines()[0] and "shufflenet" not in table
    assert f"mAP@0.5 of {out}: its run, epoch 1, val" in table
    assert all(re.search(r"% +\d+\.\d+ +\d+\.\d+-", line) for line in table.splitlines()[1:3]), table  # milliseconds
    assert ran(capsys, "compare", "lenet5", "squeezenet1_1").splitlines()[1].split()[3:5] == ["-", "-"]


def test_a_swap_keeps_what_every_network_knows() -> None:
    old = Settings(
        data="d", net="mobilenet_v2", width=0.5, net_options="a=1", weights="default", norm_eps=1e-3, freeze="backbone",
        act="silu", lr=0.3, anchor_sizes=(8, 9), out="old",
    )  # fmt: skip
    settings, dropped = settings_with_net(old, "resnet18", "new")
    assert set(dropped) == set(OWN)
    assert settings == Settings(data="d", net="resnet18", act="silu", lr=0.3, anchor_sizes=(8, 9), out="new")
    settings, dropped = settings_with_net(old, "resnet18", "new", "default")
    assert (settings.weights, settings.freeze, "freeze" in dropped) == ("default", "backbone", False)


def test_runs_and_files_of_all_tasks_are_compared_without_ranking_them(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = [home / task for task in TASKS] + [home / f"{task}.onnx" for task in TASKS]
    comparison = json.loads(ran(capsys, "compare", *targets, "--no-measure", "--json"))
    assert comparison["metrics"] == list(SCORES.values())
    for task, run, file in zip(TASKS, comparison["candidates"][:3], comparison["candidates"][3:], strict=True):
        assert run["metric"] == file["metric"] == SCORES[task]
        assert run["score"] == Run.open(home / task).metrics()[0][f"val_{SCORES[task]}"]
        # of a network that has hardly learnt, a pixel may have two equally good classes: one of thousands
        assert file["score"] == pytest.approx(run["score"], abs=1e-4 if task == "segment" else 1e-6)
        assert run["front"] is file["front"] is None
        again = json.loads(ran(capsys, "compare", home / task, home / f"{task}.onnx", "--no-measure", "--json"))
        assert any(one["front"] is True for one in again["candidates"]), "a run and its file are of the same data"
    text = ran(capsys, "compare", *targets[:2], "--no-measure")
    assert "the scores differ (mAP@0.5, mIoU)" in text and "* nothing here" not in text


def test_other_metrics_have_a_front_and_a_name() -> None:
    rows = [
        Candidate(name, (1, 3, 8, 8), score, "its run", ms, ms, ms, "", 1, 1, 4, 4, "miou")
        for name, score, ms in (("a", 0.5, 1.0), ("b", 0.4, 2.0))
    ]
    lines = NetworkComparison(tuple(_marked(rows, "ms")), "ms").text().splitlines()
    assert lines[0].split()[:3] == ["network", "input", "mIoU"]
    assert lines[1].split()[:5] == ["a", "*", "3x8x8", "50.00", "%"]
    assert "* nothing here has as much mIoU at less latency" in lines


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=pytest.mark.full) for task in ("detect", "segment", "embed")]
)
def test_runs_of_every_task_are_inspected_and_measured(
    task: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    assert json.loads(ran(capsys, "inspect", home / task, "--json"))["macs"] > 0
    command = ["bench", home / task, home / f"{task}.onnx", "--runtimes", "onnxruntime", "--json"]
    rows = json.loads(ran(capsys, *command))["rows"]
    assert len(rows) == 2 and all(row["median_ms"] > 0 for row in rows)


@pytest.mark.parametrize("task", TASKS)
def test_compiling_tells_of_classes_where_there_are_some(
    task: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gossamer.runtime import native

    if not native.LIBRARY.is_file():
        pytest.skip("the engine is not built")
    out = tmp_path / "network.goss"
    assert "same class" not in ran(capsys, "compile", home / f"{task}.onnx", "--out", out)
    checks = json.loads(ran(capsys, "compile", home / f"{task}.onnx", "--out", out, "--json"))["checks"]
    assert checks["same_class"] is None and checks["largest"] < 1e-3


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
def test_boxes_are_converted(to: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["convert-boxes", home / "signs", tmp_path / "out", "--to", to, "--json"]
    summary: dict[str, Any] = json.loads(ran(capsys, *command))
    assert (summary["images"], summary["boxes"], summary["source"], summary["to"]) == (8, 8, "voc", to)
    table = read_boxes(tmp_path / "out")
    assert table.kind == KINDS[to]
    before = read_boxes(home / "signs").targets
    np.testing.assert_allclose(np.sort(table.targets.corners, 0), np.sort(before.corners, 0), atol=1e-3)


def test_doctor_counts_boxes_and_finds_sizes_that_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_boxes(tmp_path / "signs", each=4)
    Image.new("RGB", (80, 70)).save(root / "JPEGImages" / "train001.png")
    (root / "JPEGImages" / "val000.png").write_bytes(b"no image")
    check = json.loads(ran(capsys, "doctor", "--data", root, "--task", "detect", "--json"))
    annotations = check["annotations"]
    assert annotations["counts"]["train"] == {"cone": 2, "sign": 2}
    assert annotations["facts"]["train"]["images without boxes"] == 0
    assert annotations["facts"]["val"]["median width (px)"] == 21
    assert any(
        "another size" in note and "train001.png (64 x 64, the image 80 x 70)" in note for note in annotations["notes"]
    )
    assert check["splits"]["train"]["classes"] == {"images": 4}


def test_doctor_counts_pixels_and_names_masks_that_cannot_be_read(tmp_path: Path) -> None:
    root = write_masks(tmp_path / "street", each=4, size=32)
    for split in ("train", "val"):
        for path in (root / split / "masks").iterdir():
            Image.fromarray(np.zeros((32, 32), np.uint8)).save(path)
    half = np.repeat(np.array([255, 1], np.uint8), 512).reshape(32, 32)
    Image.fromarray(half).save(root / "train" / "masks" / "000.png")
    Image.fromarray(half[:16]).save(root / "train" / "masks" / "001.png")
    check = check_dataset(str(root), "segment")
    assert check.annotations
    assert check.annotations.counts == {"train": {"ground": 2048, "square": 512}, "val": {"ground": 4096, "square": 0}}
    assert check.annotations.facts["train"] == {"images": 4, "ignored pixels": 512, "masks read": 3}
    ((name, reason),) = check.annotations.unreadable
    assert name == "train/images/001.png" and "has 32 x 16 pixels" in reason
    assert "cannot be read: train/images/001.png" in check.text()
    assert check.images.advice[0].startswith("No pixels in val: square.")


def test_identities_need_not_be_in_every_split_but_need_a_second_image(tmp_path: Path) -> None:
    root = write_image_folder(tmp_path / "people", classes=2, each=4)
    write_image_folder(root / "more", classes=1, each=1, splits=("train",))
    (root / "more" / "train" / "class0").rename(root / "val" / "someone")
    (root / "more" / "train").rmdir()
    (root / "more").rmdir()
    advice = check_dataset(str(root), "embed").images.advice
    assert any(line.startswith("Class someone: one image in val") for line in advice)
    assert not any("cannot be learnt" in line or "Collect more" in line for line in advice)
    assert not check_images(open_data(write_image_folder(tmp_path / "two", classes=2, each=2)), identities=True).leaks()


def test_eval_says_what_its_data_leave_out(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_boxes(tmp_path / "signs", each=3, splits=("val",))
    Image.new("RGB", (64, 64)).save(root / "JPEGImages" / "extra.png")
    assert main(["eval", str(home / "detect"), str(root), "--json"]) == 0
    out, err = capsys.readouterr()
    line = f"{root}: 1 of 4 images are left out: JPEGImages/extra.png"
    assert line in err and line in json.loads(out)["notes"]
    assert main(["eval", str(home / "detect.onnx"), str(root)]) == 0
    assert line in capsys.readouterr().err
