"""Outputs for readers that know nothing of gossamer: boxes and masks, computed inside the graph."""

from __future__ import annotations

from gossamer.predictions.anchors import AnchorSpec
from gossamer.predictions.boxes import Decoding
from gossamer.predictions.head import OutputHead


def with_decoded_outputs(graph: bytes, heads: tuple[OutputHead, ...], size: tuple[int, int]) -> bytes:
    """The ONNX model with a further output of each head: `detections` or `mask`, in pixels of the input of `size`.

    gossamer itself does not read them: it decodes in numpy, for the size of the original image.
    """
    if not any(head.kind in ("detect", "segment") for head in heads):
        return graph
    import onnx

    from gossamer.export.boxes import add_detections
    from gossamer.export.masks import add_mask

    proto = onnx.load_from_string(graph)
    for head in heads:
        if head.kind == "detect":
            spec, how = AnchorSpec.from_json(head.options["anchors"]), Decoding.from_json(head.options["decoding"])
            add_detections(proto, spec, how, head.name)
        elif head.kind == "segment":
            add_mask(proto, size, head.name)
    return bytes(proto.SerializeToString(deterministic=True))
