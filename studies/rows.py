"""The CSV file beside the page of a study, by which it can be resumed and read elsewhere."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence


def csv_text(rows: Sequence[dict[str, str]], columns: Sequence[str]) -> str:
    """The rows as CSV under a header of these columns."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
