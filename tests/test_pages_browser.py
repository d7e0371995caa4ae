"""Pages in a real browser: nothing is wider than the page, wide tables scroll with their first column in sight."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, browser_program
from tests.test_pages import pages

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(browser_program() is None, reason="no Chromium here to look at pages with"),
]
# elements that stick out of the page although no box around them scrolls
OUTSIDE = """[...document.querySelectorAll('body *')].filter(one => {
  if (one.closest('svg') && one.tagName !== 'svg') return false;
  const box = one.getBoundingClientRect();
  if (!box.width || box.right <= document.documentElement.clientWidth + 1) return false;
  for (let up = one.parentElement; up && up !== document.body; up = up.parentElement)
    if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(up).overflowX)) return false;
  return true;
}).map(one => one.tagName + ' ' + one.className + ' ' + one.textContent.trim().slice(0, 40))"""
# boxes that scroll sideways, each with where its first column is when it is scrolled to the end
SCROLLED = """[...document.querySelectorAll('.box')].filter(box => box.scrollWidth > box.clientWidth + 1 && box.querySelector('tbody'))
  .map(box => { box.scrollLeft = 1e6; const cell = box.querySelector('tbody tr > :first-child').getBoundingClientRect();
    return cell.left - box.getBoundingClientRect().left; })"""
CUT = """[...document.querySelectorAll('td, th')].filter(one => one.scrollWidth > one.clientWidth + 1).length"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    paths = {}
    for name, html in pages().items():
        paths[name] = folder / f"{name}.html"
        paths[name].write_text(html, encoding="utf-8")
    return paths


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["report", "inspect", "compare", "recipe"])
def test_nothing_is_cut_off_on_a_screen(browser: Browser, files: dict[str, Path], name: str, width: int) -> None:
    browser.open(files[name], width)
    assert browser.value(OUTSIDE) == []
    assert browser.value("document.documentElement.scrollWidth") <= width
    places = browser.value(SCROLLED)
    assert all(abs(place) <= 1 for place in places), "the first column stays in sight"
    assert places or width > 390 or name == "report"


def test_the_table_of_a_measured_network_fits_a_desktop(browser: Browser, files: dict[str, Path]) -> None:
    browser.open(files["inspect"], 1280)
    assert browser.value(SCROLLED) == []


@pytest.mark.parametrize(
    ("name", "width"), [("report", 700), ("compare", 700), ("inspect", 1030), ("recipe", 700)]
)  # pixels of paper
def test_paper_cuts_nothing_and_has_no_blank_page(
    browser: Browser, files: dict[str, Path], name: str, width: int
) -> None:
    browser.open(files[name], width, paper=True)
    assert browser.value(OUTSIDE) == []
    assert (
        browser.value("[...document.querySelectorAll('.box')].filter(b => b.scrollWidth > b.clientWidth + 1).length")
        == 0
    )
    assert browser.value(CUT) == 0
    height = browser.value("document.documentElement.scrollHeight")
    printed = browser.pdf()
    sheets = len(re.findall(rb"/Type\s*/Page\b", printed))
    per_sheet = 690 if name == "inspect" else 1010
    assert 1 <= sheets <= 2 * height / per_sheet + 2, "headings, figures and rows stay whole, but no page is left empty"


def test_a_page_asks_for_nothing_and_reports_no_error(browser: Browser, files: dict[str, Path]) -> None:
    for path in files.values():
        browser.open(path, 800)
        assert (
            browser.value("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length")
            == 0
        )
        assert browser.value("[...document.images].filter(image => !image.complete || !image.naturalWidth).length") == 0


def test_words_are_printed_beside_what_they_are_about(browser: Browser, files: dict[str, Path]) -> None:
    """A note ends what is above it and does not pull itself to the next section; a drawn network begins a page with its key."""
    browser.open(files["inspect"], 1030, paper=True)
    rule = "getComputedStyle(document.querySelector('{}')).{}"
    assert browser.value(rule.format("#stages > p.note", "breakAfter")) == "auto"
    assert browser.value(rule.format("#stages > p.note", "breakBefore")) == "avoid"
    assert browser.value(rule.format("#network > p:not(.note)", "breakAfter")) == "avoid"
    assert browser.value(rule.format("#network", "breakBefore")) in ("page", "always")
    # the words and the first row of pieces are no higher than A4 landscape within its margins: 210 - 28 mm at 96 dpi
    top = "document.querySelector('#network').getBoundingClientRect().top"
    assert browser.value(f"document.querySelector('.piece').getBoundingClientRect().bottom - {top}") <= 182 / 25.4 * 96
