"""Networks of timm as backbones: the interface of our own, the values of theirs, from training to a model file."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from gossamer.cli.main import main
from gossamer.errors import MissingPackageError, SettingsError, UnknownNameError, WeightsError
from gossamer.networks import Features, Network, create_model
from gossamer.networks.load import weight_sets
from gossamer.predictions.head import OutputHead
from gossamer.settings import Settings
from gossamer.tasks.distillation.heads import head_terms
from gossamer.training import optim
from gossamer.training.restore import load_run
from gossamer.training.teacher import open_source
from tests.counterparts import counterpart, import_library
from tests.mirror import Mirror

if importlib.util.find_spec("timm") is None:
    pytest.skip("timm is not installed", allow_module_level=True)

NET = "timm:mobilenetv3_small_050"


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Mirror]:
    pytest.importorskip("huggingface_hub")
    with Mirror() as served:
        served.environment(monkeypatch, tmp_path / "cache")
        yield served


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    theirs = dict(b.named_parameters())
    return all(torch.equal(value, theirs[name]) for name, value in a.named_parameters())


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet10t", "vit_tiny_patch16_224", "convnext_atto"])
def test_a_network_of_timm_has_the_interface_of_ours(name: str) -> None:
    model = create_model("timm:" + name, num_classes=3).eval()
    assert isinstance(model, Network) and model.num_classes == 3 and model.pretrained is None
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        maps = model.forward_features(x)
        embedding = model.forward_head(maps, pre_logits=True)
        assert embedding.shape == (2, model.num_features)
        torch.testing.assert_close(model.forward_head(maps), model(x))
        assert model(x).shape == (2, 3) and model.forward_aux(x)[1] == []
        model.reset_classifier(0)
        assert model.num_classes == 0
        torch.testing.assert_close(model(x), embedding)
        model.reset_classifier(5)
        assert model(x).shape == (2, 5)
    with pytest.raises(SettingsError, match="num_classes: -1"):
        model.reset_classifier(-1)


@pytest.mark.parametrize(
    "name", ["mobilenetv3_small_050", "resnet10t", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"]
)
def test_feature_maps_have_the_channels_and_strides_that_they_tell(name: str) -> None:
    model = create_model("timm:" + name, features_only=True).eval()
    assert isinstance(model, Features)
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 224, 224))
    assert [each.shape[1] for each in maps] == model.feature_info.channels()
    assert [224 // each.shape[2] for each in maps] == model.feature_info.reduction()
    last = create_model("timm:" + name, features_only=True, out_indices=(-1, 0)).feature_info
    assert [*last] == [model.feature_info[0], model.feature_info[-1]]


def test_output_stride_input_channels_and_rates_reach_timm() -> None:
    model = create_model("timm:resnet10t", output_stride=8, in_chans=1, drop_rate=0.25, features_only=True).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 1, 64, 64))[-1].shape[-1] == 8
    assert model.feature_info.reduction()[-1] == 8
    body: Any = create_model("timm:resnet10t", drop_rate=0.25).body
    assert body.drop_rate == 0.25
    eps = next(each.eps for each in create_model(NET, bn_eps=0.01).modules() if isinstance(each, torch.nn.BatchNorm2d))
    assert eps == 0.01


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("timm:resnet10", {}, "did you mean timm:resnet"),
        ("timm:resnet18.no_such_set", {}, "timm:resnet18.a"),
        (NET, {"width": 0.5}, "no argument 'width'"),
        (NET, {"act": "silu"}, "no argument 'act'"),
        (NET, {"small_input": True}, "no argument 'small_input'"),
        ("timm:resnet10t", {"no_such": 1}, "timm refuses: TypeError"),
        ("timm:vit_tiny_patch16_224", {"output_stride": 8}, "timm refuses"),
        (NET, {"features_only": True, "out_indices": (9,)}, "0 to 4"),
        (NET, {"features_only": True, "out_indices": ()}, "at least one"),
        (NET, {"num_classes": -1}, "num_classes: -1"),
    ],
)
def test_what_timm_or_we_refuse_is_one_line(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((SettingsError, UnknownNameError)) as caught:
        create_model(name, **arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossamer.networks.timm_adapter.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"gossamer\[timm\]"):
        create_model(NET)


@pytest.mark.full
def test_timm_is_imported_where_torchvisions_operators_are_missing() -> None:
    """In a process of its own, without the counterparts' help."""
    code = f"from gossamer.networks import create_model; print(create_model({NET!r}, num_classes=0).num_features)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("1024", "")


# weights


def test_weights_are_fetched_by_us_and_loaded_by_timm(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    other = counterpart("timm", "mobilenetv3_small_050")
    mirror.hub("timm/mobilenetv3_small_050.lamb_in1k", safetensors.torch.save(other.state_dict()))
    model = create_model(NET, pretrained=True).eval()
    assert same(other, model.body) and model.pretrained == weight_sets(NET)[0]
    assert model.pretrained is not None and model.pretrained.interpolation == "bicubic"
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), other(x))
        fine = create_model(NET + ".lamb_in1k", pretrained=True, num_classes=3, in_chans=1).eval()
        assert fine(x[:, :1]).shape == (1, 3)
        ours = create_model(NET, pretrained=model.pretrained.name, features_only=True).eval()
        torch.testing.assert_close(ours(x)[-1], other.forward_features(x))
    monkeypatch.setenv("GOSSAMER_OFFLINE", "1")
    mirror.requests.clear()
    assert same(create_model(NET, pretrained=True).body, model.body)
    with pytest.raises(WeightsError, match="nothing is fetched offline"):
        create_model("timm:resnet10t", pretrained=True)
    assert not mirror.requests


def test_a_network_of_timm_is_a_teacher_of_classes_and_of_embeddings(mirror: Mirror) -> None:
    other = counterpart("timm", "mobilenetv3_small_050")
    mirror.hub("timm/mobilenetv3_small_050.lamb_in1k", safetensors.torch.save(other.state_dict()))
    x = torch.randn(2, 3, 64, 64)
    source = open_source(NET, [OutputHead("classify", ("a", "b"))])
    (head,) = source.heads
    assert len(head.classes) == 1000 and head.classes[0] == "n01440764" and source.kind == "network"
    with torch.no_grad():
        torch.testing.assert_close(source.forward(x)["logits"], other(x))
    with pytest.raises(SettingsError, match="a teacher of other classes: it does not know a, b and knows n01440764"):
        head_terms([OutputHead("classify", ("a", "b"))], source.heads, Settings(teacher=NET), NET)
    embedder = open_source(NET, [OutputHead("embed")])
    assert embedder.forward(x)["embedding"].shape == (2, 1024) and embedder.sha256 == source.sha256


@pytest.mark.parametrize("features_only", [False, True])
def test_weights_of_another_network_are_refused(features_only: bool, tmp_path: Path) -> None:
    torch.save(create_model("squeezenet1_1", num_classes=2).state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="timm refuses") as caught:
        create_model(NET, pretrained=str(tmp_path / "w.pth"), features_only=features_only)
    assert "\n" not in str(caught.value)


def test_the_first_set_is_that_of_the_name_or_timms_default() -> None:
    import_library("timm")
    default, named = weight_sets("timm:resnet18"), weight_sets("timm:resnet18.tv_in1k")
    assert default[0].name == "timm/resnet18.a1_in1k" and named[0].name == "timm/resnet18.tv_in1k"
    assert named[0].source == "hf://timm/resnet18.tv_in1k" and named[0].licence == "bsd-3-clause"
    assert {each.name for each in default} == {each.name for each in named}


# in a run


@pytest.mark.full
def test_a_network_of_timm_trains_evaluates_exports_and_starts_another(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = tmp_path / "run", tmp_path / "m.onnx"
    flags = f"--net {NET} --input 32 --epochs 1 --batch 12 --workers 0 --drop-path-rate 0.1".split()
    flags += "--precision float32 --memory-format channels_first --threads 1".split()
    options = ["--net-options", "bn_eps=0.002"]
    assert main(["train", str(image_folder), "--out", str(run), *flags, *options]) == 0
    model = load_run(run).model
    assert {layer.eps for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)} == {0.002}
    assert main(["eval", str(run)]) == 0
    assert main(["export", str(run), "--out", str(file)]) == 0
    assert main(["verify", str(file)]) == 0
    capsys.readouterr()
    assert main(["predict", str(file), str(image_folder / "val" / "class0"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 12
    assert main(["train", "--resume", str(run)]) == 0
    best = str(run / "best.safetensors")
    second = ["train", str(image_folder), "--out", str(tmp_path / "2"), *flags, "--lr", "0", "--weights", best]
    assert main([*second, "--freeze", "backbone"]) == 0
    assert same(load_run(tmp_path / "2").model, model)
    assert "by the names of timm" in (tmp_path / "2" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--input", "64"], "does not take 64x64 pixels"),
        (["--input", "224", "--progressive", "0.5"], "leave --progressive out"),
    ],
)
def test_an_input_that_timms_network_does_not_take_is_refused_before_the_run_begins(
    extra: list[str], message: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", str(image_folder), "--net", "timm:vit_tiny_patch16_224", "--epochs", "1", "--batch", "2"]
    assert main([*arguments, "--out", str(tmp_path / "run"), *extra]) == 2
    told = capsys.readouterr().err
    *progress, error = told.splitlines()
    assert message in error and error.startswith("gossamer: ") and progress in ([], ["loading PyTorch"])
    assert not (tmp_path / "run").exists()


def test_freezing_the_backbone_leaves_timms_classifier() -> None:
    model = create_model(NET, num_classes=3)
    frozen = optim.freeze(model, "backbone")
    left = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert left == ["body.classifier.weight", "body.classifier.bias"] and frozen
    with pytest.raises(SettingsError, match="layer_decay"):
        optim.parameter_groups(model, Settings(net=NET, layer_decay=0.5))
