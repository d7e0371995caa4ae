"""Decomposition of every task: detector, segmenter, embedder and several heads are decomposed, exported and verified."""

from __future__ import annotations

from pathlib import Path

import pytest

import gossamer
from gossamer.export.formats import export
from gossamer.runtime import native
from gossamer.shrink.pairs import Clock
from gossamer.training.loop import train
from tests.test_decompose import by_macs
from tests.test_prune_tasks import settings

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.full


@pytest.mark.parametrize("task", ["detect", "segment", "embed", "multi"])
def test_a_run_of_every_task_is_decomposed(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Clock, "_measured", by_macs)
    # half the layers of the network that is pruned, each to be decomposed by three methods: no method looks beyond its layer
    parent = train(settings(task, tmp_path).replace(net="mobilenet_v1", width=0.25)).path
    result = gossamer.decompose(
        parent, tmp_path / "small", energy=0.3, max_drop=100, minutes=0.02, methods=["svd", "tucker", "spatial"]
    )
    assert result.accepted and result.macs[1] < result.macs[0] and result.score in result.scores
    export(tmp_path / "small", tmp_path / "small.onnx")
    gossamer.verify(tmp_path / "small.onnx").raise_if_failed()
    if native.LIBRARY.is_file():
        from gossamer.compile.write import compile_file

        gossamer.verify(compile_file(tmp_path / "small.onnx", tmp_path / "small.goss")).raise_if_failed()
