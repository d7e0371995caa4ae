"""Every command of docs/blocks.md runs, in the order it stands there."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.conftest import write_boxes, write_image_folder, write_masks
from tests.runs import gossamer
from tests.test_frames import write_samples

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "blocks.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in TEXT.splitlines() if line.startswith("    ")]


@pytest.mark.full
def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "photos", each=8)
    write_boxes(tmp_path / "signs", each=4)
    write_masks(tmp_path / "street", each=4)
    write_samples(tmp_path / "clips")
    assert len(COMMANDS) == 7
    for line in COMMANDS:
        program, *words = shlex.split(line)
        assert program == "gossamer"
        if words[0] == "train":  # whether it runs, in less than half the time
            words += ["--input", "96"]
        done = gossamer(*words, cwd=tmp_path)
        if words[0] == "eval":
            assert "accuracy" in done.stdout
            assert ("MACs per image are computed" in done.stdout) == ("gated" in line)


def test_the_page_names_every_option_that_puts_blocks_in() -> None:
    from gossamer.networks.create import ADDING

    for option in (
        *ADDING,
        "scale_attention",
        "frames",
        "gate_target",
        "gate_weight",
        "gate_draw",
        "deformable_stages",
    ):
        assert f"`--{option.replace('_', '-')}" in TEXT, option
