"""The export of one trace: where torch would trace a network again to no end, and where it must."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from gossamer.export import convert  # noqa: E402
from gossamer.export.onetrace import one_trace  # noqa: E402


class Network(nn.Module):
    """A convolution, and behind it what a test asks for."""

    def __init__(self, *behind: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), *behind)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Function(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)  # type: ignore[operator, no-any-return]


HEAD = (nn.AdaptiveAvgPool2d(1), nn.Dropout(0.3), nn.Flatten(1), nn.Linear(4, 5))
# name -> what is behind the convolution, and whether one trace is enough
CASES: dict[str, tuple[tuple[nn.Module, ...], bool]] = {
    "a classifier": (HEAD, True),
    "its features": ((nn.AdaptiveAvgPool2d(1),), False),  # the output is the operator that is replaced
    "a dropout at the end": ((nn.Dropout(0.3),), False),
    "an average over parts": ((nn.AdaptiveAvgPool2d(2), *HEAD), False),
    "a norm that stays": ((nn.BatchNorm2d(4), *HEAD), False),
    "a view of parts": ((Function(lambda x: x.unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2)), *HEAD), False),
    "an operator that writes": ((Function(lambda x: x.clone().mul_(2.0)), *HEAD), False),
    "arithmetic of sizes": ((Function(lambda x: x.reshape(x.shape[0] * 2, 2, *x.shape[2:]).sum((1, 2, 3))),), False),
}


@pytest.mark.parametrize("case", CASES)
def test_the_file_computes_what_the_network_does_and_torch_has_its_method_back(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind, enough = CASES[case]
    model = Network(*behind).eval()
    traced: list[ExportedProgram] = []
    method = ExportedProgram.run_decompositions

    def again(self: ExportedProgram, *given: object) -> ExportedProgram:
        traced.append(self)
        return method(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(ExportedProgram, "run_decompositions", again)
    data = convert.to_onnx(model, (9, 11))
    assert ExportedProgram.run_decompositions is again
    assert bool(traced) is not enough
    x = np.random.default_rng(1).normal(size=(3, 3, 9, 11)).astype(np.float32)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {"input": x})
    expected = model(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_where_one_trace_cannot_be_converted_the_network_is_traced_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of a release of torch that nobody has compared yet."""
    monkeypatch.setattr("gossamer.export.onetrace._stays", lambda node, table: True)
    model = Network(nn.BatchNorm2d(4), *HEAD).eval()
    with one_trace() as once, pytest.raises(torch.onnx.OnnxExporterError):
        torch.onnx.export(model, (torch.zeros(2, 3, 9, 11),), dynamo=True, verbose=False)
    assert len(once) == 1
    data = convert.to_onnx(model, (9, 11))
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    x = np.ones((2, 3, 9, 11), np.float32)
    np.testing.assert_allclose(
        session.run(None, {"input": x})[0], model(torch.from_numpy(x)).detach().numpy(), atol=1e-5
    )


def test_what_other_threads_decompose_is_traced_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As is what is asked for in another form than torch's exporter does today."""
    traced: list[object] = []
    monkeypatch.setattr(
        ExportedProgram, "run_decompositions", lambda self, *given, **named: traced.append((given, named))
    )
    program: Any = SimpleNamespace(graph=SimpleNamespace(nodes=[]))
    with one_trace() as once:
        ask: Any = ExportedProgram.run_decompositions
        assert ask(program, {}) is program and once == [program]
        with ThreadPoolExecutor(1) as pool:
            pool.submit(ask, program, {}).result(10)
        ask(program)
        ask(program, decomp_table={})
    assert traced == [(({},), {}), ((), {}), ((), {"decomp_table": {}})] and len(once) == 1
