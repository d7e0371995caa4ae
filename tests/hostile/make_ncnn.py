"""Writes the ncnn files of tests/hostile/ncnn: `python -m tests.hostile.make_ncnn`. The digits are the rule that a file breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gossamer.ncnn.graph import Graph, floats
from gossamer.ncnn.write import NcnnFiles, metadata_bytes

HERE = Path(__file__).parent / "ncnn"
GRAPH = Graph()
IMAGE = GRAPH.input((3, 2, 2))
MADE = GRAPH.add("Scale", [IMAGE], (3, 2, 2), {0: 3, 1: 1}, [floats(np.arange(6, dtype=np.float32))])
GRAPH.name(IMAGE, "x")
GRAPH.name(MADE, "y")
TEXT, WEIGHTS = GRAPH.encoded([MADE])
PARAM = TEXT.encode()
STATED: dict[str, Any] = {
    "input": [3, 2, 2],
    "input_blob": "x",
    "outputs": [{"name": "y", "blob": "y", "shape": [3, 2, 2]}],
    "metadata": None,
}


def files(param: bytes = PARAM, weights: bytes = WEIGHTS, **changed: Any) -> NcnnFiles:
    """A network of one layer, whose digests are right."""
    return NcnnFiles(param, weights, metadata_bytes(param, weights, STATED | changed))


def behind(line: str, weights: bytes = b"") -> NcnnFiles:
    """A second layer, which makes the output."""
    layers = TEXT.replace("2 2\n", "3 3\n", 1).replace(" x y ", " x a ") + line + "\n"
    return files(layers.encode(), WEIGHTS + weights)


GOOD = files()
WINDOW = "1=1 11=1 2=1 12=1 3=1 13=1 4=0 15=0 14=0 16=0 5=1"
CASES: dict[str, NcnnFiles] = {
    "good": GOOD,
    "01_an_onnx_file": NcnnFiles(b"\x08\x08\x12\x08gossamer", WEIGHTS, GOOD.json),
    "02_a_litert_file": NcnnFiles(b"\x1c\0\0\0TFL3", WEIGHTS, GOOD.json),
    "01_empty": NcnnFiles(b"", WEIGHTS, GOOD.json),
    "02_of_another_exporter": NcnnFiles(PARAM, WEIGHTS, b'{"name": "another"}'),
    "02_one_digit_changed": NcnnFiles(PARAM, WEIGHTS, GOOD.json.replace(b'"x"', b'"z"')),
    "02_cut_off": NcnnFiles(PARAM, WEIGHTS, GOOD.json[: len(GOOD.json) // 2]),
    "03_the_file_of_another_network": NcnnFiles(PARAM, WEIGHTS, files(weights=WEIGHTS[::-1]).json),
    "03_weights_cut_off": NcnnFiles(PARAM, WEIGHTS[:-4], GOOD.json),
    "03_layers_cut_off": NcnnFiles(PARAM[:-9], WEIGHTS, GOOD.json),
    "04_an_unknown_layer": files(PARAM.replace(b"Scale", b"Scan")),
    "04_too_few_weights": files(weights=WEIGHTS[:-4]),
    "04_a_blob_from_nowhere": files(PARAM.replace(b"1 1 x y", b"1 1 z y")),
    "04_fewer_layers": files(PARAM.replace(b"\n2 2\n", b"\n3 2\n")),
    "04_weights_below_zero": files(PARAM.replace(b" 0=3 ", b" 0=-3 ")),
    "04_letters_for_a_number": files(PARAM.replace(b" 1=1", b" 1=one")),
    "04_more_numbers_than_there_are": behind("Reshape b 1 1 a y 0=1000 1=1000 2=1000"),
    "04_more_channels_than_there_are": behind(
        f"ConvolutionDepthWise b 1 1 a y 0=999 {WINDOW} 6=999 7=999", bytes(4 + 8 * 999)
    ),
    "04_a_sum_of_one": behind("BinaryOp b 1 1 a y 0=0"),
    "04_weights_in_int8": behind(f"Convolution b 1 1 a y 0=1 {WINDOW} 6=3 8=1", bytes(4 + 16)),
    "04_a_float_for_a_count": behind("Reshape b 1 1 a y 0=2.000000000e+00 1=2 2=3"),
    "04_two_inputs": behind("Input b 0 1 y 0=2 1=2 2=3"),
    "05_an_output_of_no_blob": files(outputs=[{"name": "y", "blob": "q", "shape": [1]}]),
    "05_an_input_of_text": files(input=["3", 2, 2]),
    "05_metadata_of_text": files(metadata="none"),
    "05_version_2": files(version=2),
    "06_another_input": files(input=[3, 9, 9]),
    "06_another_output": files(outputs=[{"name": "y", "blob": "y", "shape": [3, 9, 9]}]),
}


def main() -> None:
    HERE.mkdir(exist_ok=True)
    for name, one in CASES.items():
        for suffix, data in ((".param", one.param), (".bin", one.bin), (".json", one.json)):
            (HERE / f"{name}{suffix}").write_bytes(data)


if __name__ == "__main__":
    main()
