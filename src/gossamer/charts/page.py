"""The base of every page: one template environment, one style sheet, one place where what HTML forbids is replaced.

A page is a template that extends base.html. Text is escaped; charts (`svg.Markup`) are inserted as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossamer.charts.chart_file import CHART_STYLE, valid_markup
from gossamer.errors import MissingPackageError
from gossamer.host import text

if TYPE_CHECKING:
    import jinja2

FOLDER = Path(__file__).parent
PAGE_STYLE = FOLDER / "page.css"


def environment(folder: Path, purpose: str) -> jinja2.Environment:
    """The templates of `folder` and of this room, with the number formats as filters.

    purpose: what jinja2 is needed for. Raises MissingPackageError.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingPackageError("jinja2", "report", purpose) from error
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        name: getattr(text, name)
        for name in (
            "binary_bytes",
            "compact_count",
            "decimal_bytes",
            "dimensions",
            "duration",
            "grouped",
            "grouped_count",
            "metric_name",
            "milliseconds",
            "percent",
            "points",
            "si_number",
            "significant",
        )
    }
    templates.filters.update(filters)
    return templates


def render_page(
    templates: jinja2.Environment, template: str, values: Mapping[str, Any], styles: Sequence[Path] = ()
) -> str:
    """The page as HTML text. styles: style sheets of the page beside those that all pages have."""
    style = "".join(sheet.read_text(encoding="utf-8") for sheet in (CHART_STYLE, PAGE_STYLE, *styles))
    return valid_markup(templates.get_template(template).render(values, style=style))
