"""Writes the OpenVINO files of tests/hostile/openvino: `python -m tests.hostile.make_openvino`, with OpenVINO installed.

The digits of a name are the rule that the file breaks. The bytes are those of one version of OpenVINO: tests read them as they are.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
from tests.onnxcases import node, save

from gossamer.modelfile.metadata import read_model_file
from gossamer.openvino.metadata import BLANK, DIGEST, digest
from gossamer.openvino.write import openvino_files

VERSION_1 = b"&quot;version&quot;: 1"
HERE = Path(__file__).parent / "openvino"


def sealed(xml: bytes, weights: bytes) -> bytes:
    """The .xml file with the right digest."""
    blank = DIGEST.sub(b'<sha256 value="' + BLANK + b'" />', xml)
    return blank.replace(BLANK, digest(blank, weights).encode())


def cases() -> dict[str, tuple[bytes, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        nodes = [node("Conv", ["x", "v"], ["a"]), node("Relu", ["a"], ["y"])]
        constants = {"v": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)}
        file = read_model_file(save(Path(folder) / "m.onnx", nodes, constants, ("N", 3, 2, 2)))
        xml, weights = openvino_files(file)
    entry = re.search(rb"\t*<gossamer>.*</gossamer>\n", xml, re.DOTALL)
    assert entry is not None
    return {
        "good": (xml, weights),
        "02_an_onnx_file": (b"\x08\x08\x12\x08gossamer", weights),
        "01_an_annotation": (b'<?xml version="1.0"?><annotation><size/></annotation>', weights),
        "02_cut_off": (xml[: len(xml) // 2], weights),
        "02_entities": (xml.replace(b"<net ", b'<!DOCTYPE net [<!ENTITY a "b">]><net ', 1), weights),
        "02_not_utf8": (xml.replace(b'name="gossamer"', b'name="\xff"'), weights),
        "03_of_another_exporter": (xml.replace(entry.group(), b""), weights),
        "04_weights_cut_off": (xml, weights[:-4]),
        "04_weights_of_another_network": (xml, weights[::-1]),
        "04_one_digit_changed": (xml.replace(b'version="11"', b'version="10"'), weights),
        "05_pixels_without_preprocessing": (sealed(xml.replace(VERSION_1, VERSION_1[:-1] + b"2"), weights), weights),
        "05_version_3": (sealed(xml.replace(VERSION_1, VERSION_1[:-1] + b"3"), weights), weights),
        "05_no_json": (sealed(xml.replace(b'entry value="{', b'entry value="'), weights), weights),
        "06_an_unknown_operation": (sealed(xml.replace(b'type="ReLU"', b'type="Scan7"'), weights), weights),
    }


def main() -> None:
    HERE.mkdir(exist_ok=True)
    for name, (xml, weights) in cases().items():
        (HERE / f"{name}.xml").write_bytes(xml)
        (HERE / f"{name}.bin").write_bytes(weights)


if __name__ == "__main__":
    main()
