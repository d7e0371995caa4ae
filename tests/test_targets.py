"""The kinds of a command's target: runs, files and the names of networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from gossamer.errors import InputError, RunError, UnknownNameError
from gossamer.modelfile.compiled import MAGIC
from gossamer.predictions.gallery import MARK
from gossamer.targets import KINDS, target_of


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one thing of each kind, as the current folder."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.yaml").write_text("net: lenet5\n")
    (tmp_path / "photos").mkdir()
    (tmp_path / "a.onnx").write_bytes(b"\x08\x08")
    (tmp_path / "a.goss").write_bytes(MAGIC + bytes(56))
    (tmp_path / "a.index").write_bytes(MARK + bytes(56))
    (tmp_path / "resnet18").write_bytes(b"\x08\x08")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("run", "run"),
        ("a.onnx", "model file"),
        ("a.goss", "compiled file"),
        ("a.index", "index"),
        ("mobilenet_v2", "network"),  # an alias
        ("mobilenetv2_100", "network"),
        ("timm:mobilenetv3_small_100.lamb_in1k", "network"),
        ("resnet18", "model file"),  # what exists goes first
    ],
)
def test_each_kind_is_told_by_what_lies_there(place: Path, text: str, kind: str) -> None:
    assert target_of(text).kind == kind
    assert target_of(text).text == text


@pytest.mark.parametrize(
    ("text", "error", "named"),
    [
        ("mobilnet_v2", UnknownNameError, "did you mean mobilenet_v2?"),
        ("none.onnx", InputError, "none.onnx: no such file or folder"),
        ("runs/none", InputError, "runs/none: no such file or folder"),
        ("photos", RunError, "photos: a folder without settings.yaml"),
    ],
)
def test_what_is_no_target_is_named(place: Path, text: str, error: type[InputError], named: str) -> None:
    with pytest.raises(error) as caught:
        target_of(text)
    assert named in str(caught.value)
    if error is not UnknownNameError:
        assert all(phrase in caught.value.allowed for phrase in KINDS.values())


@pytest.mark.parametrize("text", ["run", "a.onnx", "a.goss", "a.index", "mobilenet_v2"])
def test_another_kind_than_allowed_is_named_with_what_is(place: Path, text: str) -> None:
    kind = target_of(text).kind
    others = tuple(other for other in KINDS if other != kind)
    with pytest.raises(InputError) as caught:
        target_of(text, others)
    assert str(caught.value).startswith(f"{text}: {KINDS[kind]}; allowed: ")
    assert KINDS[kind] not in caught.value.allowed and all(KINDS[other] in caught.value.allowed for other in others)


def test_a_mistyped_name_is_a_missing_file_where_no_network_is_allowed(place: Path) -> None:
    with pytest.raises(InputError, match="mobilnet_v2: no such file or folder; allowed: a run folder; check"):
        target_of("mobilnet_v2", ("run",))
