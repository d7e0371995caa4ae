"""Published weights: the table is the libraries' own, and every set is fetched, checked, cached and loaded by name."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from torch import nn

from gossamer.cli.main import main
from gossamer.errors import InputError, SettingsError, UnknownNameError, WeightsError
from gossamer.networks import create_model
from gossamer.networks.fetch import fetch
from gossamer.networks.load import select_weights
from gossamer.networks.pretrained import HALF, WEIGHTS
from gossamer.networks.registry import ALIASES, NETWORKS
from gossamer.settings import Settings
from gossamer.settings.parse import parse_options
from gossamer.training.loop import resume, train
from gossamer.training.restore import load_run
from tests.counterparts import counterpart, import_library
from tests.mirror import Mirror
from tests.tiers import one_per_family

pytest.importorskip("huggingface_hub")

SETS = [(network, each) for network, sets in WEIGHTS.items() for each in sets]
TIMM = [(network, each) for network, each in SETS if each.name.startswith("timm/")]
TORCHVISION = [(network, each) for network, each in SETS if each.name.startswith("torchvision/")]
CONVERTED = ("googlenet", "inception_v3")  # torchvision's forward passes of these change the normalisation themselves


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Mirror]:
    with Mirror() as served:
        served.environment(monkeypatch, tmp_path / "cache")
        yield served


def pth(network: nn.Module) -> bytes:
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return file.getvalue()


def serve_torchvision(mirror: Mirror, monkeypatch: pytest.MonkeyPatch, network: str, content: bytes) -> str:
    """Serve `content` in the place of the network's first set of torchvision, its digest in its name; the path."""
    (listed,) = (each for each in WEIGHTS[network] if each.name.startswith("torchvision/"))
    stem = listed.source.rpartition("-")[0]
    source = f"{stem}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setitem(WEIGHTS, network, (listed._replace(source=source),))
    path = source.removeprefix("https://download.pytorch.org")
    mirror.files[path] = content
    return path


def batch_norm_eps(network: nn.Module) -> float | None:
    return next((layer.eps for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)), None)


# the table


@pytest.mark.parametrize("network", one_per_family(WEIGHTS))
def test_each_set_of_timm_is_as_timm_says(network: str) -> None:
    models = import_library("timm").models
    listed = {each.name: each for own, each in TIMM if own == network}
    configs = {f"timm/{name}": config for name, config in models.get_arch_pretrained_cfgs(network).items()}
    assert set(listed) == {
        name for name, config in configs.items() if config.num_classes == 1000 and config.has_weights
    }
    for name, each in listed.items():
        config = configs[name]
        assert each.source == f"hf://{config.hf_hub_id}" and not config.hf_hub_filename
        assert each.licence == config.license
        assert each.input == config.input_size[1] == config.input_size[2]
        assert (each.crop_pct, each.interpolation) == (config.crop_pct, config.interpolation)
        assert (each.mean, each.std) == (config.mean, config.std)
    if listed:
        first = WEIGHTS[network][0].name
        assert first == f"timm/{network}.{models.get_pretrained_cfg(network).tag}"
        with torch.device("meta"):
            theirs, ours = batch_norm_eps(counterpart("timm", network)), batch_norm_eps(create_model(network))
        assert {each.norm_eps for each in listed.values()} == {None if theirs == ours else theirs}


@pytest.mark.parametrize("network", one_per_family(WEIGHTS))
def test_each_set_of_torchvision_is_as_torchvision_says(network: str) -> None:
    models = import_library("torchvision").models
    names = [network, *(alias for alias, own in ALIASES.items() if own == network)]
    theirs = {
        f"torchvision/{name}.{each.name}": each
        for name in models.list_models(module=models)
        if name in names
        for each in models.get_model_weights(name)
        if not math.isnan(each.meta["_metrics"]["ImageNet-1K"]["acc@1"])
    }
    listed = {each.name: each for own, each in TORCHVISION if own == network}
    assert set(listed) == set(theirs)
    for name, each in listed.items():
        transforms = theirs[name].transforms()
        assert each.source == theirs[name].url
        assert each.top1 == theirs[name].meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert each.input == transforms.crop_size[0]
        assert round(each.input / each.crop_pct) == transforms.resize_size[0]
        assert each.interpolation == transforms.interpolation.value
        norm = (tuple(transforms.mean), tuple(transforms.std))
        assert (each.mean, each.std) == (HALF if network in CONVERTED else norm)
    if listed:
        arguments = {"init_weights": False} if network in CONVERTED else {}
        arch = next(iter(listed)).removeprefix("torchvision/").partition(".")[0]
        with torch.device("meta"):
            eps = batch_norm_eps(counterpart("torchvision", arch, **arguments)), batch_norm_eps(create_model(network))
        assert eps[0] == eps[1] and {each.norm_eps for each in listed.values()} == {None}


def test_the_table_is_of_our_networks_and_honest() -> None:
    assert set(WEIGHTS) <= set(NETWORKS)
    names = [each.name for _, each in SETS]
    assert len(names) == len(set(names)) and all(WEIGHTS.values())
    for network, each in SETS:
        assert each.licence and 0 < each.crop_pct <= 1 and len(each.mean) == len(each.std) == 3, network
        assert (each.top1 is None) == (each.top1_from == "")
        assert each.top1 is None or 50 < each.top1 < 90


# by name


def test_a_set_is_chosen_by_default_by_name_or_by_where_it_lies() -> None:
    first, second = WEIGHTS["mobilenetv2_100"][:2]
    assert select_weights("mobilenet_v2", "default") == (first.source, first)
    assert select_weights("mobilenet_v2", second.name) == (second.source, second)
    assert select_weights("mobilenet_v2", "w.pth") == ("w.pth", None)
    with pytest.raises(UnknownNameError, match=r"did you mean timm/mobilenetv2_100\.ra_in1k"):
        select_weights("mobilenet_v2", "timm/mobilenetv2_100.ra_in2k")
    with pytest.raises(WeightsError, match="no weights are listed"):
        select_weights("lenet5", "default")


def test_torchvisions_weights_are_fetched_checked_by_their_name_and_give_its_outputs(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = counterpart("torchvision", "shufflenet_v2_x0_5")
    path = serve_torchvision(mirror, monkeypatch, "shufflenet_v2_x0_5", pth(other))
    assert create_model("shufflenet_v2_x0_5").pretrained is None and not mirror.requests
    model = create_model("shufflenet_v2_x0_5", pretrained=True).eval()
    assert model.pretrained is not None and model.pretrained.name == "torchvision/shufflenet_v2_x0_5.IMAGENET1K_V1"
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), other(x), atol=1e-5, rtol=0)
    named = create_model("shufflenet_v2_x0_5", pretrained=model.pretrained.name, num_classes=4, in_chans=1)
    assert named.num_classes == 4 and named.pretrained == model.pretrained
    assert [request[:2] for request in mirror.requests] == [("GET", path)]


def test_timms_weights_come_from_the_hub_and_are_kept_in_its_cache(mirror: Mirror) -> None:
    other = counterpart("timm", "mobilenetv3_small_050")
    mirror.hub("timm/mobilenetv3_small_050.lamb_in1k", safetensors.torch.save(other.state_dict()))
    model = create_model("mobilenetv3_small_050", pretrained=True).eval()
    assert model.pretrained == WEIGHTS["mobilenetv3_small_050"][0]
    assert batch_norm_eps(model) == model.pretrained.norm_eps == 1e-5
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), other(x), atol=1e-5, rtol=0)
    assert ("GET", "/timm/mobilenetv3_small_050.lamb_in1k/resolve/main/model.safetensors", "") in mirror.requests
    count = len([request for request in mirror.requests if request[0] == "GET"])
    features = create_model(
        "mobilenetv3_small_050", pretrained="timm/mobilenetv3_small_050.lamb_in1k", features_only=True
    )
    assert features.pretrained == model.pretrained
    assert len([request for request in mirror.requests if request[0] == "GET"]) == count


def test_a_broken_download_goes_on_by_range(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pth(create_model("shufflenet_v2_x0_5"))
    path = serve_torchvision(mirror, monkeypatch, "shufflenet_v2_x0_5", content)
    mirror.broken.add(path)
    with pytest.raises(WeightsError, match="run it again to go on where it ended"):
        create_model("shufflenet_v2_x0_5", pretrained=True)
    create_model("shufflenet_v2_x0_5", pretrained=True)
    assert mirror.requests == [("GET", path, ""), ("GET", path, f"bytes={len(content) // 2}-")]


def test_a_file_of_another_digest_than_its_name_is_removed(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = pth(create_model("shufflenet_v2_x0_5"))
    path = serve_torchvision(mirror, monkeypatch, "shufflenet_v2_x0_5", content)
    mirror.files[path] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(WeightsError, match=r"its SHA-256 is [0-9a-f]{64}, not [0-9a-f]{8}.*nothing was kept"):
        create_model("shufflenet_v2_x0_5", pretrained=True)
    assert [file.suffix for file in (tmp_path / "cache" / "gossamer" / "weights").iterdir()] == [".lock"]


def test_a_file_of_the_hub_is_checked_by_the_hubs_own_digest(mirror: Mirror, tmp_path: Path) -> None:
    mirror.hub("owner/name", b"what was published")
    path = fetch("hf://owner/name")
    assert path.read_bytes() == b"what was published"
    blob = path.resolve()
    if blob == path:
        pytest.skip("this file system has no links")
    blob.write_bytes(b"what was published?")
    with pytest.raises(WeightsError, match="its SHA-256 is"):
        fetch("hf://owner/name")


# offline


@pytest.mark.parametrize("variable", ["GOSSAMER_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("network", ["shufflenet_v2_x0_5", "mobilenetv3_small_050"])
def test_offline_says_where_the_file_belongs_and_takes_it_from_there(
    network: str, variable: str, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = create_model(network)
    if network == "shufflenet_v2_x0_5":
        serve_torchvision(mirror, monkeypatch, network, pth(source))
    monkeypatch.setenv(variable, "1")
    with pytest.raises(WeightsError, match="nothing is fetched offline") as caught:
        create_model(network, pretrained=True)
    place = Path(caught.value.allowed.removeprefix("the file at "))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(pth(source) if place.suffix == ".pth" else safetensors.torch.save(source.state_dict()))
    assert torch.equal(create_model(network, pretrained=True).head.classifier.weight, source.head.classifier.weight)
    assert not mirror.requests


def test_offline_takes_what_the_cache_holds_and_refuses_what_is_damaged(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve_torchvision(mirror, monkeypatch, "shufflenet_v2_x0_5", pth(create_model("shufflenet_v2_x0_5")))
    mirror.hub("owner/name", b"small")
    create_model("shufflenet_v2_x0_5", pretrained=True)
    fetch("hf://owner/name")
    mirror.requests.clear()
    monkeypatch.setenv("GOSSAMER_OFFLINE", "1")
    create_model("shufflenet_v2_x0_5", pretrained=True)
    assert fetch("hf://owner/name").read_bytes() == b"small"
    (kept,) = (tmp_path / "cache" / "gossamer" / "weights").glob("*.pth")
    kept.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="its SHA-256 is"):
        create_model("shufflenet_v2_x0_5", pretrained=True)
    assert not mirror.requests


def test_the_offline_flag_keeps_training_from_the_network(
    mirror: Mirror,
    monkeypatch: pytest.MonkeyPatch,
    image_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GOSSAMER_OFFLINE", "0")  # so that what the flag sets is undone
    out = tmp_path / "run"
    code = main(["train", str(image_folder), "--weights", "default", "--out", str(out), "--input", "32", "--offline"])
    printed = capsys.readouterr().err
    *progress, error = printed.splitlines()
    assert code == 2 and error.startswith("gossamer: ") and "nothing is fetched offline" in error
    assert progress == ["loading PyTorch"]
    assert not mirror.requests and not out.exists()


# in a run


def small(data: Path, out: Path, **changes: Any) -> Settings:
    own: dict[str, Any] = {"epochs": 1, "batch": 12, "input": "32", "workers": 0, "threads": 1, "precision": "float32"}
    own |= {"memory_format": "channels_first"}
    return Settings(data=str(data), out=str(out), **{**own, **changes})


def test_a_run_takes_the_preprocessing_of_its_weights_unless_told_otherwise(
    mirror: Mirror, image_folder: Path, tmp_path: Path
) -> None:
    other = counterpart("timm", "mobilenetv3_small_050")
    mirror.hub("timm/mobilenetv3_small_050.lamb_in1k", safetensors.torch.save(other.state_dict()))
    run = train(
        small(image_folder, tmp_path / "a", net="mobilenetv3_small_050", weights="default", input="128", lr=0.0)
    )
    saved = yaml.safe_load((run.path / "settings.yaml").read_text())
    listed = WEIGHTS["mobilenetv3_small_050"][0]
    assert (saved["interpolation"], saved["norm_eps"]) == (listed.interpolation, listed.norm_eps) == ("bicubic", 1e-5)
    assert (saved["crop_pct"], tuple(saved["mean"]), tuple(saved["std"])) == (0.875, listed.mean, listed.std)
    network = load_run(run.path)
    assert network.preprocess.interpolation == "bicubic" and batch_norm_eps(network.model) == 1e-5
    assert torch.equal(network.model.get_parameter("stem.conv.weight"), other.get_parameter("conv_stem.weight"))

    told = small(
        image_folder,
        tmp_path / "b",
        net="mobilenetv3_small_050",
        weights=listed.name,
        mean=[0.4],
        interpolation="nearest",
    )
    settings = train(told).settings
    assert (settings.mean, settings.std, settings.interpolation) == ((0.4,), listed.std, "nearest")
    plain = train(small(image_folder, tmp_path / "c", net="mobilenetv1_025")).settings
    assert (plain.interpolation, plain.mean, plain.norm_eps) == ("bilinear", (0.485, 0.456, 0.406), None)


# a family's options


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("stride_in=1x1 depth=34", {"stride_in": "1x1", "depth": 34}),
        ("a=true b=False c=0.5 d=1e-3 e=-2", {"a": True, "b": False, "c": 0.5, "d": 1e-3, "e": -2}),
        ("repeats=2,2,2,2 one=3,", {"repeats": (2, 2, 2, 2), "one": "3,"}),
    ],
)
def test_options_are_read_as_what_they_spell(text: str, options: dict[str, Any]) -> None:
    assert parse_options(text) == options


@pytest.mark.parametrize("text", ["stride_in", "=1", "a=", "a=1 a=2", "a b=1", "1a=2"])
def test_options_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="key=value"):
        Settings(net_options=text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"net": "resnet18", "net_options": "depht=34"}, "allowed: width, repeats, stride_in"),
        ({"net": "resnet18", "net_options": "stride_in=2x2"}, "1x1, 3x3"),
        ({"net": "resnet18", "net_options": "groups=many"}, "a value of type int"),
        ({"net": "resnet18", "net_options": "repeats=2,2"}, "four"),
        ({"net": "resnet18", "net_options": "repeats=2"}, "whole numbers"),
        ({"net": "resnet18", "net_options": "norm_eps=0.1"}, "use --norm_eps instead"),
        ({"net": "mobilenetv1_025", "act": "rellu"}, "relu"),
        ({"net": "mobilenetv1_025", "norm": "bach"}, "batch"),
        ({"net": "mobilenetv1_025", "output_stride": 12}, "output_stride: 12"),
    ],
)
def test_a_wrong_option_is_one_line_and_nothing_is_written(
    settings: dict[str, Any], message: str, image_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        train(small(image_folder, tmp_path / "run", **settings))
    assert message in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.full
def test_the_options_are_those_of_the_run_when_it_is_evaluated_and_resumed(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (
        "--net shufflenet_v2_x0_5 --act silu --norm group --drop-path-rate 0.1 --output-stride 16 --epochs 1".split()
    )
    arguments = ["train", str(image_folder), "--out", str(tmp_path / "run"), "--input", "32", "--batch", "12", *flags]
    arguments += "--precision float32 --memory-format channels_first --threads 1 --workers 0".split()
    assert main([*arguments, "--net-options", "down_unit=authors"]) == 0
    model = load_run(tmp_path / "run").model
    direct = create_model(
        "shufflenet_v2_x0_5", num_classes=3, norm="group", act="silu", down_unit="authors", small_input=True
    )
    assert {name: p.shape for name, p in model.named_parameters()} == {
        name: p.shape for name, p in direct.named_parameters()
    }
    assert any(isinstance(layer, nn.SiLU) for layer in model.modules())
    assert main(["eval", str(tmp_path / "run"), "--json"]) == 0
    assert resume(tmp_path / "run").settings.net_options == "down_unit=authors"
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "m.onnx")]) == 0
    assert main(["verify", str(tmp_path / "m.onnx")]) == 0
    capsys.readouterr()


def test_a_run_is_repeated_from_its_settings_without_a_word_lost(
    make_image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    run = train(
        small(make_image_folder(each=6), tmp_path / "a", net="resnet18", width=0.125, net_options="repeats=1,1,1,1")
    )
    again = Settings(**{**yaml.safe_load((run.path / "settings.yaml").read_text()), "out": str(tmp_path / "b")})
    assert load_run(train(again).path).model.state_dict().keys() == load_run(run.path).model.state_dict().keys()
