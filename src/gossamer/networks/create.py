"""A network from its name."""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

from gossamer.blocks.activation import Activation
from gossamer.blocks.gates import Draw
from gossamer.errors import SettingsError, UnknownNameError
from gossamer.networks.base import Features, Network
from gossamer.networks.builder import Builder
from gossamer.networks.options import Deformable, Gating, Options
from gossamer.networks.pretrained import DEFAULT, TIMM
from gossamer.networks.registry import NETWORKS, resolve

ADDING = ("deformable", "self_attention", "gating")  # the options that add blocks to a network


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
    deformable: Deformable = "none",
    deformable_stages: int = 1,
    self_attention: tuple[int, ...] = (),
    gating: Gating = "none",
    gate_draw: Draw = "gumbel",
    gate_target: float = 0.5,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    pretrained: bool | str = False,
    **options: Any,
) -> Network | Features:
    """The network called `name`, by timm's name, torchvision's or another alias, with fresh or pretrained weights.

    "timm:NAME" is any network of timm as a backbone of the same interface; see `gossamer.networks.timm_adapter`.

    num_classes: 0 gives an embedder. in_chans: channels of the input. width: width multiplier in place of the
    one in the name. small_input: the first two strided layers keep stride 1, for images of about 32x32; each
    family's file says which. drop_rate: dropout before the classifier. drop_path_rate: stochastic depth of the
    last residual branch, growing linearly from the first. output_stride: 8, 16, ...: dilated instead of strided
    layers from there on. act, norm: activation and norm in place of the network's own; norm_eps: what its batch
    norms add to the variance. deformable, self_attention, gating and what belongs to them: see
    `gossamer.networks.options.Options`. features_only: `Features` of the maps at `out_indices` instead of a `Network`.
    pretrained: True for the network's default listed weights, the name of another listed set (`gossamer list
    --weights`), a local file, URL#sha256=... or hf://owner/name/file, in our names, torchvision's or timm's; they
    must fit but for the classifier and the channels of the input. The network's `pretrained` then is the listed set.
    options: arguments that only this family has, described at its family's function.

    Raises UnknownNameError, SettingsError, WeightsError, MissingPackageError, StorageError.
    """
    if out_indices is not None and not features_only:
        raise SettingsError("out_indices for a classifier", "out_indices with features_only=True", "add that")
    model: Network | Features
    if not isinstance(self_attention, (tuple, list)):
        raise SettingsError(f"self_attention: {self_attention!r}", "numbers of stages, as (2, 3)", "fix the argument")
    added = Options(deformable, deformable_stages, tuple(self_attention), gating, gate_draw, gate_target)
    if name.startswith(TIMM):
        from gossamer.networks.timm_adapter import create

        own = {"width": width, "small_input": small_input or None, "act": act, "norm": norm, "norm_eps": norm_eps}
        own |= {key: value for key in ADDING if (value := getattr(added, key)) != getattr(Options, key)}
        for key, value in own.items():
            if value is not None:
                raise SettingsError(
                    f"{name} has no argument {key!r}", "the arguments of timm's network", "leave it out"
                )
        model = create(
            name,
            num_classes=num_classes,
            in_chans=in_chans,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            output_stride=output_stride,
            features_only=features_only,
            out_indices=out_indices,
            options=options,
        )
    else:
        builder = Builder(
            num_classes=num_classes,
            in_chans=in_chans,
            small_input=small_input,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            output_stride=output_stride,
            act=act,
            norm=norm,
            norm_eps=norm_eps,
            options=added,
        )
        network = _build(name, builder, width, options)
        model = Features(network, out_indices) if features_only else network
    if pretrained:
        from gossamer.networks.load import load_pretrained

        load_pretrained(model, name, DEFAULT if pretrained is True else pretrained)
    return model


def _build(name: str, builder: Builder, width: float | None, options: dict[str, Any]) -> Network:
    """The network of ours called `name`, with `options` of its family. Raises UnknownNameError, SettingsError."""
    entry = NETWORKS[resolve(name)]
    build: Callable[..., Network] = getattr(
        importlib.import_module(f"gossamer.networks.{entry.module}"), entry.function
    )
    if width is not None:
        if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0 < width < 100:
            raise SettingsError(f"width: {width!r}", "a number above 0, such as 0.5", "fix the argument")
        options = {**options, "width": float(width)}
    fixed = {"builder", *entry.arguments} - {"width"}  # what the name stands for
    allowed = [key for key in inspect.signature(build).parameters if key not in fixed]
    hints = typing.get_type_hints(build)
    for key, value in options.items():
        if key not in allowed:
            raise SettingsError(f"{name} has no argument {key!r}", ", ".join(allowed) or "none", "leave it out")
        _check_option(key, value, hints[key])
    return build(builder, **{**entry.arguments, **options})


def _check_option(key: str, value: Any, hint: Any) -> None:
    """Raises SettingsError or UnknownNameError where `value` is not what an argument of a family's function takes."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is not None:
            _check_option(key, value, next(kind for kind in arguments if kind is not type(None)))
    elif origin is Literal:
        if value not in arguments:
            raise UnknownNameError(f"{key} of this network", str(value), [str(word) for word in arguments])
    elif origin is tuple:
        if not isinstance(value, (tuple, list)) or not all(type(item) is int for item in value):
            raise SettingsError(f"{key}: {value!r}", "whole numbers, as 1,2,2", "fix the argument")
    elif hint in (bool, int, float, str):
        kinds = (int, float) if hint is float else (hint,)
        if type(value) not in kinds:
            raise SettingsError(f"{key}: {value!r}", f"a value of type {hint.__name__}", "fix the argument")
