"""Writes the ExecuTorch files of tests/hostile/executorch: `python -m tests.hostile.make_executorch`.

The digits are the rule that a file breaks. The programs are none: whoever gives them to ExecuTorch hears so (rule 5).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gossamer.executorch.write import ExecuTorchFiles, metadata_bytes

HERE = Path(__file__).parent / "executorch"
PROGRAM = b"\x3c\0\0\0ET12eh00" + bytes(range(64))
STATED: dict[str, Any] = {"input": [3, 2, 2], "outputs": [{"name": "y", "shape": [3, 2, 2]}], "metadata": None}


def files(pte: bytes = PROGRAM, **changed: Any) -> ExecuTorchFiles:
    """A program whose digests are right."""
    return ExecuTorchFiles(pte, metadata_bytes(pte, STATED | changed))


GOOD = files()
TWICE = {"name": "y", "shape": [3]}
CASES: dict[str, ExecuTorchFiles] = {
    "01_an_onnx_file": ExecuTorchFiles(b"\x08\x08\x12\x08gossamer", GOOD.json),
    "01_another_version_of_programs": files(PROGRAM.replace(b"ET12", b"ET99")),
    "01_empty": ExecuTorchFiles(b"", GOOD.json),
    "02_of_another_exporter": ExecuTorchFiles(PROGRAM, b'{"name": "another"}'),
    "02_one_digit_changed": ExecuTorchFiles(PROGRAM, GOOD.json.replace(b'"y"', b'"z"')),
    "02_cut_off": ExecuTorchFiles(PROGRAM, GOOD.json[: len(GOOD.json) // 2]),
    "02_of_another_format": files(format="gossamer ncnn"),
    "03_the_file_of_another_network": ExecuTorchFiles(PROGRAM, files(PROGRAM[::-1]).json),
    "03_cut_off": ExecuTorchFiles(PROGRAM[:40], GOOD.json),
    "04_version_2": files(version=2),
    "04_an_input_of_text": files(input="3, 2, 2"),
    "04_an_input_below_zero": files(input=[3, -2, 2]),
    "04_no_outputs": files(outputs=[]),
    "04_two_outputs_of_one_name": files(outputs=[TWICE, TWICE]),
    "04_an_output_without_a_name": files(outputs=[{"name": None, "shape": [3]}]),
    "04_metadata_of_text": files(metadata="classes"),
    "05_no_program": GOOD,
}


def main() -> None:
    """Write the files."""
    HERE.mkdir(exist_ok=True)
    for name, made in CASES.items():
        (HERE / f"{name}.pte").write_bytes(made.pte)
        (HERE / f"{name}.json").write_bytes(made.json)


if __name__ == "__main__":
    main()
