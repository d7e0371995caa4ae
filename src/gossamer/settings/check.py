"""The checks of settings: each value against its type and range, and the rules over several of them."""

from __future__ import annotations

import dataclasses
import math
import reprlib
import sys
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gossamer.errors import SettingsError, UnknownNameError
from gossamer.settings.parse import parse_bytes, parse_options, parse_stages

if TYPE_CHECKING:
    from gossamer.settings import Settings


KIND_NAMES = {
    float: "a finite number (float)",
    int: "a whole number (int)",
    str: "a text (str)",
    bool: "true or false (bool)",
}


def checked_value(field: dataclasses.Field[Any], hint: Any, value: Any) -> Any:
    """`value` as the field's type, within its range. Raises SettingsError, UnknownNameError."""
    name, meta = field.name, field.metadata
    if value is None and without_none(hint) is not hint:
        return None
    hint = without_none(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in arguments:
            raise UnknownNameError(f"{name} setting", str(value), arguments)
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or not all(_is_number(item) for item in value):
            raise SettingsError(f"{name}: {reprlib.repr(value)}", "numbers", "give a list of numbers")
        return tuple(float(item) for item in value)
    if hint is float and _is_number(value):
        value = float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        if hint is str and isinstance(value, (int, Path)) and not isinstance(value, bool):
            return str(value)  # `input: 224` in YAML, a Path in Python
        raise SettingsError(f"{name}: {reprlib.repr(value)}", KIND_NAMES[hint], "check the setting")
    if hint is str and "\0" in value:  # no path has one, and no name
        raise SettingsError(f"{name}: {reprlib.repr(value)}", "a text without null characters", "check the setting")
    low, high = meta["low"], meta["high"]
    if (low is not None and value < low) or (high is not None and value > high):
        allowed = f"{low:g} or more" if high is None else f"{low:g} to {high:g}"
        raise SettingsError(f"{name}: {reprlib.repr(value)}", allowed, "check the setting")
    return value


# settings that mean nothing, with their defaults, where another is "none"
DEPENDENT = (
    ("deformable_stages", 1, "deformable"),
    ("gate_draw", "gumbel", "gating"),
    ("gate_target", 0.5, "gating"),
    ("gate_weight", 1.0, "gating"),
)


def check_together(settings: Settings) -> None:
    """Rules over more than one setting. Raises SettingsError."""
    if settings.in_chans == 2:
        raise SettingsError("in_chans: 2", "1 (grey) or 3 (RGB)", "give one of them")
    if settings.heads and settings.task not in ("multi", "multilabel", "regress"):
        raise SettingsError(
            f"heads for the task {settings.task}",
            "heads with the task multi, multilabel or regress",
            "add --task multi",
        )
    settings.input_size()
    parse_options(settings.net_options)
    parse_stages(settings.self_attention, "--self-attention")
    for name, usual, option in DEPENDENT:
        if getattr(settings, name) != usual and getattr(settings, option) == "none":
            raise SettingsError(f"{name} without {option}", f"{name} beside --{option}", "give both, or neither")
    if not settings.teacher:
        for field in dataclasses.fields(settings):
            usual = field.metadata["usual"]
            default = usual.of(settings.task) if usual else field.default
            if field.name.startswith("distil") and getattr(settings, field.name) != default:
                raise SettingsError(
                    f"{field.name} without teacher", f"{field.name} beside --teacher", "give both, or neither"
                )
    if settings.teacher_cache:
        parse_bytes(settings.teacher_cache, "--teacher-cache")
        for combination, fits in (
            ("teacher_cache without teacher", bool(settings.teacher)),
            ("teacher_cache with deterministic, as other batches have other last bits", not settings.deterministic),
        ):
            if not fits:
                raise SettingsError(combination, "a cache with --teacher alone", "leave --teacher-cache out")
    if settings.distil == "kl" and settings.distil_beta != 2:
        raise SettingsError("distil_beta with kl", "a weight that dkd has", "leave it out")
    if settings.gate_draw == "topk" and settings.gate_weight != 1:
        raise SettingsError("gate_weight with topk", "a weight of the cost that gumbel has", "leave it out")
    if settings.scale_attention and settings.task != "segment":
        raise SettingsError(f"scale_attention for the task {settings.task}", "it with --task segment", "leave it out")
    if settings.frames:
        for combination, fits in (
            (f"frames for the task {settings.task}", settings.task in ("classify", "embed")),
            ("frames with a cache", not settings.cache),
            ("frames with cutmix", not settings.cutmix),
            ("frames with layer_decay", settings.layer_decay == 1),
        ):
            if not fits:
                raise SettingsError(
                    combination, "frames for classify and embed, without these", "leave one of them out"
                )
    if settings.cache:
        parse_bytes(settings.cache, "--cache")
    if len(settings.anchor_sizes) % 2 or any(side <= 0 for side in settings.anchor_sizes):
        raise SettingsError(
            f"anchor_sizes: {list(settings.anchor_sizes)}", "pairs of width and height above 0", "check the setting"
        )
    for name, pair in (
        ("crop_scale", settings.crop_scale),
        ("crop_ratio", settings.crop_ratio),
        ("betas", settings.betas),
        ("scales", settings.scales),
    ):
        if len(pair) != 2:
            raise SettingsError(f"{name}: {list(pair)}", "two numbers", "give two")
    for name in ("crop_scale", "crop_ratio"):
        low, high = getattr(settings, name)
        if not 0 < low <= high or (name == "crop_scale" and high > 1):
            raise SettingsError(
                f"{name}: {low:g} to {high:g}",
                "0 < low <= high" + (" <= 1" if name == "crop_scale" else ""),
                "check the setting",
            )
    if not all(0 <= beta < 1 for beta in settings.betas):
        raise SettingsError(f"betas: {list(settings.betas)}", "0 <= beta < 1", "check the setting")
    for name, values in (("mean", settings.mean), ("std", settings.std)):
        if (
            values is not None
            and len(values) not in (1, settings.in_chans)
            and not (settings.in_chans == 1 and len(values) == 3)
        ):
            raise SettingsError(
                f"{name}: {len(values)} numbers for {settings.in_chans} channels",
                "one, or one per channel",
                "check the setting",
            )
    if any(value <= 0 for value in settings.std or ()):
        raise SettingsError(f"std: {list(settings.std or ())}", "numbers above 0", "check the setting")
    if settings.batch % settings.accumulate:
        raise SettingsError(
            f"batch {settings.batch} with {settings.accumulate} gradient accumulation steps",
            "an accumulate that divides the batch",
            "change one of them",
        )


def without_none(hint: Any) -> Any:
    """The type of a value that is given: `hint` without None."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint


def _is_number(value: Any) -> bool:
    # compared, as math.isfinite raises OverflowError for whole numbers beyond the floats
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
