"""What networks and weights there are, and what each network costs at its usual input."""

from __future__ import annotations

from typing import Any

from gossamer.errors import SettingsError, UnknownNameError
from gossamer.host.progress import SILENT, Progress
from gossamer.networks.pretrained import WEIGHTS
from gossamer.networks.registry import list_models, traits


def network_names(pattern: str = "*") -> list[str]:
    """The networks that match the shell-style `pattern`, or "timm:PATTERN" for those of timm.

    Raises UnknownNameError for none, MissingPackageError where timm is needed and not installed.
    """
    matching = list_models(pattern)
    if not matching:
        raise UnknownNameError("network", pattern, list_models())
    return matching


def network_costs(
    pattern: str = "*",
    *,
    max_params: int | None = None,
    max_macs: int | None = None,
    progress: Progress = SILENT,
) -> list[dict[str, Any]]:
    """The matching networks of at most `max_params` parameters and `max_macs` MACs, by their MACs.

    Each row: name, params, macs (one image), input ("CxHxW", the network's own). Counted on shapes alone, with 1000
    classes. Raises UnknownNameError, SettingsError for networks of timm, some of whose operations have no cost formula.
    """
    matching = network_names(pattern)
    if not all(traits(name).traceable for name in matching):
        raise SettingsError(f"limits for {pattern}", "limits for our own networks", "leave out timm: or the limits")
    import torch

    from gossamer.analysis.cost import cost
    from gossamer.networks import create_model

    rows = []
    for name in progress.track(matching, len(matching), "counting"):
        shape = traits(name).input
        with torch.device("meta"):
            model = create_model(name, in_chans=shape[0])
        params = sum(parameter.numel() for parameter in model.parameters())
        if max_params is not None and params > max_params:
            continue
        macs = cost(model, (1, *shape)).macs
        if max_macs is None or macs <= max_macs:
            rows.append({"name": name, "params": params, "macs": macs, "input": "x".join(map(str, shape))})
    return sorted(rows, key=lambda row: (row["macs"], row["name"]))


def weight_rows(pattern: str = "*") -> list[dict[str, Any]]:
    """The weight sets of the matching networks, the default of each first; see `WeightSet`.

    Each row has its fields, with `network`, `default`, and `preprocessing` as one line of text.
    Raises UnknownNameError where no network matches, or none that does has listed weights.
    """
    from gossamer.networks.load import weight_sets

    rows = []
    for name in network_names(pattern):
        for index, each in enumerate(weight_sets(name)):
            mean = "/".join(f"{value:g}" for value in dict.fromkeys(each.mean))
            preprocessing = f"{each.input} {each.crop_pct:.3g} {each.interpolation} {mean}"
            rows.append({"network": name, "default": index == 0, **each._asdict(), "preprocessing": preprocessing})
    if not rows:
        raise UnknownNameError("network with listed weights", pattern, WEIGHTS)
    return rows
