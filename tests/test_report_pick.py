"""The section of a run's report on the pick that it belongs to; commands that are printed can be pasted whatever the names."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from gossamer.errors import GossamerError
from gossamer.report.page import report_html
from gossamer.report.pick import pick_of
from gossamer.targets import target_of
from tests.reportcases import HOSTILE, check_alone
from tests.reportcases import data as report_data

pytest.importorskip("jinja2")


def trained(name: str, score: float | None, reason: str = "", **changes: Any) -> dict[str, Any]:
    use = {"ms": 1.5, "bytes": 2_500_000, "memory": 3_000_000}
    return {
        "name": name, "run": f"picked/runs/{name}", "precision": "int8", "use": use, "rung": 2, "fraction": 0.25, "score": score,
        "reason": reason, "front": not reason, **changes,
    }  # fmt: skip


def folder_of(root: Path, networks: list[dict[str, Any]], **changes: Any) -> Path:
    """The folder of a pick; returns that of its first run."""
    run = root / "picked" / "runs" / networks[0]["name"]
    run.mkdir(parents=True)
    (root / "picked" / "pick.json").write_text("{}")
    found = {"score": "accuracy", "budget": {"ms": 2.0, "bytes": None, "memory": None}, "trained": networks, **changes}
    (root / "picked" / "pareto.json").write_text(json.dumps(found))
    return run


def test_the_section_shows_what_was_trained_and_why_it_was_dropped(tmp_path: Path) -> None:
    other = trained("b", 0.75, "another one is better")
    run = folder_of(tmp_path, [trained("a", 0.8), other, trained("c", None, "its loss is no number")])
    section = pick_of(run)
    assert section is not None and section.why == "" and section.chart is not None and section.budget == "2 ms"
    assert section.rows[0] == ("a", "int8", "1.500", "2.500", "2", "25 %", "0.8000", "chosen")
    assert section.rows[2][6:] == ("–", "dropped: its loss is no number")
    assert pick_of(run.parent / "b").rows[0][0] == "b"  # type: ignore[union-attr]
    page = check_alone(report_html(report_data(run=str(run))))
    assert "pick" in [one["id"] for one in page.all("section")]
    assert "within 2 ms" in page.words and "another one is better" in page.words


def test_other_runs_have_no_section(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "flowers"
    run.mkdir(parents=True)
    assert pick_of(run) is None and pick_of(tmp_path) is None
    page = check_alone(report_html(report_data()))
    assert "pick" not in [one["id"] for one in page.all("section")] and "#pick" not in str(page)


@pytest.mark.parametrize(
    "change",
    [{"score": 3}, {"budget": {}}, {"trained": 4}, {"trained": [{}]}, {"trained": [trained("a", 0.5, use={"ms": "1"})]},
     {"trained": [trained("a", 0.5, front=True, reason=5)]}],
)  # fmt: skip
def test_a_damaged_file_is_told(tmp_path: Path, change: dict[str, Any]) -> None:
    run = folder_of(tmp_path, [trained("a", 0.8)])
    pareto = run.parent.parent / "pareto.json"
    values = json.loads(pareto.read_text())
    pareto.write_text(json.dumps({**values, **change}))
    section = pick_of(run)
    assert section is not None and section.why == "pareto.json is damaged" and not section.rows
    for text in ("{", "[" * 99_999, ""):
        pareto.write_text(text)
        assert pick_of(run).why == "pareto.json is damaged"  # type: ignore[union-attr]
    pareto.unlink()
    assert pick_of(run).why == "the pick is not finished"  # type: ignore[union-attr]
    assert "the pick is not finished" in check_alone(report_html(report_data(run=str(run)))).words


@pytest.mark.parametrize("name", HOSTILE)
def test_names_do_not_act_on_the_page(tmp_path: Path, name: str) -> None:
    run = folder_of(tmp_path, [trained("a", 0.8), trained(name, 0.7, name)])
    check_alone(report_html(report_data(run=str(run))))


@pytest.mark.parametrize("name", ["my run", "it's", "a;rm -rf b", "$(x)"])
def test_a_command_that_is_proposed_is_quoted(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / name
    run.mkdir()
    (run / "settings.yaml").write_text("net: mobilenet_v2\n")
    with pytest.raises(GossamerError) as raised:
        target_of(name, ("model file",))
    command = str(raised.value).partition("export it: ")[2]
    assert shlex.split(command)[:3] == ["gossamer", "export", name]


def test_no_command_is_proposed_with_a_bare_path() -> None:
    bare = re.compile(r"gossamer [a-z]+ [^\"']*\{(str\()?[a-z_.]*(path|folder|target|data|out)\)?\}")
    assert bare.search('f"go on: gossamer train --resume {run.path}"')
    sources = list((Path(__file__).parents[1] / "src").rglob("*.py"))
    assert len(sources) > 300
    assert not [path.name for path in sources if bare.search(path.read_text(encoding="utf-8"))]
