"""A network from its name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

from gossamer.blocks.activation import Activation
from gossamer.errors import SettingsError
from gossamer.networks.base import Features, Network
from gossamer.networks.plan import Plan
from gossamer.networks.registry import NETWORKS, resolve


@overload
def create_model(name: str, *, features_only: Literal[False] = False, **arguments: Any) -> Network: ...
@overload
def create_model(name: str, *, features_only: Literal[True], **arguments: Any) -> Features: ...
def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    width: float | None = None,
    small_input: bool = False,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    output_stride: int | None = None,
    act: Activation | None = None,
    norm: str | None = None,
    norm_eps: float | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    weights: str = "",
    **options: Any,
) -> Network | Features:
    """The network called `name`, by timm's name, torchvision's or another alias, with fresh weights or `weights`.

    num_classes: 0 gives an embedder. in_chans: channels of the input. width: width multiplier in place of the
    one in the name. small_input: the first two strided layers keep stride 1, for images of about 32x32; each
    family's file says which. drop_rate: dropout before the classifier. drop_path_rate: stochastic depth of the
    last residual branch, growing linearly from the first. output_stride: 8, 16, ...: dilated instead of strided
    layers from there on. act, norm: activation and norm in place of the network's own; norm_eps: what its batch
    norms add to the variance. features_only: `Features` of the maps at `out_indices` instead of a `Network`.
    weights: a local file, URL#sha256=... or hf://owner/name/file#sha256=...,
    in our names, torchvision's or timm's; it must fit but for the classifier and the channels of the input.
    options: arguments that only this family has, described at its builder.

    Raises UnknownNameError, SettingsError, WeightsError, MissingPackageError, StorageError.
    """
    if out_indices is not None and not features_only:
        raise SettingsError("out_indices for a classifier", "out_indices with features_only=True", "add that")
    entry = NETWORKS[resolve(name)]
    builder: Callable[..., Network] = getattr(
        importlib.import_module(f"gossamer.networks.{entry.module}"), entry.builder
    )
    if width is not None:
        if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0 < width < 100:
            raise SettingsError(f"width: {width!r}", "a number above 0, such as 0.5", "mend the argument")
        options["width"] = float(width)
    fixed = {"plan", *entry.arguments} - {"width"}  # what the name stands for
    allowed = [key for key in inspect.signature(builder).parameters if key not in fixed]
    for key in options:
        if key not in allowed:
            raise SettingsError(f"{name} has no argument {key!r}", ", ".join(allowed), "leave it out")
    plan = Plan(
        num_classes=num_classes,
        in_chans=in_chans,
        small_input=small_input,
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
        output_stride=output_stride,
        act=act,
        norm=norm,
        norm_eps=norm_eps,
    )
    network = builder(plan, **{**entry.arguments, **options})
    model = Features(network, out_indices) if features_only else network
    if weights:
        from gossamer.networks.fetch import fetch
        from gossamer.networks.weights import load_weights

        load_weights(model, fetch(weights))
    return model
