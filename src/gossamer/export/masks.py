"""Masks straight from the ONNX file: up-sampling and the likeliest class as its last operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from gossamer.errors import InputError, MissingPackageError
from gossamer.predictions.masks import check_classes

OPSET = 18  # the first in which Resize takes the axes to be resized


def add_mask(proto: Any, size: tuple[int, int], head: str = "") -> None:
    """Give an ONNX model with the output "logits" (N, K, h, w) a further one, "mask": uint8 (N, H, W), size (H, W).

    head: the name of the head, whose outputs are called "NAME.logits" and "NAME.mask". The mask is what
    `gossamer.predictions.masks.mask_of_logits` gives of the logits at the input's size, but for pixels where two classes agree to
    float32's rounding. Raises InputError, SettingsError for more than 255 classes, MissingPackageError.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise MissingPackageError("onnx", "train", "adding a mask to an ONNX model") from error
    graph, (logits, mask) = proto.graph, (f"{head}.{name}" if head else name for name in ("logits", "mask"))
    axes = _axes(proto, logits, mask)
    check_classes(axes[1].dim_value)
    graph.initializer.append(numpy_helper.from_array(np.array(size, np.int64), f"{mask}_size"))
    resize = helper.make_node(
        "Resize",
        [logits, "", "", f"{mask}_size"],
        [f"{mask}_logits"],
        name=f"{mask}_resize",
        mode="linear",
        coordinate_transformation_mode="half_pixel",
        axes=[2, 3],
    )
    argmax = helper.make_node(
        "ArgMax", [f"{mask}_logits"], [f"{mask}_class"], name=f"{mask}_argmax", axis=1, keepdims=0
    )
    cast = helper.make_node("Cast", [f"{mask}_class"], [mask], name=f"{mask}_cast", to=TensorProto.UINT8)
    graph.node.extend([resize, argmax, cast])
    batch = axes[0].dim_param or axes[0].dim_value or None
    graph.output.append(helper.make_tensor_value_info(mask, TensorProto.UINT8, [batch, *size]))
    onnx.checker.check_model(proto, full_check=True)


def _axes(proto: Any, logits: str, mask: str) -> list[Any]:
    """The four axes of the output `logits`. Raises InputError where the model is not one to add `mask` to."""
    outputs = {value.name: value for value in proto.graph.output}
    axes = list(outputs[logits].type.tensor_type.shape.dim) if logits in outputs else []
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if len(axes) != 4 or opset < OPSET or mask in outputs:
        raise InputError(
            f"an ONNX model of operator set {opset} with the outputs {', '.join(outputs)}",
            f"operator set {OPSET} or later, an output {logits!r} of 4 axes, none called {mask!r}",
            "export the segmentation network again",
        )
    return axes
