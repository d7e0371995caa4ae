"""A program as a Core ML package (ML Program, float32), with gossamer's metadata in its user-defined metadata."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gossamer.coreml.structure import Structure, check_structure
from gossamer.errors import InputError, MissingPackageError
from gossamer.host.notices import quiet
from gossamer.modelfile.metadata import ModelFile

if TYPE_CHECKING:
    import torch

PACKAGE, EXTRA = "coremltools", "coreml"
ENTRY, VERSION = "gossamer", 1  # the key of the user-defined metadata; of the entry
NOTICES = rb"\s*(Converting|Running) |\s*$"  # its progress bars
# they would write other weights than the program's, by folding an operation into them; a batch norm divides by sqrt(1 + 0.00001)
CHANGING = frozenset(
    f"common::fuse_{name}" for name in ("conv_scale", "conv_batchnorm", "linear_bias", "elementwise_to_batchnorm")
)


@dataclass(frozen=True)
class CoreMlPackage:
    """What was written. version: of coremltools. features: the names of the input and the outputs in the package."""

    version: str
    features: tuple[str, ...]
    structure: Structure


def import_package() -> ModuleType:
    """coremltools. Raises MissingPackageError."""
    try:
        with _quiet():
            import coremltools
    except ImportError as error:
        raise MissingPackageError(PACKAGE, EXTRA, "the format coreml") from error
    return coremltools  # type: ignore[no-any-return]


def write_package(file: ModelFile, place: Path) -> CoreMlPackage:
    """Write the package of an ONNX file as the folder `place`, NAME.mlpackage, and read it back to check its structure.

    Raises InputError that names the operator and the node which Core ML or the compile step lacks, VerificationError where the
    package has another structure or other weights than the program, MissingPackageError.
    """
    package = import_package()  # before the work
    import torch

    from gossamer.torch_program.module import module_of

    module = module_of(file)
    example = torch.zeros(1, *module.input_shape)
    with torch.no_grad():
        shapes = [list(one.shape) for one in module(example)]
    names = feature_names([file.onnx.input.name, *(one.name for one in module.program.outputs)])
    entry = {
        "version": VERSION,
        "verified": False,
        "input": {"feature": names[0], "shape": list(module.input_shape)},
        "outputs": [
            {"name": one.name, "feature": name, "shape": shape[1:]}
            for one, name, shape in zip(module.program.outputs, names[1:], shapes, strict=True)
        ],
        "metadata": None if file.metadata is None else file.metadata.to_json(),
    }
    made: list[Any] = []
    try:
        with _quiet():
            exported = exported_program(module, example)
            pipeline = package.PassPipeline.DEFAULT
            pipeline.remove_passes(CHANGING)
            model: Any = package.convert(
                exported,
                convert_to="mlprogram",
                compute_precision=package.precision.FLOAT32,  # float16 is its default
                minimum_deployment_target=package.target.iOS16,
                skip_model_load=True,
                pass_pipeline=pipeline,
            )
            made.append(model)
            spec = model.get_spec()
            features = [*spec.description.input, *spec.description.output]
            # through names that nothing has: one feature may have the name that another is to get
            for number, old in enumerate([one.name for one in features]):
                package.utils.rename_feature(spec, old, f"gossamer_{number}")
            for number, name in enumerate(names):
                package.utils.rename_feature(spec, f"gossamer_{number}", name)
            _describe(spec, file, json.dumps(entry, allow_nan=False))
            made.append(package.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True))
            made[-1].save(str(place))
    except Exception as error:  # torch and coremltools raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        do = "export to another format, or take that layer out of the network"
        raise InputError(
            f"{file.path}: coremltools {package.__version__}: {reason}", "operators that Core ML has", do
        ) from error
    finally:  # coremltools keeps a copy of each until the process ends, and for ever where that ends without atexit
        for one in made:
            if one.is_temp_package:
                shutil.rmtree(one.package_path, ignore_errors=True)
    with _quiet():
        structure = check_structure(package, place, module, list(zip(names, [list(example.shape), *shapes])))
    return CoreMlPackage(str(package.__version__), tuple(names), structure)


def exported_program(module: torch.nn.Module, example: torch.Tensor) -> torch.export.ExportedProgram:
    """The program that coremltools reads.

    A reciprocal is written as a division: coremltools 9.0 makes it 1 / (x + 0.0001).
    """
    import torch

    reciprocal = torch.ops.aten.reciprocal.default
    exported: torch.export.ExportedProgram = torch.export.export(module, (example,)).run_decompositions(
        {reciprocal: lambda x: torch.ones_like(x) / x}
    )
    return exported


def feature_names(names: list[str]) -> list[str]:
    """Names that Core ML takes: letters, digits and _, each once."""
    made: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
        plain = plain if re.match(r"[A-Za-z_]", plain) else f"_{plain}"
        number = 1
        unique = plain
        while unique in made:
            number += 1
            unique = f"{plain}_{number}"
        made.append(unique)
    return made


def _describe(spec: Any, file: ModelFile, entry: str) -> None:
    """What Xcode shows, and gossamer's entry."""
    about = spec.description.metadata
    about.userDefined[ENTRY] = entry
    about.shortDescription = "Written by gossamer on a machine without Core ML: not verified in its runtime."
    if file.metadata is not None:
        about.license = file.metadata.licence


def _quiet() -> AbstractContextManager[None]:
    """Its notices of versions that it was not tested with, and its progress bars, are left out."""
    return quiet(NOTICES)
