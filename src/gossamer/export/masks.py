"""Masks straight from the ONNX file: up-sampling and the likeliest class as its last operations."""

from __future__ import annotations

from typing import Any

from gossamer.answers.masks import check_classes
from gossamer.errors import InputError, MissingPackageError

LOGITS, MASK = "logits", "mask"


def add_mask(proto: Any, size: tuple[int, int]) -> None:
    """Give an ONNX model with the output "logits" (N, K, h, w) a further one, "mask": uint8 (N, H, W), size (H, W).

    It holds what `gossamer.answers.masks.mask_of` gives of the logits at the input's size, but for pixels where two
    classes agree to float32's rounding. Raises InputError, SettingsError for more than 255 classes,
    MissingPackageError.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise MissingPackageError("onnx", "train", "adding a mask to an ONNX model") from error
    import numpy as np

    graph = proto.graph
    logits = next((value for value in graph.output if value.name == LOGITS), None)
    axes = list(logits.type.tensor_type.shape.dim) if logits is not None else []
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if len(axes) != 4 or opset < 18 or any(value.name == MASK for value in graph.output):
        raise InputError(
            f"an ONNX model of operator set {opset} with the outputs {', '.join(value.name for value in graph.output)}",
            f"operator set 18 or later, an output {LOGITS!r} of 4 axes, none called {MASK!r}",
            "export the segmentation network again",
        )
    check_classes(axes[1].dim_value)
    graph.initializer.append(numpy_helper.from_array(np.array(size, np.int64), "mask_size"))
    resize = helper.make_node(
        "Resize",
        [LOGITS, "", "", "mask_size"],
        ["mask_logits"],
        name="mask_resize",
        mode="linear",
        coordinate_transformation_mode="half_pixel",
        axes=[2, 3],
    )
    argmax = helper.make_node("ArgMax", ["mask_logits"], ["mask_class"], name="mask_argmax", axis=1, keepdims=0)
    cast = helper.make_node("Cast", ["mask_class"], [MASK], name="mask_cast", to=TensorProto.UINT8)
    graph.node.extend([resize, argmax, cast])
    batch = axes[0].dim_param or axes[0].dim_value or None
    graph.output.append(helper.make_tensor_value_info(MASK, TensorProto.UINT8, [batch, *size]))
    onnx.checker.check_model(proto, full_check=True)
