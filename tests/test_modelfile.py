"""The model file: FORMAT.md rule by rule, and whatever bytes a file may hold."""

from __future__ import annotations

import importlib.util
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gossamer import runtime
from gossamer.errors import ModelFileError, StorageError
from gossamer.host.storage import write_bytes
from gossamer.images.preprocess import Preprocess
from gossamer.modelfile import protobuf
from gossamer.modelfile.metadata import (
    METADATA_KEYS,
    RULES,
    CheckImage,
    CheckInput,
    ModelMetadata,
    model_file_bytes,
    parse_model_file,
    read_model_file,
    without_metadata,
)
from gossamer.modelfile.onnx import MESSAGES, OnnxValue
from gossamer.predictions.head import OutputHead
from gossamer.runtime.model import open_model
from tests.hostile import make_models as make

FOLDER = Path(__file__).parent / "hostile" / "models"
GOOD = (FOLDER / "good.onnx").read_bytes()
PLAIN = (FOLDER / "plain.onnx").read_bytes()


def refused(rule: int) -> None:
    """Every hostile file of a rule is refused by that rule, in one line that names the file."""
    files = sorted(FOLDER.glob(f"{rule:02}_*.onnx"))
    assert files
    for path in files:
        with pytest.raises(ModelFileError) as caught:
            runtime.load(path, runtime="reference")
        assert caught.value.rule == rule, f"{path.name}: {caught.value}"
        assert path.name in str(caught.value) and "\n" not in str(caught.value)
        assert caught.value.allowed == RULES[rule]


def test_rule_01_a_file_can_be_read(tmp_path: Path) -> None:
    refused(1)
    for path in (tmp_path, tmp_path / "none.onnx", "a\0b"):
        with pytest.raises(ModelFileError, match=r"\(rule 1\)"):
            read_model_file(path)


def test_rule_01_a_file_over_2_gib_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)  # sparse: takes no room
    with pytest.raises(ModelFileError, match=r"2147483648 bytes \(rule 1\)"):
        read_model_file(path)


def test_rule_02_protobuf_is_well_formed() -> None:
    refused(2)


def test_rule_02_the_number_of_fields_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    parse_model_file(PLAIN)
    monkeypatch.setattr(protobuf, "FIELD_LIMIT", 50)
    with pytest.raises(ModelFileError, match="more than 50 fields"):
        parse_model_file(PLAIN)


def test_rule_03_it_is_an_onnx_model() -> None:
    refused(3)


def test_rule_04_no_tensor_is_in_another_file() -> None:
    refused(4)


def test_rule_05_tensors_have_the_size_of_their_shape() -> None:
    refused(5)


def test_rule_06_values_are_computed_once_before_their_use() -> None:
    refused(6)


def test_rule_07_one_input_and_known_outputs() -> None:
    refused(7)


def test_rule_08_the_runtime_knows_the_operators() -> None:
    refused(8)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("file", ["08_unknown_operator", "08_foreign_domain"])
def test_rule_08_holds_for_installed_runtimes_too(name: str, file: str) -> None:
    if importlib.util.find_spec(name) is None:  # not importorskip: importing openvino itself would send telemetry
        pytest.skip(f"{name} is not installed")
    with pytest.raises(ModelFileError) as caught:
        runtime.load(FOLDER / f"{file}.onnx", runtime=name)
    assert caught.value.rule == 8 and "\n" not in str(caught.value)


def test_rule_09_entries_stand_there_once() -> None:
    refused(9)


@pytest.mark.parametrize("key", METADATA_KEYS[1])
def test_rule_09_no_entry_may_be_missing(key: str) -> None:
    with pytest.raises(ModelFileError, match=rf"gossamer\.{key} \(rule 9\)"):
        parse_model_file(make.file(without=key))


def test_rule_10_the_digest_is_last_and_right() -> None:
    refused(10)


@settings(max_examples=60)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_rule_10_no_changed_byte_goes_unnoticed(at: int, change: int) -> None:
    data = bytearray(GOOD)
    data[at] ^= change
    with pytest.raises(ModelFileError):
        parse_model_file(bytes(data))


def test_rule_11_other_formats_are_refused() -> None:
    refused(11)


def test_rule_12_values_are_json() -> None:
    refused(12)


def test_rule_13_the_task_is_known() -> None:
    refused(13)


def test_rule_14_the_preprocessing_makes_the_input() -> None:
    refused(14)


def test_rule_15_every_output_has_a_name() -> None:
    refused(15)


def test_rule_16_licence_and_provenance() -> None:
    refused(16)


def test_rule_17_the_operator_set_is_17_or_later() -> None:
    refused(17)


def test_rule_18_check_inputs() -> None:
    refused(18)


def test_rule_19_check_images() -> None:
    refused(19)


def test_rule_20_the_tolerance_makes_sense() -> None:
    refused(20)


def test_each_rule_has_its_text_its_test_and_its_hostile_file() -> None:
    text = (Path(__file__).parents[1] / "FORMAT.md").read_text()
    written = {int(number) for number in re.findall(r"^(\d+)\. ", text, re.MULTILINE)}
    tested = {int(number) for number in re.findall(r"^def test_rule_(\d\d)_", Path(__file__).read_text(), re.MULTILINE)}
    hostile = {int(path.stem[:2]) for path in FOLDER.glob("[0-9]*.onnx")}
    assert written == tested == hostile == set(RULES)
    for key in (*METADATA_KEYS[1], "format", "sha256"):
        assert f"| `gossamer.{key}` |" in text


def test_the_hostile_files_are_what_the_script_makes() -> None:
    assert {path.stem: path.read_bytes() for path in FOLDER.glob("*.onnx")} == make.MODELS


# reading


def test_a_good_file_reads_as_it_was_written() -> None:
    file = parse_model_file(GOOD)
    assert file.metadata is not None
    assert (file.metadata.heads, file.metadata.licence) == ((OutputHead("classify", ("cat", "dog")),), "Apache-2.0")
    assert file.metadata.preprocess == Preprocess.from_json(make.PREPROCESS)
    assert file.metadata.tolerance == 0.0001 and file.metadata.provenance == {"made by": "hand"}
    np.testing.assert_array_equal(file.metadata.checks[1].pixels, make.pixels_of(2))
    np.testing.assert_array_equal(file.metadata.checks[1].outputs, make.outputs_of(make.pixels_of(2)))
    np.testing.assert_array_equal(file.metadata.images[0].pixels, make.pixels_of(3))
    assert (file.onnx.ir_version, file.onnx.opset, file.onnx.producer) == (8, 18, "hand")
    assert file.onnx.input == OnnxValue("input", 1, ("batch", 3, 8, 8))
    assert [node.op for node in file.onnx.nodes] == ["GlobalAveragePool", "Flatten", "Gemm"]
    np.testing.assert_array_equal(file.onnx.tensors["w"], make.WEIGHTS)


def test_a_plain_onnx_file_has_no_card() -> None:
    assert parse_model_file(PLAIN).metadata is None


TYPED: list[tuple[int, Any]] = [
    (1, np.array([[1.5, -2.25, 3e-40]], np.float32)),
    (2, np.array([0, 200, 255], np.uint8)),
    (3, np.array([-128, 0, 127], np.int8)),
    (4, np.array([0, 65535], np.uint16)),
    (5, np.array([-32768, 32767], np.int16)),
    (6, np.array([[-(2**31)], [2**31 - 1]], np.int32)),
    (7, np.array([-(2**63), 2**63 - 1, 5], np.int64)),
    (
        9,
        np.array([True, False]),
    ),
    (10, np.array([0.5, -65504.0], np.float16)),
    (11, np.array([1e300, -0.1], np.float64)),
    (12, np.array([2**32 - 1], np.uint32)),
    (13, np.array([2**64 - 1, 1], np.uint64)),
]


@pytest.mark.parametrize("kind,values", TYPED)
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_tensors_read_as_the_onnx_package_reads_them(kind: int, values: Any, raw: bool) -> None:
    onnx = pytest.importorskip("onnx")
    flat = values.tobytes() if raw else values.ravel().tolist()
    model = onnx.load_from_string(PLAIN)
    model.graph.initializer.append(onnx.helper.make_tensor("t", kind, values.shape, flat, raw=raw))
    tensor = parse_model_file(model.SerializeToString()).onnx.tensors["t"]
    assert tensor is not None and tensor.dtype == values.dtype
    np.testing.assert_array_equal(tensor, onnx.numpy_helper.to_array(model.graph.initializer[-1]))
    np.testing.assert_array_equal(tensor, values)


def test_a_tensor_type_that_numpy_lacks_is_left_to_the_runtimes() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(PLAIN)
    model.graph.initializer.append(onnx.helper.make_tensor("t", onnx.TensorProto.BFLOAT16, [2], [1.0, 2.0]))
    data = model.SerializeToString()
    assert parse_model_file(data).onnx.tensors["t"] is None


def test_attributes_read_as_the_onnx_package_writes_them() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(PLAIN)
    wanted = {"i": -3, "f": 0.25, "s": b"text", "ints": [1, -2, 3], "floats": [0.5, -1.5], "strings": [b"a", b"bc"]}
    model.graph.node[0].attribute.extend(onnx.helper.make_attribute(name, value) for name, value in wanted.items())
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("t", onnx.numpy_helper.from_array(make.BIAS)))
    attributes = parse_model_file(model.SerializeToString()).onnx.nodes[0].attributes
    np.testing.assert_array_equal(attributes.pop("t"), make.BIAS)
    assert attributes == wanted


@given(st.integers(0, 2**64 - 1), st.binary(max_size=5))
def test_numbers_of_any_length_read_back(number: int, rest: bytes) -> None:
    data = make.varint(number)
    assert protobuf.varint(memoryview(data + rest), 0) == (number, len(data))


# writing


def metadata(**changes: Any) -> ModelMetadata:
    good = parse_model_file(GOOD).metadata
    assert good is not None
    return replace(good, **changes)


def test_written_metadata_read_back_equal(tmp_path: Path) -> None:
    names = ("Katze 🐈", 'quote " and \\ slash')
    wanted = metadata(
        heads=(OutputHead("classify", names),),
        provenance={"metrics": {"accuracy": 0.123456789012345}, "list": [1, None, True]},
    )
    write_bytes(tmp_path / "m.onnx", model_file_bytes(PLAIN, wanted))
    back = read_model_file(tmp_path / "m.onnx").metadata
    assert back is not None and back.to_json() == wanted.to_json() and back.classes == names


def test_grey_pixels_keep_their_channel_axis() -> None:
    body = make.model(
        make.graph(
            inputs=(make.value_info("input", ["batch", 1, 8, 8]),),
            tensors=(make.tensor("w", make.WEIGHTS[:, :1]), make.TENSORS[1]),
        )
    )
    preprocess = Preprocess(size=(8, 8), channels=1, mean=(0.5,), std=(0.25,))
    pixels = make.pixels_of(5)[:, :, :1]
    check = CheckInput(pixels, np.array([1, 2], np.float32))
    image = CheckImage("grey", make.png(pixels), pixels)
    data = model_file_bytes(body, metadata(preprocess=preprocess, checks=(check,), images=(image,)))
    back = parse_model_file(data).metadata
    assert back is not None and back.checks[0].pixels.shape == (8, 8, 1)
    np.testing.assert_array_equal(back.checks[0].pixels, pixels)


def test_new_metadata_replace_the_old_and_leave_the_rest_byte_for_byte() -> None:
    plain = PLAIN + make.entry("author", "someone")
    once = model_file_bytes(plain, metadata(licence="MIT"))
    twice = model_file_bytes(once, metadata())
    assert twice == model_file_bytes(plain, metadata())
    assert twice.startswith(plain) and without_metadata(twice) == plain
    assert dict(parse_model_file(twice).onnx.metadata)["author"] == "someone"


def test_a_card_that_breaks_a_rule_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for changes, rule in [
        ({"heads": (OutputHead("classify", ("one",)),)}, 15),
        ({"heads": (OutputHead("embed"),)}, 15),
        ({"heads": (OutputHead("multilabel", ("one", "two")),)}, 13),
        ({"provenance": {"loss": float("nan")}}, 12),
        ({"provenance": {"loss": object()}}, 12),
        ({"checks": ()}, 18),
        ({"tolerance": 0.0}, 20),
    ]:
        with pytest.raises(ModelFileError) as caught:
            write_bytes(path, model_file_bytes(PLAIN, metadata(**changes)))
        assert caught.value.rule == rule
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="could not be written"):
        write_bytes(tmp_path / "file" / "m.onnx", model_file_bytes(PLAIN, metadata()))


def test_the_onnx_package_accepts_what_is_written_and_sees_the_entries(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    write_bytes(tmp_path / "m.onnx", model_file_bytes(PLAIN, metadata()))
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    model = onnx.load(tmp_path / "m.onnx")
    entries = {item.key: item.value for item in model.metadata_props}
    assert model.metadata_props[-1].key == "gossamer.sha256"
    assert json.loads(entries["gossamer.classes"]) == ["cat", "dog"]


def test_a_file_that_another_tool_has_rewritten_is_refused() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(io.BytesIO(GOOD))
    model.graph.node[0].doc_string = "touched"
    with pytest.raises(ModelFileError, match=r"\(rule 10\)"):
        parse_model_file(model.SerializeToString())


# whatever the bytes


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with bytes changed, removed, doubled, inserted or cut off."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 16))
        kind = draw(st.sampled_from(["change", "number", "remove", "double", "insert", "cut"]))
        if kind == "change":
            data[at : at + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == "number":
            data[at : at + 1] = make.varint(draw(st.sampled_from([0, 1, 127, 2**31 - 1, 2**32, 2**63, 2**64 - 1])))
        elif kind == "remove":
            del data[at : at + length]
        elif kind == "double":
            data[at:at] = data[at : at + 8 * length]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=length))
        else:
            del data[at:]
    return bytes(data)


def accept_or_refuse(data: bytes) -> None:
    """Reading and running raise nothing but ModelFileError."""
    try:
        file = parse_model_file(data)
        model = open_model(file, "reference")
        if all(isinstance(side, str) or side in (3, 8, 1) for side in model.input_shape):
            model.run(np.ones([2 if isinstance(side, str) else side or 1 for side in model.input_shape], np.float32))
    except ModelFileError as error:
        assert error.rule in RULES and "\n" not in str(error)


@settings(max_examples=400)
@given(mutated(PLAIN))
@example(b"")
def test_a_mutated_graph_is_read_or_refused(data: bytes) -> None:
    accept_or_refuse(data)


@settings(max_examples=300)
@given(mutated(GOOD[: -len(make.entry("gossamer.sha256", "0" * 64))]))
def test_a_mutated_file_with_its_digest_is_read_or_refused(body: bytes) -> None:
    accept_or_refuse(make.with_digest(body))


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    accept_or_refuse(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary().map(make.text64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PLACES = st.sampled_from(
    [(key,) for key in make.METADATA]
    + [("preprocess", key) for key in make.PREPROCESS]
    + [("checks", 0, key) for key in make.METADATA["checks"][0]]
    + [("images", 0, key) for key in make.METADATA["images"][0]]
    + [("checks", 0), ("images", 0), ("classes", 0), ("preprocess", "size", 0), ("preprocess", "mean", 2)]
)


@settings(max_examples=400)
@given(PLACES, JSON)
def test_any_value_in_the_metadata_is_read_or_refused(place: tuple[Any, ...], value: Any) -> None:
    values = json.loads(json.dumps(make.METADATA))
    inner = values
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    accept_or_refuse(make.file(**values))


@pytest.mark.parametrize("keep", [0, 1, 5, 40, 90])
def test_a_file_cut_off_anywhere_is_refused(keep: int) -> None:
    for length in range(len(GOOD) * keep // 100, len(GOOD) * keep // 100 + 40):
        with pytest.raises(ModelFileError):
            parse_model_file(GOOD[:length])


OTHER_NAMES = {
    "OperatorSet": "OperatorSetIdProto",
    "Entry": "StringStringEntryProto",
    "TensorType": "TypeProto.Tensor",
    "Shape": "TensorShapeProto",
    "Dimension": "TensorShapeProto.Dimension",
}


@pytest.mark.parametrize("message", MESSAGES)
def test_the_fields_that_are_read_are_those_of_onnx(message: str) -> None:
    onnx = pytest.importorskip("onnx")

    def of_onnx(name: str) -> str:
        return OTHER_NAMES.get(name, f"{name}Proto")

    value = onnx
    for part in of_onnx(message).split("."):
        value = getattr(value, part)
    theirs = value.DESCRIPTOR.fields_by_number
    scalars = {
        "int": "int32 int64 uint64 enum",
        "text": "string bytes",
        "bytes": "bytes",
        "float": "float",
        "double": "double",
    }
    types = {
        getattr(value.DESCRIPTOR.fields[0], f"TYPE_{name.upper()}"): name
        for names in scalars.values()
        for name in names.split()
    }
    for number, spec in MESSAGES[message].items():
        field = theirs[number]
        assert (field.name, hasattr(getattr(value(), field.name), "extend")) == (spec.name, spec.repeated)
        if spec.kind in scalars:
            assert types[field.type] in scalars[spec.kind].split()
        else:
            assert field.message_type.full_name == f"onnx.{of_onnx(spec.kind)}"
