"""Boxes straight from the ONNX file: decoding and non-maximum suppression as its last operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gossamer.errors import InputError, MissingPackageError
from gossamer.predictions.anchors import AnchorSpec, anchors
from gossamer.predictions.boxes import LOG_LIMIT, Decoding

OUTPUT = "detections"
COLUMNS = 7  # image, class, score, x0, y0, x1, y1


def add_detections(proto: Any, spec: AnchorSpec, how: Decoding, head: str = "") -> None:
    """Give an ONNX model with a detector's outputs a further one, "detections": float32 (M, 7), in place.

    Its rows are the number of the image in the batch, the class, the score, and x0, y0, x1, y1 in input pixels: for each
    image what `gossamer.predictions.boxes.detections` gives of finite outputs, likeliest first, but for the order of equal
    scores and for boxes whose overlap is the limit to float32's rounding. head: name of the head, where the model has
    several. Raises InputError where the outputs are not those of `spec`, MissingPackageError.
    """
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError as error:
        raise MissingPackageError("onnx", "train", "adding detections to an ONNX model") from error
    prefix = f"{head}." if head else ""
    deltas, logits, name = prefix + "deltas", prefix + "logits", prefix + OUTPUT
    sides = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in proto.graph.output}
    expected = sides.get(deltas, [])[1:] == [spec.count, 4] and sides.get(logits, [])[1:2] == [spec.count]
    if not expected or name in sides:
        raise InputError(
            f"an ONNX model with the outputs {sides}",
            f"{deltas} (N, {spec.count}, 4), {logits} (N, {spec.count}, classes), no {name}",
            "export the detector again",
        )
    tail = _Tail(proto.graph, prefix + OUTPUT + "_")
    boxes = _boxes(tail, deltas, spec)
    scores = _scores(tail, logits, spec, how)
    classes = sides[logits][2] - (how.score == "softmax")
    _selected(tail, boxes, scores, how, spec.count, min(how.limit, classes * spec.count), name)
    proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, COLUMNS]))
    onnx.checker.check_model(proto, full_check=True)


class _Tail:
    """Operations behind the end of a graph; their values are called `prefix` and a number."""

    def __init__(self, graph: Any, prefix: str) -> None:
        self.graph, self.prefix, self.count = graph, prefix, 0

    def __call__(self, op: str, *inputs: Any, name: str = "", **attributes: Any) -> str:
        """The name of the result of `op`; inputs that are arrays become constants."""
        return self.several(op, 1, *inputs, names=[name] if name else [], **attributes)[0]

    def several(self, op: str, outputs: int, *inputs: Any, names: Sequence[str] = (), **attributes: Any) -> list[str]:
        """The names of the results of `op`."""
        from onnx import helper

        tensors = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        results = list(names) or [self._name() for _ in range(outputs)]
        node = helper.make_node(op, tensors, results, name=f"{self.prefix}{op}_{len(self.graph.node)}", **attributes)
        self.graph.node.append(node)
        return results

    def constant(self, value: Any) -> str:
        from onnx import numpy_helper

        name = self._name()
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _name(self) -> str:
        self.count += 1
        return f"{self.prefix}{self.count}"


def _int64(*values: int) -> Any:
    return np.array(values, np.int64)


def _boxes(tail: _Tail, deltas: str, spec: AnchorSpec) -> str:
    """(N, A, 4) x0, y0, x1, y1, as `gossamer.predictions.boxes.decode_boxes`."""
    centres, sides = anchors(spec)[:, :2], anchors(spec)[:, 2:]
    shift, growth = tail.several("Split", 2, deltas, _int64(2, 2), axis=2)
    shift = tail("Mul", tail("Mul", shift, np.float32(spec.variances[0])), sides)
    centre = tail("Add", shift, centres)
    growth = tail("Min", tail("Mul", growth, np.float32(spec.variances[1])), np.float32(LOG_LIMIT))
    half = tail("Div", tail("Mul", tail("Exp", growth), sides), np.float32(2))
    return tail("Concat", tail("Sub", centre, half), tail("Add", centre, half), axis=2)


def _scores(tail: _Tail, logits: str, spec: AnchorSpec, how: Decoding) -> str:
    """(N, K, A): the scores of the classes' best candidates, 0 elsewhere."""
    if how.score == "softmax":
        every = tail("Slice", tail("Softmax", logits, axis=2), _int64(1), _int64(1 << 31), _int64(2))
    else:
        every = tail("Sigmoid", logits)
    scores = tail("Transpose", every, perm=[0, 2, 1])
    if how.candidates >= spec.count:
        return scores
    best = tail.several("TopK", 2, scores, _int64(how.candidates), axis=2)[0]
    least = tail("Slice", best, _int64(how.candidates - 1), _int64(how.candidates), _int64(2))
    return tail("Where", tail("GreaterOrEqual", scores, least), scores, np.float32(0))


def _selected(tail: _Tail, boxes: str, scores: str, how: Decoding, places: int, limit: int, name: str) -> None:
    """(M, 7): what non-maximum suppression leaves, the best `limit` of each image.

    What is left stands in an array of all scores, 0 elsewhere, since there each image's best are found at once.
    """
    iou, threshold = np.array([how.iou], np.float32), np.array([how.threshold], np.float32)
    left = tail("NonMaxSuppression", boxes, scores, _int64(limit), iou, threshold)  # (m, 3): image, class, place
    nothing = tail("ConstantOfShape", tail("Shape", scores))
    dense = tail("ScatterND", nothing, left, tail("GatherND", scores, left))
    flat = tail("Reshape", dense, _int64(0, -1))
    values, index = tail.several("TopK", 2, flat, _int64(limit), axis=1)
    positive = tail("Transpose", tail("NonZero", tail("Greater", values, np.float32(0))), perm=[1, 0])  # image, rank
    image = tail("Slice", positive, _int64(0), _int64(1), _int64(1))
    chosen = tail("Unsqueeze", tail("GatherND", index, positive), _int64(1))
    label, place = tail("Div", chosen, _int64(places)), tail("Mod", chosen, _int64(places))
    corners = tail("GatherND", boxes, tail("Concat", image, place, axis=1))
    columns = [tail("Cast", image, to=1), tail("Cast", label, to=1)]  # 1 is float32
    score = tail("Unsqueeze", tail("GatherND", values, positive), _int64(1))
    tail("Concat", *columns, score, corners, axis=1, name=name)
