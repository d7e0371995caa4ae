"""Settings: types, ranges, YAML there and back."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer import settings as module
from gossamer.errors import InputError, SettingsError, UnknownNameError
from gossamer.images.decode import PIXEL_LIMIT
from gossamer.images.preprocess import Preprocess
from gossamer.settings import Settings, from_dict, to_dict
from gossamer.settings.file import dump_settings, load_settings
from gossamer.settings.parse import parse_bytes, parse_size
from gossamer.settings.rates import resolve_optimizer


def test_yaml_reads_back_to_equal_settings(tmp_path: Path) -> None:
    settings = Settings(
        data="photos ä/", net="resnet18", width=None, epochs=3, crop_scale=(0.2, 0.9), ema=0.999, step_epochs=(3, 6)
    )
    (tmp_path / "s.yaml").write_text(dump_settings(settings), encoding="utf-8")
    assert load_settings(tmp_path / "s.yaml") == settings
    assert from_dict(to_dict(settings)) == settings


def test_defaults_depend_on_the_task() -> None:
    classes, masks = Settings(), Settings(task="segment")
    assert (classes.batch, classes.optimizer, classes.label_smoothing) == (64, "sgd", 0.1)
    assert (masks.batch, masks.optimizer, masks.label_smoothing) == (8, "adamw", 0.0)
    assert resolve_optimizer(masks).lr == 0.002 != resolve_optimizer(masks.replace(optimizer="sgd")).lr
    assert Settings(task="segment", batch=64, optimizer="sgd").batch == 64
    assert from_dict({"task": "segment", "batch": None}).batch == 8
    assert from_dict(to_dict(masks)) == masks
    assert Settings(task="embed").batch == 64


def test_settings_are_in_groups_and_say_what_they_are() -> None:
    groups: dict[str, list[str]] = {}
    for field in dataclasses.fields(Settings):
        assert len(field.metadata["help"]) > 10, field.name
        groups.setdefault(field.metadata["group"], []).append(field.name)
    assert list(groups) == [
        "data",
        "run",
        "network",
        "head",
        "training",
        "augmentation",
        "loss",
        "distillation",
        "optimiser",
        "machine",
    ]
    assert groups["run"] == ["out", "task"]
    texts = {field.name: field.default for field in dataclasses.fields(Settings) if isinstance(field.default, str)}
    assert {name for name, default in texts.items() if not default} >= {
        "data",
        "out",
        "val",
        "weights",
        "freeze",
        "heads",
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epohcs": 3}, "epochs"),
        ({"epochs": "many"}, "float"),
        ({"epochs": -1}, "1e-09 to"),
        ({"epochs": math.nan}, "float"),
        ({"batch": 0}, "1 to"),
        ({"batch": 1.5}, "int"),
        ({"batch": True}, "int"),
        ({"deterministic": 1}, "bool"),
        ({"loss": "hinge"}, "cross_entropy"),
        ({"optimizer": "adamW"}, "adamw"),
        ({"input": "huge"}, "224 or 240x320"),
        ({"input": "4"}, "8 to 4096"),
        ({"in_chans": 2}, "1 (grey) or 3 (RGB)"),
        ({"mean": [0.1, 0.2]}, "one per channel"),
        ({"std": [0.0]}, "above 0"),
        ({"crop_scale": [0.9, 0.1]}, "low <= high"),
        ({"crop_scale": [0.9]}, "two numbers"),
        ({"betas": [0.9, 1.0]}, "0 <= beta < 1"),
        ({"cache": "lots"}, "K, M, G or T"),
        ({"batch": 10, "accumulate": 3}, "divides the batch"),
        ({"step_epochs": ["a"]}, "numbers"),
        ({"task": "divine"}, "classify"),
    ],
)
def test_a_bad_setting_is_one_line_that_says_what_is_allowed(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        from_dict(values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["- a\n- b\n", "a: [", "just text", "\x00", "!!python/object/apply:os.system ['true']"]
)
def test_a_settings_file_that_is_not_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(SettingsError):
        load_settings(tmp_path / "s.yaml")


@given(
    st.dictionaries(
        st.sampled_from(module.names()),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.floats())),
    )
)
def test_any_values_give_settings_or_an_input_error(values: dict[str, Any]) -> None:
    try:
        settings = from_dict(values)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert from_dict(to_dict(settings)) == settings


@pytest.mark.parametrize(
    ("text", "value"),
    [("1048576", 1 << 20), ("1M", 1 << 20), ("2G", 2 << 30), ("1.5k", 1536), ("3 MiB", 3 << 20), ("3MB", 3 << 20)],
)
def test_sizes_in_bytes(text: str, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text", ["", "G", "-1M", "0", "nan", "inf", "1X", "1MM"])
def test_sizes_in_bytes_that_are_none(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_bytes(text)


def test_height_comes_before_width() -> None:
    assert parse_size("240x320") == (240, 320)
    assert parse_size("64") == (64, 64)


def test_misspelt_names_get_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean label_smoothing"):
        from_dict({"label_smothing": 0.1})


def test_limits_are_those_of_the_decoder() -> None:
    assert Settings().pixel_limit == Preprocess((8, 8)).pixel_limit == PIXEL_LIMIT == 100_000_000


@pytest.mark.parametrize("number", ["1" + "0" * 400, "0x" + "F" * 5000, "-0x" + "F" * 5000])
@pytest.mark.parametrize("name", ["lr", "seed", "betas"])
def test_whole_numbers_beyond_the_floats_are_one_line(name: str, number: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(f"{name}: {number}\n" if name != "betas" else f"betas: [0.9, {number}]\n")
    with pytest.raises(SettingsError, match=r"s\.yaml: not YAML: a whole number of \d+ bits"):
        load_settings(tmp_path / "s.yaml")
    with pytest.raises(SettingsError, match=name):
        from_dict({name: 10**400 if name != "betas" else [0.9, 10**400]})


@pytest.mark.parametrize("epochs", [0, 0.0, 1e-12])
def test_no_epochs_are_refused(epochs: float) -> None:
    """They divided the share of the warm-up by zero: a defect, told after the data were read."""
    with pytest.raises(SettingsError, match=r"epochs: .*; allowed: 1e-09 to 1e"):
        Settings(data="photos", epochs=epochs)
