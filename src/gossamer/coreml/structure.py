"""The structure of a Core ML package beside the program that it was made of: where it cannot be run, this is all that can be checked."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import VerificationError

if TYPE_CHECKING:
    from gossamer.torch_program.module import ProgramModule

FLOAT32 = 65568  # of a feature: FeatureTypes.proto, ArrayFeatureType.ArrayDataType
MIL_FLOAT32 = 11  # of a constant: MIL.proto, DataType
LAYERS = ("conv", "linear")  # operators with weights
POOLS = ("max_pool", "avg_pool")


@dataclass(frozen=True)
class Structure:
    """operations: of the package, without constants. layers: convolutions and fully connected layers. weights: numbers that are the
    program's, bit for bit.
    """

    operations: int
    layers: int
    weights: int


def check_structure(
    package: Any, place: Path, module: ProgramModule, features: list[tuple[str, list[int]]]
) -> Structure:
    """Compare a package with its program; features: names and shapes of the input and the outputs.

    Raises VerificationError where the input, the outputs, their shapes and types, the number of layers or pools, or a weight differ.
    """
    spec = package.models.MLModel(str(place), skip_model_load=True).get_spec()
    there = [
        (one.name, list(one.type.multiArrayType.shape), one.type.multiArrayType.dataType)
        for one in (*spec.description.input, *spec.description.output)
    ]
    wanted = [(name, shape, FLOAT32) for name, shape in features]
    if there != wanted:
        raise VerificationError(f"{place.name}: features {str(there)[:200]}, not {str(wanted)[:200]}; please report it")
    function = spec.mlProgram.functions["main"]
    operations = function.block_specializations[function.opset].operations
    kinds = Counter(one.type for one in operations)
    expected = Counter(one.kind for one in module.program.operations)
    layers, pools = (sum(kinds[kind] for kind in names) for names in (LAYERS, POOLS))
    for what, count, right in (
        ("layers", layers, expected["conv"] + expected["block"]),
        ("pools", pools, expected["max_pool"] + expected["average_pool"]),
    ):
        if count != right:
            raise VerificationError(f"{place.name}: {count} {what}, not {right} as the program; please report it")
    values = {one.tobytes() for one in _constants(package, place, operations)}
    numbers = 0
    for parameter in module.constants:
        flat = parameter.detach().numpy().reshape(-1)
        if flat.astype("<f4").tobytes() not in values and flat.any():
            raise VerificationError(
                f"{place.name}: weights of the program ({flat.size} numbers) are not in it; please report it"
            )
        numbers += flat.size
    count = sum(kinds.values()) - kinds["const"]
    return Structure(count, layers, numbers)


def _constants(package: Any, place: Path, operations: Any) -> list[NDArray[np.float32]]:
    """The float32 constants of a package as rows of numbers."""
    from coremltools.libmilstoragepython import _BlobStorageReader

    found: list[NDArray[np.float32]] = []
    readers: dict[str, Any] = {}
    for one in operations:
        if one.type != "const":
            continue
        value = one.attributes["val"]
        if value.type.tensorType.dataType != MIL_FLOAT32:
            continue
        count = math.prod(side.constant.size for side in value.type.tensorType.dimensions)
        if value.WhichOneof("value") == "blobFileValue":
            name = value.blobFileValue.fileName.rpartition("/")[2]
            file = place / "Data" / "com.apple.CoreML" / "weights" / name
            reader = readers.setdefault(name, _BlobStorageReader(str(file)))
            row = np.asarray(reader.read_float_data(value.blobFileValue.offset), "<f4").reshape(-1)
        else:
            row = np.array(value.immediateValue.tensor.floats.values, "<f4")
        if row.size == count:
            found.append(row)
    return found
