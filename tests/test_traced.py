"""A network recorded to be timed: the engine computes of it what it computes of the file that a run is exported as."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gossamer.compile.fuse import fuse
from gossamer.compile.lower import lower
from gossamer.export import traced
from gossamer.export.convert import to_onnx
from gossamer.export.traced import onnx_to_time, traced_onnx
from gossamer.modelfile.metadata import parse_model_file
from tests.exports import EXPORTED

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


def operations(onnx: bytes) -> list[tuple[object, ...]]:
    """What the engine computes, in order: kind, form, sizes and weights of each operation."""
    program = fuse(lower(parse_model_file(onnx, "the network").graph))
    result: list[tuple[object, ...]] = []
    for one in program.operations:
        source, target = program.values[one.input], program.values[one.out]
        form: tuple[object, ...] = (one.kind, one.kernel, one.stride, one.pads, one.groups, one.dilation)
        if one.kind == "average_pool" and (target.h, target.w) == (1, 1) and one.kernel == (source.h, source.w):
            form = ("global_average", (1, 1), (1, 1), one.pads, one.groups, one.dilation)
        arrays = [(part.weight.tobytes(), part.bias.tobytes()) for part in one.weights if part is not None]
        result.append((*form, one.act, one.acts, source, target, arrays))
    return result


@pytest.mark.parametrize(
    "name",
    [
        "lenet5",
        *(pytest.param(name, marks=pytest.mark.full) for name in ("mobilenet_v2", "shufflenet_v2_x0_5", "resnet18")),
    ],
)
def test_the_engine_computes_the_same_of_both(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    network = EXPORTED[name]
    recorded = operations(traced_onnx(network.model(), network.size, network.channels))
    assert recorded == operations(network.file(tmp_path_factory).read_bytes())


def test_a_form_that_the_engine_refuses_is_exported_as_a_run_is() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.AdaptiveMaxPool2d(1)).eval()
    assert traced_onnx(model, (26, 22)) != to_onnx(model, (26, 22)) == onnx_to_time(model, (26, 22))


def test_what_cannot_be_recorded_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """torch prints the graph at which it failed to standard output, where the JSON of a command belongs."""
    monkeypatch.setattr(traced, "to_onnx", lambda *_: b"the other way")
    log = torch._C._jit_onnx_log  # type: ignore[attr-defined]
    parts = (nn.AdaptiveAvgPool2d(5), nn.AdaptiveMaxPool2d(5), nn.Upsample(size=(7, 7), mode="area"))
    for part in parts:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), part).eval()
        assert traced_onnx(model, (19, 19)) == b"the other way"
    assert capfd.readouterr().out == ""
    assert torch._C._jit_onnx_log is log  # type: ignore[attr-defined]
