"""Pruning of every task: detector, segmenter, embedder and several heads are pruned, trained on, exported and verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gossamer
from gossamer.errors import InputError
from gossamer.export.formats import export
from gossamer.runtime import native
from gossamer.settings import Settings
from gossamer.training.loop import train
from tests.conftest import write_boxes, write_image_folder, write_masks
from tests.shop import EVERY, write_shop

pytest.importorskip("scipy")
pytest.importorskip("onnx")
pytestmark = pytest.mark.full

QUICK = {
    "net": "mobilenet_v2", "width": 0.5, "input": "64", "epochs": 1, "batch": 4, "threads": 1, "workers": 0,
    "precision": "float32", "memory_format": "channels_last",
}  # fmt: skip


def settings(task: str, root: Path) -> Settings:
    values: dict[str, Any] = {**QUICK, "out": str(root / "run"), "data": str(root / "data"), "task": task}
    if task == "detect":
        write_boxes(root / "data")
    elif task == "segment":
        write_masks(root / "data")
    elif task == "embed":
        write_image_folder(root / "data", each=8)
        values["batch"] = 12
    else:
        write_shop(root / "data")
        values |= {"heads": EVERY, "input": "32", "batch": 8}
    return Settings(**values)


@pytest.mark.parametrize("task", ["detect", "segment", "embed", "multi"])
def test_a_run_of_every_task_is_pruned(task: str, tmp_path: Path) -> None:
    parent = train(settings(task, tmp_path)).path
    result = gossamer.prune(parent, tmp_path / "narrow", macs=0.5, size=0.7, minutes=0.02)
    assert result.macs[1] <= 0.5 * result.macs[0]
    assert result.bytes[1] <= 0.7 * result.bytes[0]
    assert result.score in result.scores
    export(tmp_path / "narrow", tmp_path / "narrow.onnx")
    gossamer.verify(tmp_path / "narrow.onnx").raise_if_failed()
    if native.LIBRARY.is_file():
        from gossamer.compile.write import compile_file

        gossamer.verify(compile_file(tmp_path / "narrow.onnx", tmp_path / "narrow.goss")).raise_if_failed()


@pytest.mark.parametrize("net", ["shufflenet_v1_g1_x1_0", "shufflenet_v2_x0_5"])
def test_both_shufflenets_are_pruned_to_a_limit(net: str, tmp_path: Path) -> None:
    write_image_folder(tmp_path / "data", each=8)
    values = {**QUICK, "net": net, "width": 1.0, "out": str(tmp_path / "run"), "data": str(tmp_path / "data")}
    parent = train(Settings(**values)).path  # type: ignore[arg-type]
    result = gossamer.prune(parent, tmp_path / "narrow", macs=0.6, minutes=0.02)
    assert result.macs[1] <= 0.6 * result.macs[0]
    export(tmp_path / "narrow", tmp_path / "narrow.onnx")
    gossamer.verify(tmp_path / "narrow.onnx").raise_if_failed()


def test_a_network_whose_channels_are_all_in_groups_is_refused(tmp_path: Path) -> None:
    """Grouped layers with a shuffle between them: to remove a channel of one group would misplace those of the others."""
    write_image_folder(tmp_path / "data", each=8)
    values = {**QUICK, "net": "shufflenet_v1_g3_x0_5", "width": 1.0, "input": "32"}
    parent = train(Settings(**values, out=str(tmp_path / "run"), data=str(tmp_path / "data"))).path  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no channels that can be removed"):
        gossamer.prune(parent, tmp_path / "narrow", macs=0.6, minutes=0.02)
    assert not (tmp_path / "narrow").exists()
