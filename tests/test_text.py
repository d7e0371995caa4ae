"""Text tables: alignment, widths and the refusal of rows that do not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.host.text import counted, format_table, grouped_count, minutes_text, none_of

CELL = st.text(alphabet="ab1.- ", max_size=6)


def test_the_first_column_is_aligned_left_and_the_others_right() -> None:
    lines = format_table(("name", "ms", "runtime"), [("a", "1.25", "ort"), ("longer", "10.5", "native")])
    assert lines == ["name      ms  runtime", "a       1.25      ort", "longer  10.5   native"]


def test_columns_that_are_aligned_left_have_no_spaces_at_the_end() -> None:
    lines = format_table(("name", "ms", "runtime"), [("a", "1.25", "ort"), ("b", "3", "")], left=(0, -1), gap=" | ")
    assert lines == ["name |   ms | runtime", "a    | 1.25 | ort", "b    |    3 |"]


def test_widths_are_the_least_of_each_column() -> None:
    assert format_table(("a", "b"), [("x", "123456")], widths=(4, 3)) == ["a          b", "x     123456"]


def test_a_table_may_have_no_header_or_no_rows() -> None:
    assert format_table(None, [("a", "1"), ("bc", "20")]) == ["a    1", "bc  20"]
    assert format_table(("a", "bc"), []) == ["a  bc"]
    assert format_table(None, []) == []


@pytest.mark.parametrize(
    ("rows", "widths"), [([("a",)], ()), ([("a", "b", "c")], ()), ([("a", "b")], (1,)), ([("a", "b")], (1, 2, 3))]
)
def test_a_row_or_widths_of_another_length_are_refused(rows: list[tuple[str, ...]], widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="without 2 cells"):
        format_table(("x", "y"), rows, widths=widths)


@given(rows=st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=5), gap=st.sampled_from([" ", "  ", " | "]))
def test_every_cell_is_in_its_column(rows: list[tuple[str, str, str]], gap: str) -> None:
    widths = [max(map(len, column)) for column in zip(*rows)]
    for line, cells in zip(format_table(None, rows, gap=gap), rows, strict=True):
        full = line.ljust(sum(widths) + 2 * len(gap))
        start = 0
        for number, (cell, width) in enumerate(zip(cells, widths)):
            assert full[start : start + width] == (cell.rjust(width) if number else cell.ljust(width))
            start += width + len(gap)


def test_one_thing_is_not_said_in_the_plural() -> None:
    assert [counted(1, "epoch"), counted(1.0, "epoch"), counted(1.2, "epoch")] == ["1 epoch", "1 epoch", "1.2 epochs"]
    assert [counted(0, "step"), counted(12_345_678, "step")] == ["0 steps", "12345678 steps"]
    assert [counted(1, "identity"), counted(2, "identity")] == ["1 identity", "2 identities"]
    assert [counted(2, word) for word in ("box", "class", "batch", "flush")] == [
        "2 boxes",
        "2 classes",
        "2 batches",
        "2 flushes",
    ]
    assert [counted(n, "image is", "images are") for n in (0, 1, 2)] == ["0 images are", "1 image is", "2 images are"]
    assert [none_of(1, "image"), none_of(3, "box")] == ["none of 1 image", "none of the 3 boxes"]
    assert [grouped_count(1, "object"), grouped_count(12_345, "object")] == ["1 object", "12\u202f345 objects"]


def test_a_budget_of_minutes_is_written_to_three_digits() -> None:
    assert [minutes_text(value) for value in (1.01624, 1.0002, 1, 90.0, 0.05, 1234.5)] == [
        "1.02 minutes",
        "1 minute",
        "1 minute",
        "90 minutes",
        "0.05 minutes",
        "1234.5 minutes",
    ]
    assert [minutes_text(value, "minutes are") for value in (1.0, 2.5)] == ["1 minute is", "2.5 minutes are"]
