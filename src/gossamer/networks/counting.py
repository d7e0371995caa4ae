"""Parameters and MACs of a network, counted on shapes alone: where the numbers of `costs.py` come from."""

from __future__ import annotations

import torch

from gossamer.analysis.cost import cost
from gossamer.networks.create import create_model
from gossamer.networks.registry import traits


def count_network(name: str) -> tuple[int, int]:
    """(parameters, MACs of one image) at the network's own input size, with 1000 classes. Raises UnknownNameError."""
    shape = traits(name).input
    with torch.device("meta"):
        model = create_model(name, in_chans=shape[0])
    return sum(parameter.numel() for parameter in model.parameters()), cost(model, (1, *shape)).macs
