"""Which networks keep a budget: units, the zoo at its widths, what is counted and timed, rungs, the best file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from gossamer.errors import (
    SettingsError,
)
from gossamer.host.progress import SILENT
from gossamer.networks.costs import COSTS
from gossamer.networks.published import papers_top1, published_top1
from gossamer.networks.registry import NETWORKS
from gossamer.selection import finalists, halving, search, steps
from gossamer.selection.budget import Budget, Use, parse_budget
from gossamer.selection.choices import (
    NetworkChoice,
    all_choices,
    expected_top1,
    input_sizes,
    network_names,
    points_per_doubling,
)
from gossamer.selection.counting import Builder
from gossamer.selection.finalists import FinalFile, best_of
from gossamer.selection.result import on_front
from gossamer.selection.search import Fit, Search, dropped_of, fit_of
from gossamer.shrink.limits import parse_amount
from tests.pickcases import PER_MAC, MadeUpTimes

# budgets


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("latency", "2ms", 2.0),
        ("latency", "500us", 0.5),
        ("latency", " 0.002 s", 2.0),
        ("size", "3MB", 3e6),
        ("size", "1MiB", 2.0**20),
        ("memory", "8mb", 8e6),
    ],
)
def test_amounts_have_units(kind: str, text: str, value: float) -> None:
    assert parse_amount(kind, text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("latency", "2", "no unit"),
        ("latency", "0ms", "0ms"),
        ("latency", "-2ms", "-2ms"),
        ("latency", "2mb", "the unit mb"),
        ("latency", "nan ms", "nan"),
        ("latency", "1e999ms", "1e999"),
        ("size", "3ms", "the unit ms"),
        ("size", "3", "no unit"),
        ("memory", "", "memory ''"),
        ("memory", "8 parsecs", "the unit parsecs"),
    ],
)
def test_amounts_without_a_unit_of_theirs_are_refused(kind: str, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        parse_amount(kind, text)
    assert f"--{kind}" in str(caught.value) or "give a unit" in str(caught.value)


def test_a_budget_says_what_is_over_and_by_how_much() -> None:
    budget = parse_budget("2ms", "3MB", None)
    assert budget == Budget(2.0, 3e6, None) and budget.text() == "at most 2 ms, 3 MB"
    assert budget.why_not(Use(1.9, 3_000_000, 10**12)) == ""
    assert budget.why_not(Use(2.5, 4_000_000, 0)) == "2.500 ms, over 2 ms; 4.000 MB, over 3 MB"
    assert "times scatter" in budget.why_not(Use(1.99, 1, 1), 0.97) and budget.why_not(Use(1.9, 1, 1), 0.97) == ""
    assert budget.excess(Use(1.0, 6_000_000, 0)) == 2.0 and budget.excess(Use(4.0, 0, 0)) == 2.0
    with pytest.raises(SettingsError, match="no budget"):
        parse_budget(None, None, None)


# the zoo


def test_every_published_accuracy_is_of_a_network_and_has_a_source() -> None:
    assert set(papers_top1()) <= set(NETWORKS) and len(papers_top1()) > 40
    assert all(20 < one.top1 < 90 and one.source for one in papers_top1().values())
    known = published_top1("mobilenet_v2")
    assert known is not None and (known.top1, known.source) == (72.0, "arXiv 1801.04381, table 4")
    loaded = published_top1("resnet50")
    assert loaded is not None and "timm" in loaded.source, "of the weights, as no paper's figure is listed"
    assert published_top1("lenet5") is None


def test_widths_are_those_that_were_published_and_a_few_others() -> None:
    names = network_names(["mobilenetv2*", "resnet18"])
    choices = all_choices(names, [(64, 64), (32, 32)], 3)
    widths = {(one.net, one.width) for one in choices}
    assert ("mobilenetv2_100", 0.25) in widths and ("mobilenetv2_050", None) in widths
    assert ("mobilenetv2_100", 0.5) not in widths, "that is mobilenetv2_050"
    assert len(choices) == 2 * len(widths) and len({one.name for one in choices}) == len(choices)
    assert len({one.family for one in choices}) == 2


def test_smaller_inputs_keep_the_shape_and_a_lower_end() -> None:
    assert input_sizes((224, 224)) == [(224, 224), (160, 160), (128, 128)]
    assert input_sizes((32, 32)) == [(32, 32)] and input_sizes((28, 28)) == [(28, 28)]
    assert all(height <= 64 and width <= 128 for height, width in input_sizes((64, 128)))


def test_more_of_a_family_is_expected_to_be_better() -> None:
    assert 2 < points_per_doubling() < 10
    narrow, own = NetworkChoice("mobilenetv2_100", 0.5, (224, 224)), NetworkChoice("mobilenetv2_100", None, (224, 224))
    assert expected_top1(narrow) < expected_top1(own) == pytest.approx(72.0)
    assert expected_top1(replace(own, size=(128, 128))) < 72.0
    assert math.isfinite(expected_top1(NetworkChoice("preresnet20", None, (32, 32))))


def test_counts_are_those_of_the_zoo() -> None:
    counted = Builder().count(NetworkChoice("mobilenetv1_025", None, (224, 224)))
    assert (counted.params, counted.macs) == COSTS["mobilenetv1_025"]
    assert counted.weight_bytes("int8") == counted.params and counted.weight_bytes("float32") == 4 * counted.params
    assert counted.memory("bf16") == 2 * counted.params + counted.peak // 2
    again = Builder().count(NetworkChoice("mobilenetv1_100", 0.25, (224, 224)))
    assert again.signature == counted.signature, "the same network by another name is timed once"
    assert Builder().count(NetworkChoice("mobilenetv1_025", None, (192, 192))).signature != counted.signature


# successive halving


def test_rungs_drop_three_of_four_and_fill_the_time() -> None:
    assert halving.counts_of(8) == (8, 2, 1) and halving.counts_of(3) == (3, 1) and halving.counts_of(1) == (1,)
    rungs = halving.plan(20, 8, 3600)
    assert rungs.counts == (8, 2, 1) and rungs.fractions == (1 / 16, 1 / 4, 1)
    begins = (0.0, *rungs.fractions)
    work = sum(n * (end - begin) * rungs.seconds for n, begin, end in zip(rungs.counts, begins, rungs.fractions))
    assert work == pytest.approx(3600), "all rungs together are the time"
    assert rungs.seconds * rungs.fractions[0] >= halving.SHORTEST


def test_little_time_means_few_networks_and_never_none() -> None:
    assert halving.plan(20, 8, 200).counts[0] < 8
    for seconds in (1.0, 60.0, 100.0, 1000.0):
        rungs = halving.plan(5, 8, seconds)
        assert rungs.counts[-1] == 1 and rungs.fractions[-1] == 1 and rungs.counts[0] <= 5
    assert halving.plan(5, 8, 1.0) == halving.Rungs((1,), (1.0,), 1.0)


def fit(net: str, expected: float, width: float | None = None) -> Fit:
    return Fit(NetworkChoice(net, width, (32, 32)), expected, 1, 1, {"int8": Use(1.0, 1, 1)})


def test_the_first_rung_is_not_one_family() -> None:
    family = [fit("mobilenetv2_100", 70 - n, width) for n, width in enumerate((1.0, 0.9, 0.8, 0.7))]
    other = fit("resnet18", 50)
    assert steps.first_rung([*family, other], 3) == [family[0], family[1], other]
    assert steps.first_rung(family, 3) == family[:3], "where there is no other"
    assert steps.first_rung([other], 1) == [other]


def test_fits_and_drops_come_back_from_json() -> None:
    one = fit("resnet18", 50.0)
    assert fit_of(json.loads(json.dumps(one.to_json()))) == one
    for use in (None, Use(1.0, 2, 3)):
        dropped = search.Dropped("a", "int8", "why", use)
        assert dropped_of(json.loads(json.dumps(dropped.to_json()))) == dropped


# the search, with times that are made up


def searched(budget: Budget, nets: str = "mobilenetv1*", enough: int = 99, times: Any = None) -> Search:
    choices = all_choices(network_names([nets]), [(64, 64)], 3)
    one = Search(budget, tuple(PER_MAC), Builder(), times or MadeUpTimes(), SILENT, enough, 60.0)
    one.run(choices)
    return one


def test_what_counting_excludes_is_not_timed() -> None:
    times = MadeUpTimes()
    found = searched(Budget(None, 1.5e6, None), times=times)
    assert {one.choice.net for one in found.fits} == {"mobilenetv1_025", "mobilenetv1_050"}
    small = next(one for one in found.fits if one.choice.net == "mobilenetv1_050")
    assert set(small.uses) == {"int8"}, "float32 and bf16 are over"
    assert ("mobilenetv1_050-64x64", ("int8",)) in times.asked and not any("_100" in name for name, _ in times.asked)
    reasons = {(one.name, one.precision): one.reason for one in found.dropped}
    assert (
        "counted: " in reasons["mobilenetv1_100-64x64", "int8"]
        and "over 1.5 MB" in reasons["mobilenetv1_100-64x64", "int8"]
    )


def test_every_network_and_precision_is_taken_or_has_a_reason() -> None:
    found = searched(Budget(2.0, None, 3e6))
    choices = all_choices(network_names(["mobilenetv1*"]), [(64, 64)], 3)
    for choice in choices:
        for precision in PER_MAC:
            kept = any(one.choice == choice and precision in one.uses for one in found.fits)
            why = [one for one in found.dropped if one.name == choice.name and one.precision in ("", precision)]
            assert kept != bool(why), (choice.name, precision)
    assert found.fits and all(one.uses for one in found.fits)
    for one in found.fits:
        assert all(not found.budget.why_not(use, 0.97) for use in one.uses.values())


def test_a_family_that_is_slower_than_its_limit_is_not_timed_again() -> None:
    times = MadeUpTimes()
    times.most_macs = lambda precision, ms: 1e12  # type: ignore[method-assign]
    found = searched(Budget(0.5, None, None), times=times)
    timed = [name for name, precisions in times.asked if "float32" in precisions]
    assert len(timed) < len(all_choices(network_names(["mobilenetv1*"]), [(64, 64)], 3))
    assert any("by the time that others of its family take" in one.reason for one in found.dropped)


def test_enough_networks_end_the_search_and_the_rest_is_told() -> None:
    found = searched(Budget(100.0, None, None), enough=2)
    assert len(found.fits) == 2
    assert sum("not tried: 2 networks of higher expected accuracy fit" in one.reason for one in found.dropped) >= 3


def test_where_time_runs_out_before_anything_fits_the_smallest_are_tried() -> None:
    choices = all_choices(network_names(["mobilenetv1*"]), [(64, 64)], 3)

    def at_once(ms: float) -> Search:
        one = Search(Budget(ms, None, None), tuple(PER_MAC), Builder(), MadeUpTimes(), SILENT, 99, -1.0)
        one.run(choices)
        return one

    found = at_once(100.0)
    assert 1 <= len(found.fits) <= search.NEAREST and found.fits[0].choice.name.startswith("mobilenetv1_025")
    late = [one.name for one in found.dropped if one.reason == search.OUT_OF_TIME]
    assert late and not set(late) & {one.choice.name for one in found.fits}
    none = at_once(1e-6)
    assert not none.fits and none.nearest is not None
    asked: Any = SimpleNamespace(budget=none.budget, precisions=("int8",))
    assert f"{len([one for one in none.dropped if one.reason == search.OUT_OF_TIME])} networks were not tried" in str(
        steps.nothing_fits(asked, none)
    )


def test_a_busy_machine_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from gossamer.host import machine
    from gossamer.selection.timing import BUSY, NetworkTimes

    monkeypatch.setattr(machine, "usable_cores", lambda *_: 2)
    for load, busy in ((14.0, True), (2.0, False), (0.1, False)):
        monkeypatch.setattr(machine.os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        times = NetworkTimes("native", 1)
        times.notes.clear()
        times._note_load()
        times._note_load()
        assert len(times.notes) == busy and all(
            line.startswith(BUSY) and "14.0 on 2 cores" in line for line in times.notes
        )
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (_ for _ in ()).throw(OSError()))
    assert machine.busy_load(1) is None


def test_an_impossible_budget_has_a_nearest() -> None:
    found = searched(Budget(1e-6, None, None))
    assert not found.fits and found.nearest is not None
    excess, name, precision, use = found.nearest
    assert name.startswith("mobilenetv1_025") and precision == "int8" and excess == use.ms / 1e-6


def test_a_precision_that_the_runtime_refuses_is_told() -> None:
    times = MadeUpTimes()
    times.refuse = {"bf16": "no such operator"}
    found = searched(Budget(100.0, None, None), times=times)
    assert all("bf16" not in one.uses for one in found.fits)
    assert all(one.reason == "no such operator" for one in found.dropped if one.precision == "bf16")


def test_points_on_the_front_are_not_beaten() -> None:
    assert on_front([(1.0, 0.5), (2.0, 0.5), (0.5, 0.1), (3.0, None)]) == [True, False, True, False]
    assert on_front([(1.0, 0.5), (1.0, 0.5)]) == [True, True]


def final(precision: str, score: float | None, ms: float = 1.0, over: str = "") -> FinalFile:
    return FinalFile("net", precision, "f.onnx", "run", Use(ms, 1, 1), over, score, {}, 9)


def test_the_best_file_keeps_the_budget() -> None:
    exact, small = final("float32", 0.9, 2.0, "2.000 ms, over 1 ms"), final("int8", 0.7)
    assert best_of([exact, small]) is small and best_of([exact]) is None
    assert best_of([final("bf16", 0.7, 2.0), small]) is small, "of equal ones the faster"
    assert finalists.final_of(json.loads(json.dumps(small.to_json()))) == small
