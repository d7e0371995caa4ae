"""Weights from files: what fits is loaded, what is wrong or hostile is told in one line."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gossamer.data.heads.spec import parse_heads
from gossamer.errors import GossamerError, WeightsError
from gossamer.networks import Network, create_model, load_weights
from gossamer.networks.checkpoint import read_tensors
from gossamer.networks.load import load_pretrained
from gossamer.settings import Settings
from gossamer.tasks.detection.heads import build_detector
from gossamer.tasks.embedding.network import Embedder
from gossamer.tasks.multihead.network import build_multi_network
from gossamer.tasks.segmentation.heads import Segmenter
from tests.counterparts import randomise_norms
from tests.tiers import quick_ones

NET = "mobilenetv1_025"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def small(**arguments: Any) -> Network:
    return create_model(NET, **{"num_classes": 3, **arguments}).eval()


def same(model: nn.Module, tensors: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, tensors[key]) for key, value in model.state_dict().items())


def saved(model: nn.Module, path: Path, before: str = "") -> Path:
    safetensors.torch.save_file({before + key: value for key, value in model.state_dict().items()}, path)
    return path


# into what

MODELS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "embedder": ("mobilenetv3_small_050", lambda: Embedder(create_model("mobilenetv3_small_050", num_classes=1), 8)),
    "detector": ("mobilenetv3_small_050", lambda: build_detector("mobilenetv3_small_050", 2, (64, 64))),
    "detector with a pyramid": ("resnet18", lambda: build_detector("resnet18", 2, (64, 64), pyramid=True, width=0.25)),
    "segmenter": ("mobilenetv3_small_050", lambda: Segmenter("mobilenetv3_small_050", 2)),
    "segmenter with conv_head": (
        "mobilenetv3_small_050",
        lambda: Segmenter("mobilenetv3_small_050", 2, conv_head=True),
    ),
    "heads on pooled features": ("mobilenetv3_small_050", lambda: heads("colour: classify")),
    "heads on maps": ("mobilenetv3_small_050", lambda: heads("places: segment")),
    "heads of all kinds": ("mobilenetv3_small_050", lambda: heads("colour: classify\nparts: detect\nplaces: segment")),
}


def heads(text: str) -> nn.Module:
    specs = parse_heads(text)
    chosen = Settings(task="multi", net="mobilenetv3_small_050", input="64x64", small_input=False)
    return build_multi_network(chosen, specs, {spec.name: 2 for spec in specs})


@pytest.mark.parametrize("kind", quick_ones(MODELS, list(MODELS)[:2]))
def test_a_classifiers_weights_go_to_the_backbone_of_each_tasks_model_and_the_models_own_to_the_whole(
    kind: str, tmp_path: Path
) -> None:
    net, build = MODELS[kind]
    model = build()
    source = create_model(net, num_classes=5, **({"width": 0.25} if net == "resnet18" else {}))
    randomise_norms(source)
    values = source.state_dict()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    difference = load_pretrained(model, net, str(saved(source, tmp_path / "classifier.safetensors")))
    assert difference.fits and difference.classifier == (5, 0)
    state = model.state_dict()
    suffixes = [key for key in values if not key.startswith("head.classifier.")]
    used = [key for key in suffixes if any(name.endswith("." + key) for name in state)]
    assert difference.loaded >= len(used) > 40
    for key in used:
        assert any(torch.equal(value, values[key]) for name, value in state.items() if name.endswith("." + key)), key
    changed = [name for name, value in state.items() if not torch.equal(value, before[name])]
    assert 0 < len(changed) <= difference.loaded  # the head is left as it was
    path = saved(model, tmp_path / "model.safetensors")
    again = build()
    assert load_pretrained(again, net, str(path)).loaded == len(state)
    assert same(again, state)
    torch.save(create_model("squeezenet1_1", num_classes=2).state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="of this network"):
        load_pretrained(build(), net, str(tmp_path / "other.pth"))


# what is loaded


def test_our_own_weights_come_back_as_they_were(tmp_path: Path) -> None:
    source, model = small(), small()
    difference = load_weights(model, saved(source, tmp_path / "w.safetensors"))
    assert same(model, source.state_dict())
    assert difference.fits and difference.key_mapping == "gossamer"
    assert difference.loaded == len(source.state_dict())
    assert str(difference).count("\n") == 0


def test_a_checkpoint_of_ours_gives_its_averaged_weights(tmp_path: Path) -> None:
    plain, averaged, model = small(), small(), small()
    tensors = {f"model.{key}": value for key, value in plain.state_dict().items()}
    tensors |= {f"ema.{key}": value for key, value in averaged.named_parameters()}  # buffers have no average here
    tensors["optimizer.0.momentum"] = torch.zeros(3)
    safetensors.torch.save_file(tensors, tmp_path / "last.safetensors")
    assert load_weights(model, tmp_path / "last.safetensors").fits
    assert same(model, {**plain.state_dict(), **dict(averaged.named_parameters())})
    assert load_weights(small(), saved(plain, tmp_path / "best.safetensors", "model.")).fits


@pytest.mark.parametrize("container", ["", "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("before", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("legacy", [False, True])
def test_what_trainers_wrap_around_the_weights_is_removed(
    container: str, before: str, legacy: bool, tmp_path: Path
) -> None:
    source, model = small(), small()
    weights = {before + key: value for key, value in source.state_dict().items()}
    content: dict[str, Any] = {container: weights, "epoch": 3, "best": 0.5} if container else weights
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    assert load_weights(model, tmp_path / "w.pth").fits
    assert same(model, source.state_dict())


def test_weights_of_half_precision_are_widened(tmp_path: Path) -> None:
    source, model = small().half(), small()
    load_weights(model, saved(source, tmp_path / "w.safetensors"))
    assert model.stem.conv.weight.dtype == torch.float32
    assert torch.equal(model.stem.conv.weight.half(), source.stem.conv.weight)


def test_a_classifier_of_other_classes_is_left_as_it_is(tmp_path: Path) -> None:
    source, model = small(num_classes=10), small()
    before = model.head.classifier.weight.clone()
    difference = load_weights(model, saved(source, tmp_path / "w.safetensors"))
    assert difference.fits and difference.classifier == (10, 3)
    assert "10 classes in the file, 3 here" in str(difference)
    assert torch.equal(model.head.classifier.weight, before)
    assert torch.equal(model.stem.conv.weight, source.stem.conv.weight)


def test_an_embedder_and_a_classifier_exchange_weights(tmp_path: Path) -> None:
    classifier, embedder = small(), small(num_classes=0)
    assert load_weights(embedder, saved(classifier, tmp_path / "c.safetensors")).classifier == (3, 0)
    difference = load_weights(small(), saved(embedder, tmp_path / "e.safetensors"))
    assert difference.fits and difference.classifier == (0, 3)


def test_features_take_what_they_have_of_a_classifiers_weights(tmp_path: Path) -> None:
    source = create_model("mobilenetv2_035", num_classes=3)
    model = create_model("mobilenetv2_035", features_only=True, out_indices=(0, 2))
    difference = load_weights(model, saved(source, tmp_path / "w.safetensors"))
    assert difference.fits
    assert difference.classifier == (3, 0)
    assert difference.loaded + difference.left_out + 2 == len(source.state_dict())
    assert same(model, source.state_dict())


def test_features_take_a_counterparts_weights_numbered_straight_through(tmp_path: Path) -> None:
    from tests.counterparts import counterpart

    torch.save(counterpart("torchvision", "mobilenet_v2").state_dict(), tmp_path / "w.pth")
    model = create_model("mobilenet_v2", features_only=True, out_indices=(1, 2))
    difference = load_weights(model, tmp_path / "w.pth")
    assert difference.fits and difference.left_out > 0 and difference.key_mapping == "torchvision"


def test_grey_input_takes_colour_weights_and_the_reverse(tmp_path: Path) -> None:
    colour, grey = small(), small(in_chans=1)
    difference = load_weights(grey, saved(colour, tmp_path / "colour.safetensors"))
    assert difference.fits and difference.adapted == (3, 1)
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(grey(x), colour(x.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4)
        back = small()
        assert load_weights(back, saved(grey, tmp_path / "grey.safetensors")).adapted == (1, 3)
        torch.testing.assert_close(back(x.expand(-1, 3, -1, -1)), grey(x), atol=1e-5, rtol=1e-4)


def test_without_strict_what_fits_is_loaded_and_the_rest_is_listed(tmp_path: Path) -> None:
    source, model = small(), small()
    tensors = dict(source.state_dict())
    del tensors["stages.0.0.depthwise.conv.weight"]
    tensors["extra.weight"] = torch.zeros(2, 5)
    tensors["stages.1.0.pointwise.conv.weight"] = torch.zeros(7, 16, 1, 1)
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(
        WeightsError, match=r"1 of another shape or type, .* 7x16x1x1 for 32x16x1x1; 1 missing, .*; 1 unk"
    ):
        load_weights(model, tmp_path / "w.safetensors")
    assert not torch.equal(model.stem.conv.weight, source.stem.conv.weight)
    difference = load_weights(model, tmp_path / "w.safetensors", strict=False)
    assert torch.equal(model.stem.conv.weight, source.stem.conv.weight)
    assert not difference.fits
    assert difference.missing == (("stages.0.0.depthwise.conv.weight", (8, 1, 3, 3)),)
    assert difference.unexpected == (("extra.weight", (2, 5)),)
    assert difference.mismatched == (("stages.1.0.pointwise.conv.weight", (7, 16, 1, 1), (32, 16, 1, 1)),)
    assert str(difference).splitlines()[1:] == [
        "+ extra.weight 2x5",
        "- stages.0.0.depthwise.conv.weight 8x1x3x3",
        "+ stages.1.0.pointwise.conv.weight 7x16x1x1",
        "- stages.1.0.pointwise.conv.weight 32x16x1x1",
    ]


def test_create_model_starts_from_a_weights_file(tmp_path: Path) -> None:
    source = small()
    path = saved(source, tmp_path / "w.safetensors")
    assert same(small(pretrained=str(path)), source.state_dict())
    with pytest.raises(WeightsError, match="does not fit this network"):
        create_model(NET, num_classes=3, width=0.5, pretrained=str(path))


# what is refused


class Runs:
    """A pickle of this runs a command when it is loaded by the plain loader."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def with_value(name: str, value: Tensor) -> dict[str, Tensor]:
    return {**small().state_dict(), name: value}


def hostile(kind: str, path: Path) -> Path:
    """One weights file that must be refused."""
    good_bytes = safetensors.torch.save(small().state_dict())
    if kind == "command":
        path.write_bytes(pickle.dumps({"stem.conv.weight": Runs(f"touch {path.parent / 'ran'}")}, protocol=2))
    elif kind == "command in a new pickle":
        path.write_bytes(pickle.dumps({"stem.conv.weight": Runs(f"touch {path.parent / 'ran'}")}, protocol=4))
    elif kind == "command in a zip":
        torch.save({"stem.conv.weight": Runs(f"touch {path.parent / 'ran'}")}, path)
    elif kind == "whole module":
        torch.save(small(), path)
    elif kind == "TorchScript":
        with torch.no_grad():
            torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))
    elif kind == "truncated safetensors":
        path.write_bytes(good_bytes[: len(good_bytes) // 2])
    elif kind == "huge header":
        path.write_bytes(struct.pack("<Q", 1 << 62) + good_bytes[8:])
    elif kind == "header beyond the data":
        header = {"stem.conv.weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    elif kind == "truncated zip":
        torch.save(small().state_dict(), path)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "no tensors":
        torch.save({"epoch": 3}, path)
    elif kind == "a list":
        torch.save([torch.zeros(2)], path)
    elif kind == "NaN":
        safetensors.torch.save_file(with_value("stem.norm.weight", torch.full((8,), float("nan"))), path)
    elif kind == "infinity":
        safetensors.torch.save_file(with_value("stem.norm.running_var", torch.full((8,), float("inf"))), path)
    elif kind == "integers":
        safetensors.torch.save_file(with_value("stem.norm.weight", torch.ones(8, dtype=torch.int32)), path)
    elif kind == "complex numbers":
        torch.save(with_value("stem.norm.weight", torch.ones(8, dtype=torch.complex64)), path)
    elif kind == "sparse":
        torch.save(with_value("stem.norm.weight", torch.ones(8).to_sparse()), path)
    elif kind == "expanded":
        torch.save(with_value("stem.norm.weight", torch.ones(1).expand(1 << 50)), path)
    elif kind == "another network":
        safetensors.torch.save_file(create_model("squeezenet1_1", num_classes=2).state_dict(), path)
    elif kind == "another width":
        safetensors.torch.save_file(create_model(NET, width=0.5, num_classes=3).state_dict(), path)
    elif kind == "nothing in common":
        safetensors.torch.save_file({"a.weight": torch.zeros(2)}, path)
    elif kind == "folder":
        path.mkdir()
    else:
        assert kind == "missing"
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("command", "system, which is not a tensor"),
        ("command in a new pickle", "holds more than tensors"),
        ("command in a zip", "system, which is not a tensor"),
        ("whole module", "which is not a tensor"),
        ("TorchScript", "is a TorchScript archive"),
        ("truncated safetensors", "damaged"),
        ("huge header", "damaged"),
        ("header beyond the data", "damaged"),
        ("truncated zip", "damaged"),
        ("text", "neither safetensors nor"),
        ("empty", "neither safetensors nor"),
        ("no tensors", "holds no tensors by name"),
        ("a list", "holds no tensors by name"),
        ("NaN", "stem.norm.weight holds NaN"),
        ("infinity", "stem.norm.running_var holds NaN or infinity"),
        ("integers", "1 of another shape or type, as stem.norm.weight"),
        ("complex numbers", "1 of another shape or type, as stem.norm.weight"),
        ("sparse", "stem.norm.weight is not a dense tensor"),
        ("expanded", "1 of another shape or type, as stem.norm.weight"),
        ("another network", "does not fit|none of its"),
        ("another width", "does not fit this network"),
        ("nothing in common", "none of its 1 tensor"),
        ("folder", "is a folder, not a file"),
        ("missing", "No such file"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_file_that_cannot_be_used_is_told_in_one_line_and_changes_nothing(
    kind: str, message: str, tmp_path: Path
) -> None:
    path = hostile(kind, tmp_path / "w.bin")
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(model, path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and len(message) < 600
    assert "weights_only" not in message  # torch's own advice would be to run the code
    assert same(model, before)
    assert not (tmp_path / "ran").exists()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_never_more(data: st.DataObject, tmp_path: Path) -> None:
    """Bytes changed, cut or made up: a GossamerError, or tensors, and no other exception."""
    tensors = {"stem.conv.weight": torch.zeros(2, 3), "b": torch.ones(4)}
    path = tmp_path / "w.bin"
    kind = data.draw(st.sampled_from(["safetensors", "zip", "legacy", "random"]))
    if kind == "safetensors":
        path.write_bytes(safetensors.torch.save(tensors))
    elif kind == "random":
        start = data.draw(st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", struct.pack("<Q", 20) + b"{"]))
        path.write_bytes(start + data.draw(st.binary(max_size=200)))
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "zip")
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, max(0, len(content) - 1)), max_size=4)):
        if content:
            content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        read = read_tensors(path)
    except GossamerError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(value, Tensor) for value in read.values())
