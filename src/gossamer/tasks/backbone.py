"""The network that the settings of a run describe."""

from __future__ import annotations

import inspect
import typing
from typing import Any

from gossamer.blocks.activation import Activation
from gossamer.errors import SettingsError
from gossamer.networks import create_model
from gossamer.networks.base import Network
from gossamer.settings import Settings
from gossamer.settings.parse import parse_options, parse_stages


def arguments(settings: Settings) -> dict[str, Any]:
    """What `create_model` takes of the settings, but for the name, the classes and the weights. Raises SettingsError."""
    return {
        "in_chans": settings.in_chans,
        "width": settings.width,
        "small_input": bool(settings.small_input),
        "drop_rate": settings.drop_rate,
        "drop_path_rate": settings.drop_path_rate,
        "output_stride": settings.output_stride,
        "act": typing.cast(Activation | None, settings.act or None),  # checked where it is used
        "norm": settings.norm or None,
        "norm_eps": settings.norm_eps,
        "deformable": settings.deformable,
        "deformable_stages": settings.deformable_stages,
        "self_attention": parse_stages(settings.self_attention),
        "gating": settings.gating,
        "gate_draw": settings.gate_draw,
        "gate_target": settings.gate_target,
        **_options(settings),
    }


def network(settings: Settings, num_classes: int) -> Network:
    """The network of `settings` with a classifier, or as an embedder where `num_classes` is 0.

    Raises UnknownNameError, SettingsError, MissingPackageError.
    """
    built: Network = create_model(settings.net, num_classes=num_classes, **arguments(settings))
    return built


def _options(settings: Settings) -> dict[str, Any]:
    """The options of the family. Raises SettingsError for those that have a setting of their own."""
    options = parse_options(settings.net_options)
    own = sorted(set(options) & set(inspect.signature(create_model).parameters))
    if own:
        raise SettingsError(
            f"net_options: {own[0]} is not of one family only", "arguments of the family", f"use --{own[0]} instead"
        )
    return options
