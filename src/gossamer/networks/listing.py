"""What networks and weights there are, and what each network costs at its usual input."""

from __future__ import annotations

from typing import Any

from gossamer.errors import SettingsError, UnknownNameError
from gossamer.networks.costs import COSTS
from gossamer.networks.pretrained import TIMM, WEIGHTS
from gossamer.networks.registry import ALIASES, list_models, traits


def network_names(pattern: str = "*") -> list[str]:
    """The networks that match the shell-style `pattern`, or "timm:PATTERN" for those of timm.

    Raises UnknownNameError for none, MissingPackageError where timm is needed and not installed.
    """
    matching = list_models(pattern)
    if not matching:
        raise UnknownNameError("network", pattern, list_models())
    return matching


def network_rows(
    pattern: str = "*", *, max_params: int | None = None, max_macs: int | None = None
) -> list[dict[str, Any]]:
    """The matching networks of at most `max_params` parameters and `max_macs` MACs: by name, with a limit by their MACs.

    Each row: name, aliases (other names in use), params, macs (one image), input ("CxHxW", the network's own); with 1000
    classes. Of those of timm, all but the name are unknown: [] and None. Raises UnknownNameError, SettingsError for limits
    on networks of timm.
    """
    matching = network_names(pattern)
    if pattern.startswith(TIMM):
        if max_params is not None or max_macs is not None:
            raise SettingsError(f"limits for {pattern}", "limits for our own networks", "leave out timm: or the limits")
        return [{"name": name, "aliases": [], "params": None, "macs": None, "input": None} for name in matching]
    rows = []
    for name in matching:
        params, macs = COSTS[name]
        if (max_params is None or params <= max_params) and (max_macs is None or macs <= max_macs):
            aliases = sorted(alias for alias, own in ALIASES.items() if own == name)
            shape = "x".join(map(str, traits(name).input))
            rows.append({"name": name, "aliases": aliases, "params": params, "macs": macs, "input": shape})
    if max_params is None and max_macs is None:
        return rows
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
