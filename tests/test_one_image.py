"""Batches of one image: what a norm cannot take statistics of is refused before a run begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from gossamer.cli.main import main

SHORT = "--input 64 --epochs 1 --threads 1 --workers 0 --precision float32 --memory-format channels_last".split()


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ("--net mobilenetv4_conv_small --batch 1", 2),  # batch norm on a pooled map
        ("--net mobilenetv4_conv_small --batch 4 --accumulate 4", 2),
        pytest.param("--net mobilenetv4_conv_small --batch 1 --norm group", 0, marks=pytest.mark.full),
        pytest.param("--net squeezenet1_1 --batch 1", 0, marks=pytest.mark.full),  # no norm
    ],
)
def test_one_image_at_a_time(
    flags: str, code: int, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    given = ["train", str(image_folder), *SHORT, *flags.split(), "--out", str(out)]
    assert main(given) == code
    if code:
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "one image at a time" in line]
        assert "raise --batch, or give --norm group" in line and not out.exists()
