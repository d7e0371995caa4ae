"""The cost of hard gates closes them: without it they stay open, with a high one little is computed."""

from __future__ import annotations

import pytest
import torch

from gossamer.blocks.gates import counted, gate_cost, gates_of
from gossamer.networks import create_model

pytestmark = pytest.mark.full


@pytest.mark.parametrize(
    ("net", "gating"), [("resnet18", "channels"), ("resnet18", "positions"), ("mobilenet_v2", "channels")]
)
def test_a_high_cost_closes_gates(net: str, gating: str) -> None:
    torch.manual_seed(0)
    model = create_model(
        net, width=0.25 if net == "mobilenet_v2" else 0.125, num_classes=3, small_input=True, gating=gating
    )
    x = torch.randn(2, 3, 8, 8)

    def computed() -> float:
        with counted(model.eval()) as tally, torch.no_grad():
            model(x)
        return tally.fraction

    before = computed()
    gates = [parameter for gate in gates_of(model) for parameter in gate.parameters()]
    optimizer = torch.optim.Adam(gates, 0.5)
    for _ in range(10):
        model.train()(x)
        extra = gate_cost(model, 0.0)
        assert extra is not None
        optimizer.zero_grad()
        extra.backward()
        optimizer.step()
    assert before > 0.9  # a fresh gate is open
    assert computed() < 0.6
