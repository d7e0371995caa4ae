"""LiteRT's own metadata of a file, which its tools show and its task library reads: normalisation, image, files of labels.

Source: `metadata_schema.fbs` of tflite-support; the files of labels are a ZIP archive behind the FlatBuffers.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

from gossamer.compile.program import ProgramOutput
from gossamer.images.preprocess import Preprocess
from gossamer.litert.flat import Table, encode, table
from gossamer.modelfile.metadata import ModelMetadata
from gossamer.predictions.head import OutputHead

TOOL_ENTRY, TOOL_IDENTIFIER = "TFLITE_METADATA", b"M001"
PARSER = "1.0.0"  # of the schema's version that has these fields
FEATURES, IMAGE = 1, 2  # of the union ContentProperties
NORMALISATION = 1  # of the union ProcessUnitOptions
AXIS_LABELS = 2  # of AssociatedFileType
COLOURS = {3: 1, 1: 2}  # channels -> ColorSpaceType: RGB, GRAYSCALE
PIXEL = 255
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the same model gives the same bytes
# what the numbers of an output are, kind -> output -> a line
MEANING = {
    "classify": "a score per class, before softmax",
    "multilabel": "a score per class, before sigmoid",
    "regress": "a number per name",
    "detect": "offsets of boxes, and scores before softmax, per anchor",
    "segment": "a score per class and position, before softmax",
    "embed": "an embedding",
}


def tool_metadata(metadata: ModelMetadata, outputs: Sequence[ProgramOutput]) -> tuple[bytes, dict[str, bytes]]:
    """The buffer of the metadata, and the files of labels by their names. Raises MissingPackageError."""
    heads = _readers(metadata, outputs)
    files: dict[str, bytes] = {}
    described = []
    for place, one in enumerate(outputs):
        head = heads.get(one.name)
        content = table("Content", content_properties_type=FEATURES, content_properties=table("FeatureProperties"))
        about: dict[str, object] = {"name": one.name, "content": content}
        if head is not None:
            about["description"] = MEANING[head.kind]
            axis = 0  # of the classes
            if head.kind == "detect":
                axis = -1 if one.name == head.outputs[-1] else len(one.shape)  # offsets have none
            if one.shape[axis : axis + 1 or None] == (len(head.classes),):
                name = "labels.txt" if len(metadata.heads) == 1 else f"labels-{place}.txt"
                files[name] = "".join(f"{label}\n" for label in head.classes).encode()
                labels = "a name per line, in the order of the outputs"
                about["associated_files"] = [table("AssociatedFile", name=name, description=labels, type=AXIS_LABELS)]
        described.append(table("TensorMetadata", **about))
    graph = table(
        "SubGraphMetadata", input_tensor_metadata=[_input(metadata.preprocess)], output_tensor_metadata=described
    )
    kinds = ", ".join(head.kind for head in metadata.heads)
    whole = table(
        "ModelMetadata",
        name=f"gossamer: {kinds}",
        description="Written by gossamer export; its own metadata are the entry gossamer.",
        subgraph_metadata=[graph],
        license=metadata.licence,
        min_parser_version=PARSER,
    )
    return encode(whole, TOOL_IDENTIFIER), files


def _readers(metadata: ModelMetadata, outputs: Sequence[ProgramOutput]) -> dict[str, OutputHead]:
    """The head that reads each output."""
    if metadata.format == 1:
        return {outputs[0].name: metadata.heads[0]}
    return {name: head for head in metadata.heads for name in head.outputs}


def _input(preprocess: Preprocess) -> Table:
    """The image: how large, of which colours, and (pixel - mean) / std of pixels from 0 to 255."""
    height, width = preprocess.size
    mean, std = ([PIXEL * float(one) for one in row] for row in (preprocess.mean, preprocess.std))
    image = table(
        "ImageProperties",
        color_space=COLOURS.get(preprocess.channels, 0),
        default_size=table("ImageSize", width=width, height=height),
    )
    limits = [[(end - m) / s for m, s in zip(mean, std)] for end in (PIXEL, 0)]
    normalisation = table("NormalizationOptions", mean=mean, std=std)
    return table(
        "TensorMetadata",
        name="image",
        description=f"an image resized to {height} x {width} ({preprocess.resize}, {preprocess.interpolation}), normalised",
        content=table("Content", content_properties_type=IMAGE, content_properties=image),
        process_units=[table("ProcessUnit", options_type=NORMALISATION, options=normalisation)],
        stats=table("Stats", max=limits[0], min=limits[1]),
    )


def with_files(data: bytes, files: dict[str, bytes]) -> bytes:
    """A file with others in a ZIP archive behind it, stored as they are."""
    if not files:
        return data
    whole = io.BytesIO(data)
    with zipfile.ZipFile(whole, "a") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), content)
    return whole.getvalue()
