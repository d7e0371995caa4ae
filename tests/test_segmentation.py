"""Semantic segmentation: masks, scores, losses, networks, and what is exported."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from gossamer.analysis.cost import cost
from gossamer.errors import DataError, ImageError, InputError, SettingsError, UnknownNameError
from gossamer.images.preprocess import Preprocess
from gossamer.networks import create_model
from gossamer.networks.load import load_pretrained
from gossamer.predictions import masks as mask_predictions
from gossamer.tasks.segmentation import losses
from gossamer.tasks.segmentation.heads import LrAspp, Segmenter
from gossamer.tasks.segmentation.scores import MaskScorer, confusion_of
from tests.drawnmasks import RNG, mask

# masks


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40))
def test_upsampling_is_torchs(k: int, h: int, w: int, height: int, width: int) -> None:
    logits = np.random.default_rng(h * 10 + w).normal(size=(k, h, w)).astype(np.float32)
    doubled = torch.from_numpy(logits.astype(np.float64))[None]
    expected = F.interpolate(doubled, size=(height, width), mode="bilinear", align_corners=False)[0].numpy()
    upsampled = mask_predictions.upsample(logits, (height, width), (8 * h, 8 * w))
    assert np.abs(upsampled - expected).max() < 1e-5
    assert (mask_predictions.mask_of_logits(logits, (height, width), (8 * h, 8 * w)) == upsampled.argmax(axis=0)).all()


def test_rows_are_worked_on_in_pieces_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = RNG.normal(size=(4, 7, 9)).astype(np.float32)
    at_once = mask_predictions.mask_of_logits(logits, (50, 60), (112, 144))
    monkeypatch.setattr(mask_predictions, "CHUNK", 130)  # two rows at a time
    assert (mask_predictions.mask_of_logits(logits, (50, 60), (112, 144)) == at_once).all()


@pytest.mark.parametrize(("resize", "size"), [("squash", (30, 50)), ("pad", (25, 50)), ("pad", (50, 30))])
def test_the_geometry_of_the_preprocessing_is_undone(resize: str, size: tuple[int, int]) -> None:
    """A map that holds its own coordinates gives each pixel's place in the input."""
    preprocess = Preprocess((40, 48), resize=resize)
    rows, columns = np.mgrid[0:40, 0:48].astype(np.float32) + 0.5
    restored = mask_predictions.upsample(np.stack([rows, columns]), size, (40, 48), preprocess.place(*size))
    scale = min(40 / size[0], 48 / size[1])
    down, across = (40, 48) if resize == "squash" else (round(size[0] * scale), round(size[1] * scale))
    y = (np.arange(size[0]) + 0.5) * down / size[0] + (40 - down) // 2
    x = (np.arange(size[1]) + 0.5) * across / size[1] + (48 - across) // 2
    assert restored[0] == pytest.approx(np.broadcast_to(np.clip(y, 0.5, 39.5)[:, None], size), abs=1e-4)
    assert restored[1] == pytest.approx(np.broadcast_to(np.clip(x, 0.5, 47.5), size), abs=1e-4)


def test_a_placement_is_where_the_preprocessing_puts_an_image() -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[10:, 20:] = 255
    preprocess = Preprocess((64, 64), resize="pad", mean=(0, 0, 0), std=(1, 1, 1))
    lit = np.argwhere(preprocess.pixels(pixels)[..., 0] > 127)
    place = preprocess.place(20, 40)
    assert lit.min(axis=0).tolist() == [10 * place.scale_y + place.shift_y, 20 * place.scale_x + place.shift_x]
    assert (lit.max(axis=0) + 1).tolist() == [20 * place.scale_y + place.shift_y, 40 * place.scale_x + place.shift_x]


def test_more_classes_than_a_byte_holds_are_refused() -> None:
    with pytest.raises(SettingsError, match="256 classes"):
        mask_predictions.mask_of_logits(np.zeros((256, 2, 2), np.float32), (2, 2), (2, 2))


def test_colours_are_distinct_and_stay() -> None:
    colours = mask_predictions.palette(255)
    assert len({tuple(colour) for colour in colours.tolist()}) == 255
    assert colours.any(axis=1).all()
    assert (mask_predictions.palette(7) == colours[:7]).all()
    assert colours[:3].tolist() == [[128, 0, 0], [0, 128, 0], [128, 128, 0]]  # VOC's, from aeroplane on


def test_an_overlay_leaves_ignored_pixels_as_they_are() -> None:
    pixels = np.full((1, 3, 3), 100, np.uint8)
    shown = mask_predictions.overlay(
        pixels, np.array([[0, 1, 255]], np.uint8), 0.25, np.array([[200, 0, 40], [0, 0, 0]], np.uint8)
    )
    assert shown.tolist() == [[[125, 75, 85], [75, 75, 75], [100, 100, 100]]]
    with pytest.raises(ImageError, match="equal sizes"):
        mask_predictions.overlay(pixels, np.zeros((2, 3), np.uint8))


# scores


def test_scores_by_hand() -> None:
    truth = np.array([[0, 0, 0, 1], [1, 1, 255, 255]], np.uint8)
    predicted = np.array([[0, 0, 1, 1], [1, 0, 0, 2]], np.uint8)
    scorer = MaskScorer(("a", "b", "c", "d"), (8, 8))
    scorer.count("x", truth, predicted)
    scores = scorer.scores()
    assert scores.confusion.tolist() == [[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert scores.iou.tolist()[:2] == [2 / 4, 2 / 4]
    assert np.isnan(scores.iou[2:]).all()
    assert scores.metrics == pytest.approx({"miou": 0.5, "pixel_accuracy": 4 / 6, "mean_accuracy": 2 / 3})
    assert scores.image_miou.tolist() == [0.5]
    assert scores.to_json()["per_class"][2]["iou"] is None
    assert json.loads(json.dumps(scores.to_json()))["loss"] is None
    assert re.search(r"^mIoU +0\.5000$", scores.text(), re.MULTILINE)


def test_a_class_predicted_where_it_is_not_counts_as_zero() -> None:
    scorer = MaskScorer(("a", "b", "c"), (8, 8))
    scorer.count("x", np.zeros((1, 4), np.uint8), np.array([[0, 0, 0, 1]], np.uint8))
    assert scorer.scores().metrics["miou"] == pytest.approx((0.75 + 0) / 2)


def test_scores_are_sklearns_whatever_the_order_and_the_parts() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    pairs = [RNG.integers(0, 5, (2, 6, int(RNG.integers(1, 9))), dtype=np.uint8) for _ in range(9)]
    all_at_once, first, second = (MaskScorer(tuple("abcde"), (8, 8)) for _ in range(3))
    for index, (truth, predicted) in enumerate(pairs):
        all_at_once.count(str(index), truth, predicted)
        (first if index < 4 else second).count(str(index), truth, predicted)
    truth, predicted = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    scores = all_at_once.scores()
    assert (scores.confusion == metrics.confusion_matrix(truth, predicted)).all()
    assert scores.iou == pytest.approx(metrics.jaccard_score(truth, predicted, average=None))
    assert scores.metrics["mean_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, predicted))
    early = first.scores()
    second.unreadable.append(("bad", "why"))
    first.merge(pickle.loads(pickle.dumps(second)))
    assert first.scores().metrics == scores.metrics and first.scores().names == scores.names
    assert first.scores().unreadable == [("bad", "why")]
    assert len(early.names) == 4 and early.confusion.sum() < scores.confusion.sum()  # scores do not change afterwards
    worst = scores.worst(3)
    assert worst[0][1] == scores.image_miou.min() and len(worst) == 3
    assert np.isnan(MaskScorer(tuple("abcde"), (8, 8)).scores().metrics["miou"])


def test_logits_are_scored_at_the_size_of_each_image() -> None:
    preprocess = Preprocess((32, 48), resize="pad")
    truths = [mask(0, 1, 2, height=11, width=30), mask(2, 0, height=40, width=9)]
    logits = RNG.normal(size=(2, 3, 4, 6)).astype(np.float32)
    scorer, expected = MaskScorer(("a", "b", "c"), (32, 48)), np.zeros((3, 3), np.int64)
    places = [preprocess.place(*truth.shape) for truth in truths]
    for one, truth, place in zip(logits, truths, places):
        expected += confusion_of(truth, mask_predictions.upsample(one, truth.shape, (32, 48), place).argmax(0), 3)
    scorer.add(["x", "y"], {"logits": logits}, truths, places)
    assert (scorer.scores().confusion == expected).all()
    assert scorer.scores().names == ["x", "y"]


def test_masks_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(DataError, match="one size"):
        confusion_of(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 2)
    with pytest.raises(DataError, match="class 2"):
        confusion_of(np.zeros((1, 1), np.uint8), np.full((1, 1), 2, np.uint8), 2)


# losses


def random_batch(n: int = 3, k: int = 4) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    masks = torch.randint(0, k, (n, 12, 16), generator=generator)
    masks[0, :9] = 255
    return {"logits": torch.randn(n, k, 3, 4, generator=generator, requires_grad=True)}, masks.to(torch.uint8)


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.2, 3.0, 0.5])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_mean_of_cross_entropy_is_torchs(weights: torch.Tensor | None, smoothing: float) -> None:
    outputs, masks = random_batch()
    values = losses.SegmentationLoss(weights=weights, label_smoothing=smoothing)(outputs, masks)
    large = F.interpolate(outputs["logits"], size=(12, 16), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(large, masks.long(), weights, ignore_index=255, label_smoothing=smoothing)
    assert values.shape == (3,)
    assert values.mean().item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_images_without_a_labelled_pixel_cost_nothing(loss: losses.LossName) -> None:
    outputs, masks = random_batch()
    one = losses.SegmentationLoss(loss, dice=0.5)(outputs, torch.where(torch.arange(3)[:, None, None] == 1, 255, masks))
    assert one[1] == 0 and (one[[0, 2]] > 0).all()
    values = losses.SegmentationLoss(loss, dice=0.5)(outputs, torch.full_like(masks, 255))
    assert values.tolist() == [0, 0, 0]
    values.sum().backward()
    assert torch.isfinite(outputs["logits"].grad).all()


def test_ohem_keeps_hard_pixels_and_a_minimum() -> None:
    true = torch.tensor([0.99, 0.95, 0.6, 0.1])  # probability of the true class, 0
    logits = torch.stack([true.log(), (1 - true).log()])[None, :, None]
    masks = torch.zeros(1, 1, 4, dtype=torch.long)
    hard = losses.ohem(logits, masks, threshold=0.7, fraction=0.25)
    assert hard.item() == pytest.approx(-(np.log(0.6) + np.log(0.1)) / 2, rel=1e-5)
    most = losses.ohem(logits, masks, threshold=0.05, fraction=0.75)
    assert most.item() == pytest.approx(-np.log([0.95, 0.6, 0.1]).mean(), rel=1e-5)
    ignored = losses.ohem(logits, torch.tensor([[[0, 0, 0, 255]]]), threshold=0.7, fraction=0.25)
    assert ignored.item() == pytest.approx(-np.log(0.6), rel=1e-5)


def test_dice_by_hand() -> None:
    true = torch.tensor([0.9, 0.8, 0.3])
    logits = torch.stack([true.log(), (1 - true).log(), torch.full((3,), -1e9)])[None, :, None]
    masks = torch.tensor([[[0, 0, 1]]])
    first = (2 * 1.7 + 1) / (2.0 + 2 + 1)
    second = (2 * 0.7 + 1) / (1.0 + 1 + 1)
    assert losses.dice(logits, masks).item() == pytest.approx(1 - (first + second) / 2, rel=1e-5)
    added = losses.SegmentationLoss(dice=2.0)({"logits": logits}, masks)
    assert added.item() == pytest.approx(
        losses.pixel_cross_entropy(logits, masks).item() + 2 * (1 - (first + second) / 2)
    )


def test_losses_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="dice"):
        losses.SegmentationLoss("dise")
    with pytest.raises(SettingsError, match="label_smoothing"):
        losses.SegmentationLoss(label_smoothing=1.0)


# networks


V2: dict[str, Any] = {"net": "mobilenetv2_100", "num_classes": 21, "head": "deeplabv3"}


def test_the_light_head_on_mobilenetv2_has_the_papers_cost() -> None:
    """MobileNetV2 (1801.04381), table 7, row "V2* 16": 2.11M parameters, 2.75B multiply-adds on 513 x 513."""
    total = cost(Segmenter(**V2), (1, 3, 513, 513))
    assert total.unknown == {}
    assert total.params / 1e6 == pytest.approx(2.11, abs=0.005)
    assert total.macs / 1e9 == pytest.approx(2.75, rel=0.005)
    assert cost(Segmenter(**V2), (1, 3, 512, 512)).macs / 1e9 == pytest.approx(2.60, abs=0.005)  # 32 x 32, not 33 x 33


def test_aspp_on_mobilenetv2_has_the_papers_cost_once_its_padding_counts() -> None:
    """The row with ASPP: 4.52M, 5.8B. Ours are 5.36B.

    TensorFlow computed a dilated convolution on a map cut into rate x rate smaller ones, filled up to a multiple of
    the rate: at the rates 6, 12 and 18 these are 36 x 36 positions in the place of 33 x 33, which the paper counts.
    """
    total = cost(Segmenter(**V2, aspp=True), (1, 3, 513, 513))
    assert total.params / 1e6 == pytest.approx(4.52, abs=0.005)
    filled = sum((-(-33 // rate) * rate) ** 2 - 33**2 for rate in (6, 12, 18)) * 9 * 320 * 256
    assert total.macs / 1e9 == pytest.approx(5.364, abs=0.001)
    assert (total.macs + filled) / 1e9 == pytest.approx(5.8, abs=0.05)


def test_lraspp_on_mobilenetv3_has_torchvisions_parameters() -> None:
    """torchvision's lraspp_mobilenet_v3_large of 21 classes has 3,221,538."""
    network = Segmenter("mobilenetv3_large_100", 21, head="lraspp", conv_head=True)
    assert sum(each.numel() for each in network.parameters()) == 3_221_538


@pytest.mark.parametrize("head", ["lraspp", "deeplabv3", "deeplabv3plus"])
@pytest.mark.parametrize("output_stride", [16, *(pytest.param(stride, marks=pytest.mark.full) for stride in (8, 32))])
@pytest.mark.parametrize("net", ["mobilenetv2_035", "resnet18", "squeezenet1_1"])
def test_any_head_fits_any_network_at_any_size(head: Any, output_stride: int, net: str) -> None:
    network = Segmenter(net, 5, head=head, output_stride=output_stride, channels=16, aspp=head != "lraspp").eval()
    with torch.no_grad():
        logits = network(torch.zeros(2, 3, 70, 101))["logits"]
    assert logits.shape[:2] == (2, 5)
    assert abs(logits.shape[2] - 70 / network.reduction) < 2.1 and abs(logits.shape[3] - 101 / network.reduction) < 2.1
    if net != "squeezenet1_1":  # whose maps are never strided by 32, nor padded
        wanted = {"lraspp": min(8, output_stride // 2), "deeplabv3": output_stride, "deeplabv3plus": 4}
        assert network.reduction == wanted[head]
        assert logits.shape[2:] == (-(-70 // network.reduction), -(-101 // network.reduction))


@pytest.mark.parametrize("head", ["lraspp", "deeplabv3", "deeplabv3plus"])
def test_a_network_trains_on_a_batch_of_one(head: Any) -> None:
    network = Segmenter("mobilenetv2_035", 3, head=head, channels=8, aspp=True).train()
    values = losses.SegmentationLoss()(network(torch.randn(1, 3, 64, 64)), torch.zeros(1, 64, 64, dtype=torch.uint8))
    values.mean().backward()
    assert all(each.grad is not None and torch.isfinite(each.grad).all() for each in network.parameters())


def test_the_large_pool_gates_by_place() -> None:
    """A map of 66 x 70 has two windows of 49 x 49 a side at strides (16, 20); a small map has one."""
    head = LrAspp(4, 5, 3, channels=8, pool="large").eval()
    high = torch.randn(1, 5, 66, 70)
    pooled = head._pooled(high)
    assert pooled.shape == (1, 5, 2, 2)
    assert torch.allclose(pooled[..., 1, 1], high[..., 16:65, 20:69].mean((2, 3)), atol=1e-5)
    assert head(torch.zeros(1, 4, 132, 140), high).shape == (1, 3, 132, 140)
    small = torch.randn(1, 5, 7, 9)
    adaptive = LrAspp(4, 5, 3, channels=8).eval()
    adaptive.load_state_dict(head.state_dict())
    assert torch.allclose(head(torch.zeros(1, 4, 14, 18), small), adaptive(torch.zeros(1, 4, 14, 18), small), atol=1e-6)


@pytest.mark.parametrize("conv_head", [False, True])
def test_a_backbone_takes_the_weights_of_a_classifier(tmp_path: Path, conv_head: bool) -> None:
    classifier = create_model("mobilenetv2_035", num_classes=7)
    save_file(classifier.state_dict(), tmp_path / "weights.safetensors")
    network = Segmenter("mobilenetv2_035", 3, conv_head=conv_head)
    load_pretrained(network, "mobilenetv2_035", str(tmp_path / "weights.safetensors"))
    theirs = classifier.state_dict()
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    if conv_head:
        assert torch.equal(network.conv_head.conv.weight, theirs["conv_head.conv.weight"])


def test_a_network_of_timm_is_a_backbone() -> None:
    if importlib.util.find_spec("timm") is None:  # importing it is left to the library, which knows how
        pytest.skip("timm is not installed")
    network = Segmenter("timm:resnet18", 4, head="deeplabv3plus", channels=16).eval()
    assert network(torch.zeros(1, 3, 64, 96))["logits"].shape == (1, 4, 16, 24)


def test_networks_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="lraspp"):
        Segmenter("resnet18", 3, head="lrasp")
    with pytest.raises(SettingsError, match="output_stride"):
        Segmenter("resnet18", 3, output_stride=4)
    with pytest.raises(SettingsError, match="no last 1x1"):
        Segmenter("resnet18", 3, conv_head=True)
    with pytest.raises(SettingsError, match="channels"):
        Segmenter("resnet18", 3, channels=0)


# export


@pytest.fixture(scope="module")
def exported() -> tuple[Segmenter, bytes]:
    from gossamer.export.convert import to_onnx

    torch.manual_seed(0)
    network = Segmenter("mobilenetv2_035", 6, channels=16).eval()
    return network, to_onnx(network, (64, 96))


def test_a_mask_in_the_onnx_file_is_numpys(exported: tuple[Segmenter, bytes]) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from gossamer.export.masks import add_mask

    proto = onnx.load_from_string(exported[1])
    add_mask(proto, (64, 96))
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = RNG.normal(size=(3, 3, 64, 96)).astype(np.float32)
    logits, masks = session.run(None, {"input": pixels})
    assert masks.dtype == np.uint8 and masks.shape == (3, 64, 96)
    expected = np.stack([mask_predictions.mask_of_logits(each, (64, 96), (64, 96)) for each in logits])
    assert (masks == expected).mean() > 0.9999
    assert len(np.unique(masks)) > 1
    with torch.no_grad():
        assert logits == pytest.approx(exported[0](torch.from_numpy(pixels))["logits"].numpy(), abs=1e-4)
    with pytest.raises(InputError, match="none called 'mask'"):
        add_mask(proto, (64, 96))
    with pytest.raises(InputError, match=r"an output 'road\.logits'"):
        add_mask(proto, (64, 96), "road")


@pytest.mark.parametrize("classes", [1, 255, 256, 1000])
def test_a_mask_of_more_classes_than_a_byte_holds_is_refused(classes: int) -> None:
    onnx = pytest.importorskip("onnx")
    from gossamer.export.masks import add_mask

    x, y = (onnx.helper.make_tensor_value_info(name, 1, [300, classes, 2, 300]) for name in ("x", "logits"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["logits"])], "one", [x], [y])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    if classes > 255:
        with pytest.raises(SettingsError, match=f"{classes} classes; allowed: 1 to 255"):
            add_mask(proto, (4, 4))
        return
    add_mask(proto, (4, 6))
    shape = [dim.dim_value for dim in proto.graph.output[1].type.tensor_type.shape.dim]
    assert proto.graph.output[1].name == "mask" and shape == [300, 4, 6]


def test_two_heads_have_a_mask_each() -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from gossamer.export.masks import add_mask

    helper, outputs = onnx.helper, ["a.logits", "b.logits"]
    values = [helper.make_tensor_value_info(name, 1, ["n", 2, 2, 3]) for name in ["x", *outputs]]
    nodes = [helper.make_node("Identity", ["x"], outputs[:1]), helper.make_node("Neg", ["x"], outputs[1:])]
    graph = helper.make_graph(nodes, "two", values[:1], values[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    add_mask(proto, (5, 7), "a")
    add_mask(proto, (5, 7), "b")
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = RNG.normal(size=(1, 2, 2, 3)).astype(np.float32)
    first, second = session.run(["a.mask", "b.mask"], {"x": x})
    assert (first[0] == mask_predictions.mask_of_logits(x[0], (5, 7), (5, 7))).all()
    assert (first + second == 1).all()
