"""`gossamer list`: names, costs within limits, weights; as text and as JSON."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gossamer.cli.main import main
from gossamer.networks.costs import COSTS
from gossamer.networks.counting import count_network
from gossamer.networks.pretrained import WEIGHTS
from gossamer.networks.published import papers_top1
from gossamer.networks.registry import ALIASES, NETWORKS, list_models
from gossamer.settings.parse import parse_count
from tests.test_networks import ROWS


def listed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["list", *arguments]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def values(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(listed(capsys, *arguments, "--json"))


def test_a_plain_list_names_every_network_with_its_costs(capsys: pytest.CaptureFixture[str]) -> None:
    lines = listed(capsys).splitlines()
    assert lines[0].split("  ")[0] == "network" and "params (M)" in lines[0] and "MACs (M)" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == list_models() == [row["name"] for row in values(capsys)]
    assert listed(capsys, "squeezenet*").splitlines()[1:] == [
        "squeezenet1_0                    1.248     818.9  3x224x224",
        "squeezenet1_1                    1.235     349.2  3x224x224",
    ]
    assert "no network is called 'nothing*'" in listed(capsys, "nothing*", code=2)


def test_other_names_in_use_are_shown_and_found(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = values(capsys, "mobilenet_v2")
    assert row == {
        "name": "mobilenetv2_100",
        "aliases": ["mobilenet_v2"],
        "params": 3504872,
        "macs": 300774272,
        "input": "3x224x224",
    }
    assert "mobilenetv2_100  mobilenet_v2" in listed(capsys, "mobilenet_v2")
    assert {alias for row in values(capsys) for alias in row["aliases"]} == set(ALIASES)


def test_listing_needs_no_torch() -> None:
    code = "import sys; from gossamer.cli.main import main; main(['list', '--max-params', '1M']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_table_of_costs_is_of_the_networks_and_agrees_with_published_counts() -> None:
    assert list(COSTS) == list(NETWORKS)
    shapes = {name: "x".join(map(str, entry.input)) for name, entry in NETWORKS.items()}
    compared = 0
    for row in (row for row in ROWS if not row["options"]):
        name = ALIASES.get(row["model"], row["model"])
        if row["input"] == shapes.get(name):
            assert COSTS[name] == (int(row["params"]), int(row["macs"])), name
            compared += 1
    assert compared > 60


@pytest.mark.parametrize("name", ["lenet5", "mobilenetv2_035", "shufflenet_v2_x0_5"])
def test_the_table_of_costs_is_what_is_counted(name: str) -> None:
    assert count_network(name) == COSTS[name]


@pytest.mark.full
def test_the_tables_of_networks_are_as_the_script_writes_them() -> None:
    script = Path(__file__).resolve().parents[1] / "benchmarks" / "networks.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_of_networks_is_as_the_script_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    script = importlib.import_module("networks")
    assert script.PAGE.read_text(encoding="utf-8") == script.networks_page()
    assert script.COSTS.read_text(encoding="utf-8") == script.costs_file(COSTS)
    assert papers_top1() and set(papers_top1()) <= set(NETWORKS)


def test_limits_keep_what_costs_no_more_and_sort_by_macs(capsys: pytest.CaptureFixture[str]) -> None:
    rows = values(capsys, "mobilenetv2*", "--max-params", "3.6M", "--max-macs", "300M")
    assert [row["name"] for row in rows] == [f"mobilenetv2_{width}" for width in ("035", "050", "075")]
    rows = values(capsys, "mobilenetv2*", "--max-params", "3504872")
    assert (rows[-1]["params"], rows[-1]["macs"]) == (3504872, 300774272)
    assert [row["macs"] for row in rows] == sorted(row["macs"] for row in rows) and len(rows) == 4
    text = listed(capsys, "mobilenetv2*", "--max-macs", "0.301G").splitlines()
    assert text[-1].split() == ["mobilenetv2_100", "mobilenet_v2", "3.505", "300.8", "3x224x224"]
    assert listed(capsys, "resnet18", "--max-macs", "1M").splitlines()[1:] == []


def test_each_network_is_counted_at_its_own_input(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row["input"] for row in values(capsys, "lenet*", "--max-params", "60M")}
    assert rows == {"lenet5": "1x32x32", "lenet5_original": "1x32x32", "lenet_caffe": "1x28x28"}
    assert values(capsys, "inception_v3", "--max-macs", "6G")[0]["input"] == "3x299x299"
    published: dict[str, set[str]] = {}
    for row in (row for row in ROWS if not row["options"]):
        published.setdefault(row["model"], set()).add(row["input"])
    for name, inputs in published.items():
        if name in NETWORKS:
            assert "x".join(map(str, NETWORKS[name].input)) in inputs


@pytest.mark.parametrize(
    ("text", "count"), [("3M", 3_000_000), ("1.5G", 1_500_000_000), ("2k", 2000), (" 12 ", 12), ("0", 0)]
)
def test_counts_are_read_in_thousands(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["M", "3T", "-1M", "many", "nan", "infG"])
def test_counts_that_are_none_are_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = listed(capsys, f"--max-params={text}", code=2)
    assert f"--max-params {text!r}; allowed" in error and "as 3M or 1.5G" in error and error.count("\n") == 1


def test_weights_are_listed_with_licence_source_accuracy_and_preprocessing(capsys: pytest.CaptureFixture[str]) -> None:
    rows = values(capsys, "mobilenet_v2", "--weights")
    assert [row["name"] for row in rows] == [each.name for each in WEIGHTS["mobilenetv2_100"]]
    assert [row["default"] for row in rows] == [True, False, False]
    assert rows[0]["top1"] == 72.91 and rows[0]["licence"] == "apache-2.0" and rows[0]["mean"] == [0.485, 0.456, 0.406]
    head, *_, line, _ = listed(capsys, "mobilenet_v2", "--weights").splitlines()
    assert head.split()[:2] == ["network", "weights"]
    for word in ("mobilenetv2_100", "torchvision/mobilenet_v2.IMAGENET1K_V2", "72.154", "bsd-3-clause", "https://"):
        assert word in line
    assert len(values(capsys, "--weights")) == sum(map(len, WEIGHTS.values()))
    assert "no network with listed weights" in listed(capsys, "lenet*", "--weights", code=2)


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_the_networks_of_timm_are_listed_by_its_names(capsys: pytest.CaptureFixture[str]) -> None:
    names = [row["name"] for row in values(capsys, "timm:*mobilenet*")]
    assert "timm:mobilenetv3_small_100" in names and all("mobilenet" in name for name in names)
    rows = values(capsys, "timm:mobilenetv3_small_050", "--weights")
    assert rows[0]["name"] == "timm/mobilenetv3_small_050.lamb_in1k" and rows[0]["licence"] == "apache-2.0"
    assert "limits for our own networks" in listed(capsys, "timm:*", "--max-macs", "1M", code=2)
