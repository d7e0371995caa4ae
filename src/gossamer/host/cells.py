"""Text in the cells of a CSV file that a spreadsheet may open: none is read as a formula.

A cell that starts with = + - @, a tab or a line break is written with an apostrophe before it, as OWASP advises for CSV
injection; the readers of gossamer take it off again.
"""

from __future__ import annotations

import re
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def to_cell(value: Any) -> Any:
    """`value` as it is written; numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def from_cell(cell: str) -> str:
    """The text that `to_cell` wrote as `cell`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
