"""Edits of a network after it was built: what a run's `changes.json` lists, applied again in the same order.

A run's network is described by its settings and its classes. Where it was changed after that (channels removed, an
activation replaced), the settings no longer give the shapes of its weights. Replaying the edits on a network built
from the same settings does, so that a saved state loads strictly. Replay by module name: the idea is Torch-Pruning's
(Fang et al. 2023, arXiv 2301.12900), which records its history so.

`changes.json` is an object: `format` (1) and `changes`, a list of edits, each an object of three entries:

    operation    a name in OPERATIONS
    layer        the module's name, as in `named_modules()`
    figures      an object with the operation's own values:
        keep_channels     axis: 0 (output channels) or 1 (input channels); kept: their indices before this edit,
                          ascending. A norm or a PReLU has axis 0 only. A depthwise convolution has one kind of
                          channels: either axis keeps both. A grouped convolution keeps as many in each group.
        set_activation    act: a name in `blocks.activation.ACTIVATIONS`
        decompose_layer   method: a name in `networks.factors.METHODS`; ranks: the channels between its layers. The layer
                          becomes an `nn.Sequential` of them: `layer.0`, `layer.1`, ...
        drop_block        none; the layer is a residual block whose shortcut is the identity. What is left of it is the
                          shortcut, and the activation that follows the addition where it has one.

An edit changes one layer only. Layers that share channels (a convolution, its norm, all that reads them) have one
edit each; `training.network.build_network` checks that the network runs after the last.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from gossamer.blocks.activation import ACTIVATIONS, activation
from gossamer.errors import SettingsError, UnknownNameError
from gossamer.networks.factors import METHODS, decomposed, full_ranks, methods_of, ranks_fit, skeleton, why_not

FORMAT = 1
MAX_CHANGES = 100_000
MAX_BYTES = 64 << 20
MAX_CHANNELS = 1 << 20
MAX_NAME = 1000  # characters of a layer's name
MAX_RANKS = 2
FIX = "restore the file from a copy"


@dataclass(frozen=True)
class Change:
    """One edit: `operation` on the module named `layer` with the values `figures`."""

    operation: str
    layer: str
    figures: dict[str, Any]


def keep_channels(layer: str, axis: int, kept: Iterable[int]) -> Change:
    """Keep the channels `kept` (ascending indices) of a layer: axis 0 are its output channels, 1 its input channels."""
    return Change("keep_channels", layer, {"axis": axis, "kept": [int(index) for index in kept]})


def set_activation(layer: str, act: str) -> Change:
    """Replace the module `layer` by the activation `act`."""
    return Change("set_activation", layer, {"act": act})


def decompose_layer(layer: str, method: str, ranks: Iterable[int]) -> Change:
    """Replace a layer by the smaller ones of a decomposition; see `networks.factors`."""
    return Change("decompose_layer", layer, {"method": method, "ranks": [int(rank) for rank in ranks]})


def drop_block(layer: str) -> Change:
    """Leave of a residual block its identity shortcut alone, and the activation of the sum where it has one."""
    return Change("drop_block", layer, {})


def changes_to_json(changes: Sequence[Change]) -> str:
    """The text of a `changes.json`."""
    return json.dumps({"format": FORMAT, "changes": [asdict(change) for change in changes]}, ensure_ascii=False)


def parse_changes(text: str, source: str = "changes.json") -> tuple[Change, ...]:
    """The edits of a `changes.json`; their layers are looked up when they are applied.

    source: what an error names. Raises SettingsError, UnknownNameError.
    """
    if len(text) > MAX_BYTES:
        raise SettingsError(f"{source}: {len(text)} characters", f"{MAX_BYTES} at most", FIX)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{source}: not JSON: {error}", "a JSON object", FIX) from error
    if not isinstance(value, dict) or set(value) != {"format", "changes"}:
        raise SettingsError(f"{source}: not an object of format and changes", "these two entries", FIX)
    if type(value["format"]) is not int or value["format"] != FORMAT:
        raise SettingsError(f"{source}: format {str(value['format'])[:40]}", str(FORMAT), "use a newer gossamer")
    entries = value["changes"]
    if not isinstance(entries, list) or len(entries) > MAX_CHANGES:
        raise SettingsError(f"{source}: changes is no list, or too long", f"a list of at most {MAX_CHANGES} edits", FIX)
    return tuple(_parsed(entry, f"{source}, edit {number}") for number, entry in enumerate(entries, 1))


def _parsed(entry: Any, place: str) -> Change:
    """One edit, with its figures checked. Raises SettingsError, UnknownNameError."""
    if not isinstance(entry, dict) or set(entry) != {"operation", "layer", "figures"}:
        raise SettingsError(f"{place}: not an object of operation, layer and figures", "these three entries", FIX)
    operation, layer, figures = entry["operation"], entry["layer"], entry["figures"]
    if not isinstance(operation, str) or operation not in OPERATIONS:
        raise UnknownNameError(f"operation ({place})", str(operation)[:100], OPERATIONS)
    if not isinstance(layer, str) or not 0 < len(layer) <= MAX_NAME:
        raise SettingsError(f"{place}: layer {str(layer)[:100]!r}", f"a name of 1 to {MAX_NAME} characters", FIX)
    expected = FIGURES[operation]
    if not isinstance(figures, dict) or set(figures) != set(expected):
        wanted = f"an object of {' and '.join(expected)}" if expected else "an empty object"
        raise SettingsError(f"{place}: figures of {operation}", wanted, FIX)
    if operation == "drop_block":
        return Change(operation, layer, figures)
    if operation == "set_activation":
        if not isinstance(figures["act"], str):
            raise SettingsError(f"{place}: act {str(figures['act'])[:100]}", "a name", FIX)
        return Change(operation, layer, figures)
    if operation == "decompose_layer":
        return _parsed_decomposition(layer, figures, place)
    axis, kept = figures["axis"], figures["kept"]
    if type(axis) is not int or axis not in (0, 1):
        raise SettingsError(f"{place}: axis {str(axis)[:100]}", "0 or 1", FIX)
    if not isinstance(kept, list) or not 0 < len(kept) <= MAX_CHANNELS or not all(type(i) is int for i in kept):
        raise SettingsError(f"{place}: kept", f"a list of 1 to {MAX_CHANNELS} whole numbers", FIX)
    if kept[0] < 0 or any(low >= high for low, high in pairwise(kept)):
        raise SettingsError(f"{place}: kept", "indices from 0, ascending, each once", FIX)
    return Change(operation, layer, figures)


def _parsed_decomposition(layer: str, figures: dict[str, Any], place: str) -> Change:
    """Raises SettingsError, UnknownNameError."""
    method, ranks = figures["method"], figures["ranks"]
    if not isinstance(method, str) or method not in METHODS:
        raise UnknownNameError(f"decomposition ({place})", str(method)[:100], METHODS)
    if not isinstance(ranks, list) or not 0 < len(ranks) <= MAX_RANKS or not all(type(rank) is int for rank in ranks):
        raise SettingsError(f"{place}: ranks", f"a list of 1 to {MAX_RANKS} whole numbers", FIX)
    if not all(0 < rank <= MAX_CHANNELS for rank in ranks):
        raise SettingsError(f"{place}: ranks {ranks}", f"1 to {MAX_CHANNELS}", FIX)
    return Change("decompose_layer", layer, figures)


def apply_changes(
    network: nn.Module, changes: Sequence[Change], source: str = "changes.json", *, values: bool = True
) -> None:
    """Apply edits to `network` in order, in place; weights are kept where the edit keeps them.

    source: what an error names. values: whether a decomposed layer gets the values that follow from its weights; without,
    as where a saved state replaces them anyway, those of a new layer, in less time. Raises SettingsError for an edit that the layer does not take, UnknownNameError for a
    layer that the network does not have.
    """
    modules = dict(network.named_modules())
    for number, change in enumerate(changes, 1):
        place = f"{source}, edit {number}"
        if not change.layer or change.layer not in modules:
            raise UnknownNameError(f"layer of the network ({place})", change.layer, filter(None, modules))
        if change.operation == "decompose_layer":
            _decompose_layer(modules, change.layer, change.figures, place, values)
            continue
        OPERATIONS[change.operation](modules, change.layer, change.figures, place)


def _keep_channels(modules: dict[str, nn.Module], layer: str, figures: dict[str, Any], place: str) -> None:
    """Replace the parameters and buffers of a layer by the slices of the channels that are kept."""
    module = modules[layer]
    axis, kept = figures["axis"], figures["kept"]
    channels = channels_of(module, axis)
    if channels is None:
        raise SettingsError(
            f"{place}: keep_channels on axis {axis} of {layer}, a {type(module).__name__}",
            "Conv2d and Linear (axes 0 and 1), norms over channels and PReLU (axis 0)",
            "name another layer",
        )
    if kept[-1] >= channels:
        raise SettingsError(
            f"{place}: channel {kept[-1]} of {layer}", f"0 to {channels - 1} on axis {axis}", "keep channels it has"
        )
    index = torch.tensor(kept)
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        _slice_grouped(module, axis, index, f"{place}: {layer}")
    elif isinstance(module, (nn.Conv2d, nn.Linear)):
        _slice(module, "weight", index, axis)
        if axis == 0:
            _slice(module, "bias", index)
        names = ("out_channels", "in_channels") if isinstance(module, nn.Conv2d) else ("out_features", "in_features")
        setattr(module, names[axis], len(kept))
    else:
        for name in ("weight", "bias", "running_mean", "running_var"):
            _slice(module, name, index)
        if isinstance(module, _NormBase):
            module.num_features = len(kept)
        elif isinstance(module, nn.LayerNorm):
            module.normalized_shape = (len(kept),)
        elif isinstance(module, nn.PReLU):
            module.num_parameters = len(kept)


def channels_of(module: nn.Module, axis: int) -> int | None:
    """The channels of a layer on an axis; None where `keep_channels` does not take it."""
    if isinstance(module, nn.Conv2d):
        return module.in_channels if axis else module.out_channels
    if isinstance(module, nn.Linear):
        return module.in_features if axis else module.out_features
    if axis:
        return None
    if isinstance(module, _NormBase):
        return module.num_features
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        return module.normalized_shape[0]
    if isinstance(module, nn.PReLU) and module.num_parameters > 1:
        return module.num_parameters
    return None


def _slice_grouped(module: nn.Conv2d, axis: int, index: torch.Tensor, place: str) -> None:
    """Slice a convolution of several groups. Raises SettingsError where its groups would not be alike."""
    if module.groups == module.in_channels == module.out_channels:
        _slice(module, "weight", index)
        _slice(module, "bias", index)
        module.in_channels = module.out_channels = module.groups = len(index)
        return
    size = (module.in_channels if axis else module.out_channels) // module.groups
    counts = torch.bincount(index // size, minlength=module.groups)
    if int(counts.min()) != int(counts.max()):
        raise SettingsError(
            f"{place}: {int(counts.min())} to {int(counts.max())} channels kept in a group of {module.groups}",
            "the same number in each group",
            "keep as many channels in each",
        )
    if axis == 0:
        _slice(module, "weight", index)
        _slice(module, "bias", index)
        module.out_channels = len(index)
        return
    in_group = (index % size).reshape(module.groups, -1)  # row: a group
    parts = module.weight.detach().chunk(module.groups)
    sliced = [part.index_select(1, rows) for part, rows in zip(parts, in_group.to(module.weight.device), strict=True)]
    module.weight = nn.Parameter(torch.cat(sliced), requires_grad=module.weight.requires_grad)
    module.in_channels = len(index)


def _slice(module: nn.Module, name: str, index: torch.Tensor, axis: int = 0) -> None:
    """Replace a parameter or buffer by its entries at `index`; nothing where the layer has none of that name."""
    tensor = getattr(module, name, None)
    if tensor is None:
        return
    sliced = tensor.detach().index_select(axis, index.to(tensor.device))
    if isinstance(tensor, nn.Parameter):
        sliced = nn.Parameter(sliced, requires_grad=tensor.requires_grad)
    setattr(module, name, sliced)


def _set_activation(modules: dict[str, nn.Module], layer: str, figures: dict[str, Any], place: str) -> None:
    """Put another activation in the place of one."""
    module = modules[layer]
    if not isinstance(module, tuple(kind for kind in ACTIVATIONS.values() if isinstance(kind, type))):
        raise SettingsError(
            f"{place}: set_activation on {layer}, a {type(module).__name__}",
            "a layer that is an activation",
            "name another layer",
        )
    parent, _, name = layer.rpartition(".")
    modules[layer] = activation(figures["act"])
    setattr(modules[parent], name, modules[layer])


def _decompose_layer(
    modules: dict[str, nn.Module], layer: str, figures: dict[str, Any], place: str, values: bool = True
) -> None:
    """Put the layers of a decomposition in the place of one."""
    module, method, ranks = modules[layer], figures["method"], tuple(figures["ranks"])
    methods = methods_of(module)
    if method not in methods:
        allowed = f"{', '.join(methods)} for it" if methods else "Conv2d of one group and Linear"
        what = f"a {type(module).__name__}" if methods else why_not(module)
        raise SettingsError(f"{place}: decompose_layer by {method} of {layer}, {what}", allowed, "name another")
    if not ranks_fit(module, method, ranks):
        most = full_ranks(module, method, ranks)
        raise SettingsError(
            f"{place}: ranks {', '.join(map(str, ranks))} of {layer} by {method}",
            f"{len(most)} of them, at most {', '.join(map(str, most))}",
            "give such ranks",
        )
    parent, _, name = layer.rpartition(".")
    parts = decomposed(module, method, ranks) if values else skeleton(module, method, ranks)
    modules[layer] = parts
    modules.update({f"{layer}.{number}": part for number, part in enumerate(parts)})
    setattr(modules[parent], name, parts)


def _drop_block(modules: dict[str, nn.Module], layer: str, figures: dict[str, Any], place: str) -> None:
    """Put what is left of a residual block without its branch in the place of it."""
    left = without_branch(modules[layer])
    if left is None:
        raise SettingsError(
            f"{place}: drop_block of {layer}, a {type(modules[layer]).__name__}",
            "a residual block whose shortcut is the identity",
            "name another block",
        )
    if getattr(
        left, "inplace", False
    ):  # what it reads may be the output that another activation needs for its gradient
        left = copy.copy(left)
        left.inplace = False  # type: ignore[assignment]  # of ReLU and its like
    parent, _, name = layer.rpartition(".")
    for gone in [one for one in modules if one.startswith(f"{layer}.")]:
        del modules[gone]
    modules[layer] = left
    setattr(modules[parent], name, left)


def without_branch(module: nn.Module) -> nn.Module | None:
    """What is left of a residual block without its branch; None for other modules, and where the shortcut is no identity."""
    method = getattr(module, "without_branch", None)
    left = method() if callable(method) else None
    return left if isinstance(left, nn.Module) else None


Operation = Callable[[dict[str, nn.Module], str, dict[str, Any], str], None]
# operation -> function of the modules by name, the layer, the figures and the place that an error names
OPERATIONS: dict[str, Operation] = {
    "keep_channels": _keep_channels,
    "set_activation": _set_activation,
    "decompose_layer": _decompose_layer,
    "drop_block": _drop_block,
}
FIGURES: dict[str, tuple[str, ...]] = {
    "keep_channels": ("axis", "kept"),
    "set_activation": ("act",),
    "decompose_layer": ("method", "ranks"),
    "drop_block": (),
}
