"""docs/quickstart.md: its commands run in their order, its pictures are small and there, the README leads to it."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.runs import gossamer

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "quickstart.md"
TEXT = PAGE.read_text(encoding="utf-8")
LINES = [line.removeprefix("$ ") for line in TEXT.splitlines() if line.startswith("$ ")]
COMMANDS = [line for line in LINES if line.startswith("gossamer ")]


def test_the_readme_leads_to_the_quick_start_and_its_pictures_are_small() -> None:
    assert "(docs/quickstart.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", TEXT)
    assert {Path(path).stem for _, path in pictures} == {"report", "inspect", "latency"}
    for words, path in pictures:
        file = PAGE.parent / path
        assert len(words) > 20 and file.stat().st_size < 150 * 1024
        with Image.open(file) as picture:
            assert picture.format == "PNG" and min(picture.size) >= 200


def test_the_quick_start_takes_every_step() -> None:
    steps = [shlex.split(line)[1] for line in COMMANDS]
    assert steps == ["doctor", "train", "export", "verify", "predict", "bench", "inspect", "report"]
    assert all(line.split()[0] in ("gossamer", "pip", "python") for line in LINES)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_every_command_of_the_quick_start_runs(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        import demo
    finally:
        sys.path.remove(str(ROOT / "examples"))
    demo.write_digits(tmp_path / "digits")
    for line in COMMANDS:
        gossamer(*shlex.split(re.sub(r"--epochs \d+", "--epochs 1", line))[1:], cwd=tmp_path)
    assert (tmp_path / "runs" / "digits" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "inspect.html").exists() and (tmp_path / "latency.svg").exists()
