"""The tables of a .tflite file and of LiteRT's own metadata by their field numbers, and their bytes.

Source: the public FlatBuffers schemas of TensorFlow Lite, version 3 (`schema.fbs`), and of its metadata
(`metadata_schema.fbs`); only the fields that are written here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gossamer.errors import InputError, MissingPackageError

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
BUFFER_ALIGNMENT = 16  # bytes, of the numbers of a tensor
MOST_BYTES = 2**31 - 2**20  # FlatBuffers' offsets are 32 bits, with a sign
WIDTHS = {"[Int32]": 4, "[Int64]": 8, "[Float32]": 4}  # vectors of numbers, bytes of each

# table -> field -> (number, type); [type] is a vector, "table" any of these tables, "bytes" an aligned vector of uint8
FIELDS: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {
        "version": (0, "Uint32"),
        "operator_codes": (1, "[table]"),
        "subgraphs": (2, "[table]"),
        "description": (3, "string"),
        "buffers": (4, "[table]"),
        "metadata": (6, "[table]"),
        "signature_defs": (7, "[table]"),
    },
    "OperatorCode": {"deprecated_builtin_code": (0, "Int8"), "version": (2, "Int32"), "builtin_code": (3, "Int32")},
    "SubGraph": {
        "tensors": (0, "[table]"),
        "inputs": (1, "[Int32]"),
        "outputs": (2, "[Int32]"),
        "operators": (3, "[table]"),
        "name": (4, "string"),
    },
    "Tensor": {
        "shape": (0, "[Int32]"),
        "type": (1, "Int8"),
        "buffer": (2, "Uint32"),
        "name": (3, "string"),
        "quantization": (4, "table"),
    },
    "QuantizationParameters": {
        "scale": (2, "[Float32]"),
        "zero_point": (3, "[Int64]"),
        "quantized_dimension": (6, "Int32"),
    },
    "Operator": {
        "opcode_index": (0, "Uint32"),
        "inputs": (1, "[Int32]"),
        "outputs": (2, "[Int32]"),
        "builtin_options_type": (3, "Uint8"),
        "builtin_options": (4, "table"),
    },
    "Buffer": {"data": (0, "bytes")},
    "Metadata": {"name": (0, "string"), "buffer": (1, "Uint32")},
    "SignatureDef": {
        "inputs": (0, "[table]"),
        "outputs": (1, "[table]"),
        "signature_key": (2, "string"),
        "subgraph_index": (4, "Uint32"),
    },
    "TensorMap": {"name": (0, "string"), "tensor_index": (1, "Uint32")},
    "Conv2DOptions": {
        "padding": (0, "Int8"),
        "stride_w": (1, "Int32"),
        "stride_h": (2, "Int32"),
        "activation": (3, "Int8"),
        "dilation_w": (4, "Int32"),
        "dilation_h": (5, "Int32"),
    },
    "DepthwiseConv2DOptions": {
        "padding": (0, "Int8"),
        "stride_w": (1, "Int32"),
        "stride_h": (2, "Int32"),
        "depth_multiplier": (3, "Int32"),
        "activation": (4, "Int8"),
        "dilation_w": (5, "Int32"),
        "dilation_h": (6, "Int32"),
    },
    "Pool2DOptions": {
        "padding": (0, "Int8"),
        "stride_w": (1, "Int32"),
        "stride_h": (2, "Int32"),
        "filter_width": (3, "Int32"),
        "filter_height": (4, "Int32"),
    },
    "FullyConnectedOptions": {"activation": (0, "Int8"), "keep_num_dims": (2, "Bool")},
    "SoftmaxOptions": {"beta": (0, "Float32")},
    "ConcatenationOptions": {"axis": (0, "Int32")},
    "AddOptions": {"activation": (0, "Int8")},
    "MulOptions": {"activation": (0, "Int8")},
    "DivOptions": {},
    "ReshapeOptions": {"new_shape": (0, "[Int32]")},
    "ResizeBilinearOptions": {"align_corners": (2, "Bool"), "half_pixel_centers": (3, "Bool")},
    "ResizeNearestNeighborOptions": {"align_corners": (0, "Bool"), "half_pixel_centers": (1, "Bool")},
    "ReducerOptions": {"keep_dims": (0, "Bool")},
    "LeakyReluOptions": {"alpha": (0, "Float32")},
    "GatherOptions": {"axis": (0, "Int32")},
    "DepthToSpaceOptions": {"block_size": (0, "Int32")},
    "PadOptions": {},
    "PadV2Options": {},
    "TransposeOptions": {},
    "SliceOptions": {},
    "MaximumMinimumOptions": {},
    "HardSwishOptions": {},
    # of the metadata; of a union the first field is the table's number in it
    "ModelMetadata": {
        "name": (0, "string"),
        "description": (1, "string"),
        "subgraph_metadata": (3, "[table]"),
        "license": (5, "string"),
        "min_parser_version": (7, "string"),
    },
    "SubGraphMetadata": {
        "input_tensor_metadata": (2, "[table]"),
        "output_tensor_metadata": (3, "[table]"),
    },
    "TensorMetadata": {
        "name": (0, "string"),
        "description": (1, "string"),
        "content": (3, "table"),
        "process_units": (4, "[table]"),
        "stats": (5, "table"),
        "associated_files": (6, "[table]"),
    },
    "AssociatedFile": {"name": (0, "string"), "description": (1, "string"), "type": (2, "Int8")},
    "Content": {"content_properties_type": (0, "Uint8"), "content_properties": (1, "table")},
    "FeatureProperties": {},
    "ImageProperties": {"color_space": (0, "Int8"), "default_size": (1, "table")},
    "ImageSize": {"width": (0, "Uint32"), "height": (1, "Uint32")},
    "ProcessUnit": {"options_type": (0, "Uint8"), "options": (1, "table")},
    "NormalizationOptions": {"mean": (0, "[Float32]"), "std": (1, "[Float32]")},
    "Stats": {"max": (0, "[Float32]"), "min": (1, "[Float32]")},
}
# an options table -> its number in the union BuiltinOptions
OPTIONS = {
    "Conv2DOptions": 1,
    "DepthwiseConv2DOptions": 2,
    "Pool2DOptions": 5,
    "FullyConnectedOptions": 8,
    "SoftmaxOptions": 9,
    "ConcatenationOptions": 10,
    "AddOptions": 11,
    "ResizeBilinearOptions": 15,
    "ReshapeOptions": 17,
    "MulOptions": 21,
    "PadOptions": 22,
    "GatherOptions": 23,
    "TransposeOptions": 26,
    "ReducerOptions": 27,
    "DivOptions": 29,
    "MaximumMinimumOptions": 39,
    "PadV2Options": 43,
    "SliceOptions": 48,
    "ResizeNearestNeighborOptions": 74,
    "LeakyReluOptions": 75,
    "HardSwishOptions": 91,
    "DepthToSpaceOptions": 94,
}
# an operator -> its number in BuiltinOperator, and its options table, "" where it has none
OPERATORS: dict[str, tuple[int, str]] = {
    "ADD": (0, "AddOptions"),
    "AVERAGE_POOL_2D": (1, "Pool2DOptions"),
    "CONCATENATION": (2, "ConcatenationOptions"),
    "CONV_2D": (3, "Conv2DOptions"),
    "DEPTHWISE_CONV_2D": (4, "DepthwiseConv2DOptions"),
    "DEPTH_TO_SPACE": (5, "DepthToSpaceOptions"),
    "DEQUANTIZE": (6, ""),
    "FULLY_CONNECTED": (9, "FullyConnectedOptions"),
    "LOGISTIC": (14, ""),
    "MAX_POOL_2D": (17, "Pool2DOptions"),
    "MUL": (18, "MulOptions"),
    "RELU": (19, ""),
    "RELU_N1_TO_1": (20, ""),
    "RELU6": (21, ""),
    "RESHAPE": (22, "ReshapeOptions"),
    "RESIZE_BILINEAR": (23, "ResizeBilinearOptions"),
    "SOFTMAX": (25, "SoftmaxOptions"),
    "TANH": (28, ""),
    "PAD": (34, "PadOptions"),
    "GATHER": (36, "GatherOptions"),
    "TRANSPOSE": (39, "TransposeOptions"),
    "MEAN": (40, "ReducerOptions"),
    "DIV": (42, "DivOptions"),
    "EXP": (47, ""),
    "MAXIMUM": (55, "MaximumMinimumOptions"),
    "MINIMUM": (57, "MaximumMinimumOptions"),
    "PADV2": (60, "PadV2Options"),
    "SLICE": (65, "SliceOptions"),
    "LOG": (73, ""),
    "RESIZE_NEAREST_NEIGHBOR": (97, "ResizeNearestNeighborOptions"),
    "LEAKY_RELU": (98, "LeakyReluOptions"),
    "ABS": (101, ""),
    "QUANTIZE": (114, ""),
    "HARD_SWISH": (117, "HardSwishOptions"),
}


@dataclass(frozen=True)
class Table:
    """A table of the schema and the fields that are set: numbers, texts, bytes, tables, or lists of them."""

    kind: str
    fields: dict[str, Any]


def table(kind: str, **fields: Any) -> Table:
    """A table, whose fields the schema must know."""
    unknown = fields.keys() - FIELDS[kind].keys()
    if unknown:
        raise KeyError(f"{kind} has no {', '.join(sorted(unknown))}")
    return Table(kind, fields)


def encode(root: Table, identifier: bytes = IDENTIFIER) -> bytes:
    """The bytes of a file that begins with this identifier. Raises InputError where they would be more than FlatBuffers can hold, MissingPackageError."""
    try:
        import flatbuffers
    except ImportError as error:
        raise MissingPackageError("flatbuffers", "litert", "exporting to LiteRT") from error
    size = sum(len(one.fields.get("data", b"")) for one in root.fields.get("buffers", ()))
    if size > MOST_BYTES:
        raise InputError(f"weights of {size} bytes", f"at most {MOST_BYTES} in a .tflite file", "use a smaller network")
    builder = flatbuffers.Builder(size + 2**16)
    builder.Finish(_table(builder, root), file_identifier=identifier)
    return bytes(builder.Output())


def _table(builder: Any, one: Table) -> int:
    known = FIELDS[one.kind]
    # what a table points to must be there before it
    values = {name: _child(builder, known[name][1], value) for name, value in one.fields.items()}
    builder.StartObject(max((number for number, _ in known.values()), default=0) + 1)
    for name, value in values.items():
        number, kind = known[name]
        if kind in ("table", "string", "bytes") or kind.startswith("["):
            builder.PrependUOffsetTRelativeSlot(number, value, 0)
        else:  # written even where it is the schema's default, so that no default is needed here
            getattr(builder, f"Prepend{kind}")(value)
            builder.Slot(number)
    return int(builder.EndObject())


def _child(builder: Any, kind: str, value: Any) -> Any:
    """A number as it is; of all else the offset at which it has been written."""
    if kind == "table":
        return _table(builder, value)
    if kind == "string":
        return builder.CreateString(value)
    if kind == "bytes":
        builder.StartVector(1, len(value), BUFFER_ALIGNMENT)
        builder.head -= len(value)
        builder.Bytes[builder.head : builder.head + len(value)] = value
        return builder.EndVector()
    if kind == "[table]":
        offsets = [_table(builder, item) for item in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    if kind in WIDTHS:
        builder.StartVector(WIDTHS[kind], len(value), WIDTHS[kind])
        for number in reversed(value):
            getattr(builder, f"Prepend{kind[1:-1]}")(number)
        return builder.EndVector()
    return value
