"""A model file as an OpenVINO IR, by OpenVINO's own reader of ONNX, with gossamer's metadata in rt_info."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from gossamer.errors import InputError
from gossamer.images.preprocess import Preprocess
from gossamer.modelfile.metadata import ModelFile
from gossamer.modelfile.openvino import SUFFIX, WEIGHTS
from gossamer.openvino.core import core_of
from gossamer.openvino.metadata import BLANK, ENTRY, PIXELS, VERSION, digest
from gossamer.openvino.runtime import OpenVino, reason


def openvino_files(file: ModelFile, uint8: bool = False) -> tuple[bytes, bytes]:
    """The .xml and the .bin file of an ONNX file, weights in float32, or in int8 as a QDQ file has them; the batch is free.

    The network ends at the outputs that gossamer decodes. uint8: its input is uint8 pixels (N, H, W, C), which it normalises itself.
    Raises InputError where OpenVINO lacks an operator, or for uint8 images of a file without preprocessing, MissingPackageError.
    """
    if uint8 and file.metadata is None:
        what = f"{file.path}: uint8 images of a file that does not say how an image becomes its input"
        raise InputError(what, "a file that `gossamer export` wrote, or a run", "leave --uint8 out")
    openvino = OpenVino.import_package()
    name = f"OpenVINO {str(openvino.__version__).split('-')[0]}"
    do = "export to another format, or take that layer out of the network"
    try:
        model: Any = core_of(openvino).read_model(io.BytesIO(file.data))
        results = [model.output(one).get_node() for one in file.outputs]
        cut: Any = openvino.Model(results, model.get_parameters(), "gossamer")
        shapes = [_sides(one.get_output_partial_shape(0)) for one in results]
        given = _sides(model.inputs[0].get_partial_shape())
        if uint8 and file.metadata is not None:
            cut = _of_pixels(openvino, cut, file.metadata.preprocess)
    except Exception as error:  # RuntimeError, or what its C++ side throws
        raise InputError(f"{file.path}: {name}: {reason(error)}", "operators that OpenVINO has", do) from error
    if not given or not all(shapes) or len(model.inputs) != 1:
        what = "an input or output whose sides behind the batch are not fixed"
        raise InputError(f"{file.path}: {what}", "fixed sides", "export it with a fixed input size")
    entry = {
        "version": PIXELS if uint8 else VERSION,
        "input": given,
        "outputs": [{"name": one, "shape": sides} for one, sides in zip(file.outputs, shapes, strict=True)],
        "metadata": None if file.metadata is None else file.metadata.to_json(),
    }
    cut.set_rt_info(json.dumps(entry, allow_nan=False), [ENTRY, "entry"])
    cut.set_rt_info(BLANK.decode(), [ENTRY, "sha256"])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / f"model{SUFFIX}"
        openvino.save_model(cut, str(place), compress_to_fp16=False)
        xml, weights = place.read_bytes(), place.with_suffix(WEIGHTS).read_bytes()
    mark = b'<sha256 value="' + BLANK
    at = xml.index(mark) + len(mark) - len(BLANK)
    return xml[:at] + digest(xml, weights).encode() + xml[at + len(BLANK) :], weights


def _of_pixels(openvino: ModuleType, model: Any, preprocess: Preprocess) -> Any:
    """The model behind (v / 255 - mean) / std of uint8 pixels (N, H, W, C)."""
    stages = openvino.preprocess.PrePostProcessor(model)
    stages.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    stages.input().model().set_layout(openvino.Layout("NCHW"))
    values = stages.input().preprocess().convert_element_type(openvino.Type.f32)
    values.mean([255 * mean for mean in preprocess.mean]).scale([255 * std for std in preprocess.std])
    return stages.build()


def _sides(shape: Any) -> list[int]:
    """Behind the batch; none where one is free."""
    sides = list(shape)[1:] if shape.rank.is_static else []
    return [one.get_length() for one in sides] if all(one.is_static for one in sides) else []
