"""The range that quantises a value best, and when it is looked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.shrink import ranges
from gossamer.shrink.ranges import BestRanges, Values, _squared_error, best_range, fake_quantise, scale_and_zero


@given(st.floats(-100, 100), st.floats(-100, 100), st.integers(0, 2**31 - 1))
@settings(max_examples=60, deadline=None)
def test_the_best_range_holds_0_and_beats_the_extremes(low: float, high: float, seed: int) -> None:
    low, high = min(low, high), max(low, high)
    sample = np.random.default_rng(seed).uniform(low, high, 500).astype(np.float32)
    sample[0] = 4 * max(abs(low), abs(high))  # an outlier
    values = Values((1,), np.zeros(1, np.float32), float(sample.min()), float(sample.max()), sample)
    a, b = best_range(values)
    assert a <= 0 <= b and b > a
    x = sample.astype(np.float64)
    wide = float(((fake_quantise(x, min(0.0, values.low), max(0.0, values.high)) - x) ** 2).mean())
    assert float(((fake_quantise(x, a, b) - x) ** 2).mean()) <= wide * 1.0001
    scale, zero = scale_and_zero(a, b)
    assert scale > 0 and 0 <= zero <= 255
    narrow = (0.7 * low, 0.9 * high)
    assert _squared_error(x, *narrow, 200, np.empty_like(x)) == ((fake_quantise(x, *narrow, 200) - x) ** 2).mean()


def test_ranges_are_found_once_and_only_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def value(high: float, largest: float) -> Values:
        return Values((1,), np.ones(1, np.float32), -1.0, high, np.linspace(-1, largest, 99, dtype=np.float32))

    values = {"a": value(2, 2), "as a": value(2, 2), "wider": value(9, 2), "other numbers": value(2, 1.5)}
    expected = {name: best_range(one) for name, one in values.items()}
    found: list[Values] = []

    def noted(one: Values) -> tuple[float, float]:
        found.append(one)
        return best_range(one)

    monkeypatch.setattr(ranges, "best_range", noted)
    known: dict[bytes, tuple[float, float]] = {}
    chosen = BestRanges(values, known)
    assert list(chosen) == list(values) and len(chosen) == 4 and "a" in chosen and "b" not in chosen and not found
    assert chosen["wider"] == expected["wider"] and len(found) == 1 and found[0] is values["wider"]
    assert dict(chosen) == expected and dict(BestRanges(values, known)) == expected
    assert len(found) == len(known) == 3
    with pytest.raises(KeyError):
        chosen["b"]
