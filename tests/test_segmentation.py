"""Semantic segmentation: masks on disk, networks, losses, transforms, scores and answers."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from gossamer.answers import masks as answers
from gossamer.cost import cost
from gossamer.data import legend
from gossamer.data.masks import apply_mask_split, open_mask_source, open_masks, pixel_counts, read_masks
from gossamer.data.split import split_rows
from gossamer.errors import DataError, ImageError, InputError, SettingsError, UnknownNameError
from gossamer.images import Preprocess
from gossamer.networks import create_model
from gossamer.tasks.segmentation import losses
from gossamer.tasks.segmentation.augment import SegmentTransform
from gossamer.tasks.segmentation.heads import LrAspp, Segmenter
from gossamer.tasks.segmentation.scores import MaskScorer, confusion_of

RNG = np.random.default_rng(3)


def save(path: Path, array: Any, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array, np.uint8))
    (image.convert(mode) if mode else image).save(path)
    return path


def picture(height: int = 6, width: int = 8) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def mask(*values: int, height: int = 6, width: int = 8) -> np.ndarray:
    """A mask in which each of `values` has some pixels."""
    return np.resize(np.array(values, np.uint8), height * width).reshape(height, width)


def folder(root: Path, count: int = 4, values: tuple[int, ...] = (0, 1, 2), parts: tuple[str, ...] = ("train", "val")):
    for part in parts:
        for index in range(count):
            save(root / part / "images" / f"{index}.png", picture())
            save(root / part / "masks" / f"{index}.png", mask(*values))
    return root


# --- answers -------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40))
def test_upsampling_is_torchs(k: int, h: int, w: int, height: int, width: int) -> None:
    logits = np.random.default_rng(h * 10 + w).normal(size=(k, h, w)).astype(np.float32)
    doubled = torch.from_numpy(logits.astype(np.float64))[None]
    expected = F.interpolate(doubled, size=(height, width), mode="bilinear", align_corners=False)[0].numpy()
    found = answers.upsample(logits, (height, width), (8 * h, 8 * w))
    assert np.abs(found - expected).max() < 1e-5
    assert (answers.mask_of(logits, (height, width), (8 * h, 8 * w)) == found.argmax(axis=0)).all()


def test_rows_are_worked_on_in_pieces_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = RNG.normal(size=(4, 7, 9)).astype(np.float32)
    whole = answers.mask_of(logits, (50, 60), (112, 144))
    monkeypatch.setattr(answers, "CHUNK", 130)  # two rows at a time
    assert (answers.mask_of(logits, (50, 60), (112, 144)) == whole).all()


@pytest.mark.parametrize(("resize", "size"), [("squash", (30, 50)), ("pad", (25, 50)), ("pad", (50, 30))])
def test_the_geometry_of_the_preprocessing_is_undone(resize: str, size: tuple[int, int]) -> None:
    """A map that holds its own coordinates gives each pixel's place in the input."""
    preprocess = Preprocess((40, 48), resize=resize)
    rows, columns = np.mgrid[0:40, 0:48].astype(np.float32) + 0.5
    found = answers.upsample(np.stack([rows, columns]), size, (40, 48), preprocess.place(*size))
    scale = min(40 / size[0], 48 / size[1])
    down, across = (40, 48) if resize == "squash" else (round(size[0] * scale), round(size[1] * scale))
    y = (np.arange(size[0]) + 0.5) * down / size[0] + (40 - down) // 2
    x = (np.arange(size[1]) + 0.5) * across / size[1] + (48 - across) // 2
    assert found[0] == pytest.approx(np.broadcast_to(np.clip(y, 0.5, 39.5)[:, None], size), abs=1e-4)
    assert found[1] == pytest.approx(np.broadcast_to(np.clip(x, 0.5, 47.5), size), abs=1e-4)


def test_a_placement_is_where_the_preprocessing_puts_a_picture() -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[10:, 20:] = 255
    preprocess = Preprocess((64, 64), resize="pad", mean=(0, 0, 0), std=(1, 1, 1))
    lit = np.argwhere(preprocess.pixels(pixels)[..., 0] > 127)
    place = preprocess.place(20, 40)
    assert lit.min(axis=0).tolist() == [10 * place.scale_y + place.shift_y, 20 * place.scale_x + place.shift_x]
    assert (lit.max(axis=0) + 1).tolist() == [20 * place.scale_y + place.shift_y, 40 * place.scale_x + place.shift_x]


def test_more_classes_than_a_byte_holds_are_refused() -> None:
    with pytest.raises(SettingsError, match="256 classes"):
        answers.mask_of(np.zeros((256, 2, 2), np.float32), (2, 2), (2, 2))


def test_windows_of_a_pointwise_network_give_the_mask_of_the_whole() -> None:
    pixels = RNG.integers(0, 256, (37, 53, 3), dtype=np.uint8)

    def run(window: np.ndarray) -> np.ndarray:
        assert window.shape == (16, 24, 3)
        return window.transpose(2, 0, 1).astype(np.float32)

    for overlap in (0.0, 0.3, 0.9):
        found = answers.sliding_window(run, pixels, (16, 24), overlap)
        assert (found == pixels.argmax(axis=2)).all()
    small = pixels[:5, :7]
    assert (answers.sliding_window(run, small, (16, 24)) == small.argmax(axis=2)).all()


def test_where_windows_overlap_their_mean_counts() -> None:
    pixels = np.zeros((20, 30, 1), np.uint8)
    calls: list[np.ndarray] = []

    def run(window: np.ndarray) -> np.ndarray:
        calls.append(np.random.default_rng(len(calls)).normal(size=(3, 8, 12)).astype(np.float32))
        return calls[-1]

    found = answers.sliding_window(run, pixels, (8, 12), 0.5)
    total, seen, index = np.zeros((3, 20, 30)), np.zeros((20, 30)), 0
    for top in (0, 4, 8, 12):
        for left in (0, 6, 12, 18):
            total[:, top : top + 8, left : left + 12] += calls[index]
            seen[top : top + 8, left : left + 12] += 1
            index += 1
    assert index == len(calls)
    assert (found == (total / seen).argmax(axis=0)).all()
    with pytest.raises(SettingsError, match="overlap"):
        answers.sliding_window(run, pixels, (8, 12), 1.0)
    with pytest.raises(ImageError, match="shape"):
        answers.sliding_window(run, pixels[:0], (8, 12))


def test_colours_are_distinct_and_stay() -> None:
    colours = answers.palette(255)
    assert len({tuple(colour) for colour in colours.tolist()}) == 255
    assert colours.any(axis=1).all()
    assert (answers.palette(7) == colours[:7]).all()
    assert colours[:3].tolist() == [[128, 0, 0], [0, 128, 0], [128, 128, 0]]  # VOC's, from aeroplane on


def test_an_overlay_leaves_ignored_pixels_as_they_are() -> None:
    pixels = np.full((1, 3, 3), 100, np.uint8)
    shown = answers.overlay(
        pixels, np.array([[0, 1, 255]], np.uint8), 0.25, np.array([[200, 0, 40], [0, 0, 0]], np.uint8)
    )
    assert shown.tolist() == [[[125, 75, 85], [75, 75, 75], [100, 100, 100]]]
    with pytest.raises(ImageError, match="equal sizes"):
        answers.overlay(pixels, np.zeros((2, 3), np.uint8))


# --- scores --------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    truth = np.array([[0, 0, 0, 1], [1, 1, 255, 255]], np.uint8)
    said = np.array([[0, 0, 1, 1], [1, 0, 0, 2]], np.uint8)
    scorer = MaskScorer(("a", "b", "c", "d"), (8, 8))
    scorer.count("x", truth, said)
    found = scorer.scores()
    assert found.confusion.tolist() == [[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert found.iou.tolist()[:2] == [2 / 4, 2 / 4]
    assert np.isnan(found.iou[2:]).all()
    assert found.metrics == pytest.approx({"miou": 0.5, "pixel_accuracy": 4 / 6, "mean_accuracy": 2 / 3})
    assert found.image_miou.tolist() == [0.5]
    assert found.to_json()["per_class"][2]["iou"] is None
    assert json.loads(json.dumps(found.to_json()))["loss"] is None
    assert "miou 0.5000" in found.text()


def test_a_class_said_where_it_is_not_counts_as_zero() -> None:
    scorer = MaskScorer(("a", "b", "c"), (8, 8))
    scorer.count("x", np.zeros((1, 4), np.uint8), np.array([[0, 0, 0, 1]], np.uint8))
    assert scorer.scores().metrics["miou"] == pytest.approx((0.75 + 0) / 2)


def test_scores_are_sklearns_whatever_the_order_and_the_parts() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    pairs = [RNG.integers(0, 5, (2, 6, int(RNG.integers(1, 9))), dtype=np.uint8) for _ in range(9)]
    whole, first, second = (MaskScorer(tuple("abcde"), (8, 8)) for _ in range(3))
    for index, (truth, said) in enumerate(pairs):
        whole.count(str(index), truth, said)
        (first if index < 4 else second).count(str(index), truth, said)
    truth, said = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    found = whole.scores()
    assert (found.confusion == metrics.confusion_matrix(truth, said)).all()
    assert found.iou == pytest.approx(metrics.jaccard_score(truth, said, average=None))
    assert found.metrics["mean_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, said))
    early = first.scores()
    second.unreadable.append(("bad", "why"))
    first.merge(pickle.loads(pickle.dumps(second)))
    assert first.scores().metrics == found.metrics and first.scores().names == found.names
    assert first.scores().unreadable == [("bad", "why")]
    assert len(early.names) == 4 and early.confusion.sum() < found.confusion.sum()  # scores given do not change later
    worst = found.worst(3)
    assert worst[0][1] == found.image_miou.min() and len(worst) == 3
    assert np.isnan(MaskScorer(tuple("abcde"), (8, 8)).scores().metrics["miou"])


def test_logits_are_scored_at_the_size_of_each_image() -> None:
    preprocess = Preprocess((32, 48), resize="pad")
    truths = [mask(0, 1, 2, height=11, width=30), mask(2, 0, height=40, width=9)]
    logits = RNG.normal(size=(2, 3, 4, 6)).astype(np.float32)
    scorer, expected = MaskScorer(("a", "b", "c"), (32, 48)), np.zeros((3, 3), np.int64)
    places = [preprocess.place(*truth.shape) for truth in truths]
    for one, truth, place in zip(logits, truths, places):
        expected += confusion_of(truth, answers.upsample(one, truth.shape, (32, 48), place).argmax(0), 3)
    scorer.add(["x", "y"], {"logits": logits}, truths, places)
    assert (scorer.scores().confusion == expected).all()
    assert scorer.scores().names == ["x", "y"]


def test_masks_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(DataError, match="one size"):
        confusion_of(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 2)
    with pytest.raises(DataError, match="class 2"):
        confusion_of(np.zeros((1, 1), np.uint8), np.full((1, 1), 2, np.uint8), 2)


# --- losses --------------------------------------------------------------------------------------


def some(n: int = 3, k: int = 4) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    masks = torch.randint(0, k, (n, 12, 16), generator=generator)
    masks[0, :9] = 255
    return {"logits": torch.randn(n, k, 3, 4, generator=generator, requires_grad=True)}, masks.to(torch.uint8)


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.2, 3.0, 0.5])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_mean_of_cross_entropy_is_torchs(weights: torch.Tensor | None, smoothing: float) -> None:
    outputs, masks = some()
    values = losses.SegmentationLoss(weights=weights, label_smoothing=smoothing)(outputs, masks)
    large = F.interpolate(outputs["logits"], size=(12, 16), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(large, masks.long(), weights, ignore_index=255, label_smoothing=smoothing)
    assert values.shape == (3,)
    assert values.mean().item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_images_without_a_labelled_pixel_cost_nothing(loss: losses.LossName) -> None:
    outputs, masks = some()
    one = losses.SegmentationLoss(loss, dice=0.5)(outputs, torch.where(torch.arange(3)[:, None, None] == 1, 255, masks))
    assert one[1] == 0 and (one[[0, 2]] > 0).all()
    values = losses.SegmentationLoss(loss, dice=0.5)(outputs, torch.full_like(masks, 255))
    assert values.tolist() == [0, 0, 0]
    values.sum().backward()
    assert torch.isfinite(outputs["logits"].grad).all()


def test_ohem_keeps_hard_pixels_and_a_share_at_least() -> None:
    true = torch.tensor([0.99, 0.95, 0.6, 0.1])  # probability of the true class, 0
    logits = torch.stack([true.log(), (1 - true).log()])[None, :, None]
    masks = torch.zeros(1, 1, 4, dtype=torch.long)
    hard = losses.ohem(logits, masks, threshold=0.7, share=0.25)
    assert hard.item() == pytest.approx(-(np.log(0.6) + np.log(0.1)) / 2, rel=1e-5)
    most = losses.ohem(logits, masks, threshold=0.05, share=0.75)
    assert most.item() == pytest.approx(-np.log([0.95, 0.6, 0.1]).mean(), rel=1e-5)
    ignored = losses.ohem(logits, torch.tensor([[[0, 0, 0, 255]]]), threshold=0.7, share=0.25)
    assert ignored.item() == pytest.approx(-np.log(0.6), rel=1e-5)


def test_dice_by_hand() -> None:
    true = torch.tensor([0.9, 0.8, 0.3])
    logits = torch.stack([true.log(), (1 - true).log(), torch.full((3,), -1e9)])[None, :, None]
    masks = torch.tensor([[[0, 0, 1]]])
    first = (2 * 1.7 + 1) / (2.0 + 2 + 1)
    second = (2 * 0.7 + 1) / (1.0 + 1 + 1)
    assert losses.dice(logits, masks).item() == pytest.approx(1 - (first + second) / 2, rel=1e-5)
    added = losses.SegmentationLoss(dice=2.0)({"logits": logits}, masks)
    assert added.item() == pytest.approx(losses.cross_entropy(logits, masks).item() + 2 * (1 - (first + second) / 2))


def test_losses_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="dice"):
        losses.SegmentationLoss("dise")
    with pytest.raises(SettingsError, match="label_smoothing"):
        losses.SegmentationLoss(label_smoothing=1.0)


# --- networks ------------------------------------------------------------------------------------

V2: dict[str, Any] = {"net": "mobilenetv2_100", "num_classes": 21, "head": "deeplabv3"}


def test_the_light_head_on_mobilenetv2_has_the_papers_cost() -> None:
    """MobileNetV2 (1801.04381), table 7, row "V2* 16": 2.11M parameters, 2.75B multiply-adds on 513 x 513."""
    found = cost(Segmenter(**V2), (1, 3, 513, 513))
    assert found.unknown == {}
    assert found.params / 1e6 == pytest.approx(2.11, abs=0.005)
    assert found.macs / 1e9 == pytest.approx(2.75, rel=0.005)
    assert cost(Segmenter(**V2), (1, 3, 512, 512)).macs / 1e9 == pytest.approx(2.60, abs=0.005)  # 32 x 32, not 33 x 33


def test_aspp_on_mobilenetv2_has_the_papers_cost_once_its_padding_counts() -> None:
    """The row with ASPP: 4.52M, 5.8B. Ours are 5.36B.

    TensorFlow computed a dilated convolution on a map cut into rate x rate smaller ones, filled up to a multiple of
    the rate: at the rates 6, 12 and 18 these are 36 x 36 positions in the place of 33 x 33, which the paper counts.
    """
    found = cost(Segmenter(**V2, aspp=True), (1, 3, 513, 513))
    assert found.params / 1e6 == pytest.approx(4.52, abs=0.005)
    filled = sum((-(-33 // rate) * rate) ** 2 - 33**2 for rate in (6, 12, 18)) * 9 * 320 * 256
    assert found.macs / 1e9 == pytest.approx(5.364, abs=0.001)
    assert (found.macs + filled) / 1e9 == pytest.approx(5.8, abs=0.05)


def test_lraspp_on_mobilenetv3_has_torchvisions_parameters() -> None:
    """torchvision's lraspp_mobilenet_v3_large of 21 classes has 3,221,538."""
    network = Segmenter("mobilenetv3_large_100", 21, head="lraspp", conv_head=True)
    assert sum(each.numel() for each in network.parameters()) == 3_221_538


@pytest.mark.parametrize("head", ["lraspp", "deeplabv3", "deeplabv3plus"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
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
    whole = LrAspp(4, 5, 3, channels=8).eval()
    whole.load_state_dict(head.state_dict())
    assert torch.allclose(head(torch.zeros(1, 4, 14, 18), small), whole(torch.zeros(1, 4, 14, 18), small), atol=1e-6)


@pytest.mark.parametrize("conv_head", [False, True])
def test_a_backbone_takes_the_weights_of_a_classifier(tmp_path: Path, conv_head: bool) -> None:
    classifier = create_model("mobilenetv2_035", num_classes=7)
    save_file(classifier.state_dict(), tmp_path / "weights.safetensors")
    network = Segmenter("mobilenetv2_035", 3, conv_head=conv_head, pretrained=str(tmp_path / "weights.safetensors"))
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


# --- transforms ----------------------------------------------------------------------------------


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("resize", ["squash", "pad"])
@pytest.mark.parametrize("size", [(40, 64), (21, 13)])
def test_picture_and_mask_move_as_one(resize: str, size: tuple[int, int]) -> None:
    """With the nearest pixel taken for both, each pixel of the result shows its own class, or the page."""
    truth = RNG.integers(0, 20, size, dtype=np.uint8)
    pixels = np.repeat(truth[..., None] * 10, 3, axis=2)
    preprocess = Preprocess((32, 48), resize=resize, interpolation="nearest", mean=(0.99,) * 3)
    transform = SegmentTransform(preprocess)
    assert transform.shape == (32, 48, 3)
    page = covered = 0
    for seed in range(40):
        image, target = transform.joint(encoded(pixels), truth, np.random.default_rng(seed))
        assert image.shape == (32, 48, 3) and target.shape == (32, 48)
        assert image.dtype == target.dtype == np.uint8
        assert (np.where(target == 255, 252, target.astype(int) * 10) == image[..., 0]).all()
        page += int((target == 255).any())
        covered += int((target != 255).all())
        again = transform.joint(encoded(pixels), truth, np.random.default_rng(seed))
        assert (again[0] == image).all() and (again[1] == target).all()
    assert page > 5
    assert covered > 5 or resize == "pad"


def test_at_scale_one_training_sees_what_deployment_sees() -> None:
    pixels = picture(60, 80)
    preprocess = Preprocess((32, 48), resize="pad")
    transform = SegmentTransform(preprocess, scale=(1, 1), flip=0)
    image, target = transform.joint(encoded(pixels), mask(1, height=60, width=80), np.random.default_rng(0))
    inner = np.flatnonzero(target[0] != 255)
    whole = preprocess.pixels(pixels)
    start = (48 - len(inner)) // 2
    assert (image[:, inner] == whole[:, start : start + len(inner)]).all()
    assert (image[target == 255] == whole[0, 0]).all()


def test_a_jpeg_decoded_small_keeps_its_place() -> None:
    pixels = np.zeros((400, 640, 3), np.uint8)
    pixels[200:, 320:] = 255
    truth = (pixels[..., 0] > 0).astype(np.uint8)
    transform = SegmentTransform(Preprocess((40, 64), resize="squash"), color_jitter=0.1)
    for seed in range(10):
        image, target = transform.joint(encoded(pixels, "JPEG"), truth, np.random.default_rng(seed))
        seen = target != 255
        assert ((image[..., 0] > 110) == target)[seen].mean() > 0.97


def test_a_scale_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(SettingsError, match="scale"):
        SegmentTransform(Preprocess((32, 32)), scale=(2.0, 0.5))


# --- data ----------------------------------------------------------------------------------------


def test_folders_by_split_are_recognised(tmp_path: Path) -> None:
    data = open_masks(folder(tmp_path, 3, parts=("train", "val", "test")))
    assert [len(source) for source in data.splits().values()] == [3, 3, 3]
    assert data.classes == ("0", "1", "2")
    assert data.train.names[0] == "train/images/0.png"
    assert (data.train.answers.read(int(data.train.rows[0])) == mask(0, 1, 2)).all()
    assert "3 classes, 3 training and 3 validation" in data.how
    assert len(open_mask_source(tmp_path, data.classes)) == 3
    assert open_mask_source(tmp_path, data.classes).names[0].startswith("test/")


def test_splits_inside_the_folders_are_recognised(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("validation", 2)):
        for index in range(count):
            save(tmp_path / "images" / split / f"town/{index}.png", picture())
            save(tmp_path / "masks" / split / f"town/{index}_mask.png", mask(0, 1))
    data = open_masks(tmp_path)
    assert (len(data.train), len(data.val)) == (3, 2)


def test_a_flat_folder_is_split_by_seed(tmp_path: Path) -> None:
    for index in range(10):
        save(tmp_path / "images" / f"{index}.png", picture())
        save(tmp_path / "masks" / f"{index}.png", mask(0, 1))
    data = open_masks(tmp_path, val_share=0.3, seed=1)
    assert (len(data.train), len(data.val)) == (7, 3)
    assert not set(data.train.names) & set(data.val.names)
    assert open_masks(tmp_path, val_share=0.3, seed=1).val.names == data.val.names
    assert open_masks(tmp_path, val_share=0.3, seed=2).val.names != data.val.names


def voc(root: Path) -> Path:
    for index in range(6):
        save(root / "JPEGImages" / f"{index}.jpg", picture())
        if index < 5:
            image = Image.fromarray(mask(0, 1, 2, 255))
            image.putpalette(np.vstack([[[0, 0, 0]], answers.palette(255)]).astype(np.uint8).ravel().tolist())
            path = root / "SegmentationClass" / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            image.save(path)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0\n1\n2\n")
    (lists / "val.txt").write_text("3\n4\n5\n")
    return root


def test_pascal_voc_is_recognised(tmp_path: Path) -> None:
    data = open_masks(voc(tmp_path))
    assert data.how.startswith("PASCAL VOC folder")
    assert (len(data.train), len(data.val), data.classes) == (3, 2, ("0", "1", "2"))
    assert any("1 of 3 have no image with a mask: 5" in note for note in data.notes)
    assert set(np.unique(data.train.answers.read(0)).tolist()) == {0, 1, 2, 255}
    lists = tmp_path / "ImageSets" / "Segmentation"
    (lists / "train.txt").rename(lists / "trainval.txt")
    (lists / "test.txt").write_text("4\n")
    assert [len(source) for source in open_masks(tmp_path, val_share=0.4).splits().values()] == [2, 1, 1]


def test_an_ignored_value_is_no_class(tmp_path: Path) -> None:
    root = folder(tmp_path, values=(0, 1, 2, 3))
    last = open_masks(root, ignore_index=3)
    assert last.classes == ("0", "1", "2")
    assert (last.train.answers.read(0) == mask(0, 1, 2, 255)).all()
    first = open_masks(root, ignore_index=0)
    assert first.classes == ("1", "2", "3")
    assert (first.train.answers.read(0) == mask(255, 0, 1, 2)).all()
    (root / "classes.txt").write_text("void\nroad\ncar\nsky\n")
    named = open_masks(root, ignore_index=0)
    assert named.classes == ("road", "car", "sky")
    assert (named.train.answers.read(0) == mask(255, 0, 1, 2)).all()
    source = open_mask_source(root, ("sky", "road", "car"), ignore_index=0)
    assert (source.answers.read(0) == mask(255, 1, 2, 0)).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_classes_by_the_classes_file(tmp_path: Path, mode: str) -> None:
    colours = np.array([[128, 64, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    for split in ("train", "val"):
        save(tmp_path / split / "images" / "a.jpg", picture())
        image = Image.fromarray(colours[mask(0, 1, 2)])
        image = image.quantize(16) if mode == "P" else image.convert(mode)
        (tmp_path / split / "masks").mkdir()
        image.save(tmp_path / split / "masks" / "a.png")
    (tmp_path / "classes.json").write_text(json.dumps({"road": [128, 64, 0], "sky": [0, 0, 255], "void": [9, 9, 9]}))
    data = open_masks(tmp_path, ignore_index=2)
    assert data.classes == ("road", "sky")
    assert (data.train.answers.read(0) == mask(0, 1, 255)).all()


@pytest.mark.parametrize("mode", ["L", "1", "RGB"])
def test_masks_in_black_and_white_are_classes_by_their_colours(tmp_path: Path, mode: str) -> None:
    for split in ("train", "val"):
        save(tmp_path / split / "images" / "a.png", picture())
        save(tmp_path / split / "masks" / "a.png", mask(0, 255), mode)
    if mode == "L":
        with pytest.raises(DataError, match="object 255 255 255"):
            open_masks(tmp_path)
    (tmp_path / "classes.txt").write_text("ground 0 0 0\nliving thing 255 255 255\n")
    data = open_masks(tmp_path)
    assert data.classes == ("ground", "living thing")
    assert (data.train.answers.read(0) == mask(0, 1)).all()


def test_masks_of_16_bits_and_grey_rgb_hold_class_numbers(tmp_path: Path) -> None:
    folder(tmp_path, 2)
    Image.fromarray(mask(0, 1, 2).astype(np.uint16)).save(tmp_path / "train/masks/0.png")
    save(tmp_path / "train/masks/1.png", mask(0, 1, 2), "RGB")
    source = open_masks(tmp_path).train
    for row in (0, 1):
        assert (source.answers.read(row) == mask(0, 1, 2)).all()


def test_validation_data_may_lie_elsewhere(tmp_path: Path) -> None:
    root, other = folder(tmp_path / "a"), folder(tmp_path / "b", 2, values=(0, 1))
    (root / "classes.txt").write_text("x\ny\nz\n")
    data = open_masks(root, val=other)
    assert len(data.val) == 2 and data.classes == data.val.classes == ("x", "y", "z")
    assert data.val.names[0].startswith(str(other))
    assert any("not used" in note for note in data.notes)
    (other / "classes.txt").write_text("x\ny\nother\n")
    with pytest.raises(DataError, match="other"):
        open_masks(root, val=other)


def test_a_saved_split_is_found_again(tmp_path: Path) -> None:
    for index in range(6):
        save(tmp_path / "images" / f"{index}.png", picture())
        save(tmp_path / "masks" / f"{index}.png", mask(0, 1))
    data = open_masks(tmp_path)
    rows = split_rows(data)
    gone, added = Path(data.train.names[0]).name, "7.png"
    (tmp_path / "masks" / gone).unlink()
    save(tmp_path / "images" / added, picture())
    save(tmp_path / "masks" / added, mask(0, 1))
    again = apply_mask_split(tmp_path, rows, classes=data.classes)
    assert again.val.names == data.val.names and again.train.names == data.train.names[1:]
    assert again.val.answers is not None
    assert any("1 images are gone" in note for note in again.notes)
    assert any("1 images were added" in note for note in again.notes)


def test_the_fingerprint_knows_the_masks(tmp_path: Path) -> None:
    before = open_masks(folder(tmp_path)).fingerprint
    assert open_masks(tmp_path).fingerprint == before
    save(tmp_path / "val/masks/0.png", RNG.integers(0, 3, (6, 8)))
    assert open_masks(tmp_path).fingerprint != before


def test_selected_images_keep_their_masks(tmp_path: Path) -> None:
    data = open_masks(folder(tmp_path))
    save(tmp_path / "train/masks/2.png", mask(2, 2, 1))
    chosen = data.train.select(np.array([2]))
    assert (chosen.answers.read(int(chosen.rows[0])) == mask(2, 2, 1)).all()


def test_pixels_of_each_class_are_counted(tmp_path: Path) -> None:
    data = open_masks(folder(tmp_path, 2, values=(0, 1, 1, 2)))
    assert pixel_counts(data.train) == [24, 48, 24]
    (tmp_path / "train/masks/0.png").write_bytes(b"")
    assert pixel_counts(data.train) == [12, 24, 12]


def test_what_lies_alone_is_noted(tmp_path: Path) -> None:
    folder(tmp_path, 3)
    save(tmp_path / "train/images/lonely.png", picture())
    save(tmp_path / "train/masks/forgotten.png", mask(0, 1))
    save(tmp_path / "test/images/a.png", picture())
    notes = open_masks(tmp_path).notes
    assert any("1 images have no mask and are left out: lonely" in note for note in notes)
    assert any("1 masks have no image and are left out: forgotten" in note for note in notes)
    assert any("test: is passed over, for it has no folder of masks" in note for note in notes)


def _jpeg(root: Path) -> None:
    (root / "train/masks/0.png").write_bytes(encoded(mask(0, 1), "JPEG"))


BAD_MASKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another size": (
        lambda root: save(root / "train/masks/0.png", mask(0, 1, width=9)),
        "9 x 6 pixels, its image 8 x 6",
    ),
    "a value that is no class": (
        lambda root: save(root / "train/masks/0.png", mask(0, 77)),
        "24 pixels have the value 77",
    ),
    "a 16-bit value": (
        lambda root: Image.fromarray(mask(0, 1).astype(np.uint16) * 300).save(root / "train/masks/0.png"),
        "value 300",
    ),
    "colours without a list": (lambda root: save(root / "train/masks/0.png", picture()), "has colours"),
    "a JPEG": (_jpeg, "is a JPEG file"),
    "empty": (lambda root: (root / "train/masks/0.png").write_bytes(b""), "is empty"),
    "cut off": (lambda root: (root / "train/masks/0.png").write_bytes(encoded(mask(0, 1))[:60]), "0.png"),
    "no picture": (lambda root: (root / "train/masks/0.png").write_text("hello"), "not a picture"),
    "gone": (lambda root: (root / "train/masks/0.png").unlink(), "No such file"),
    "of a damaged image": (lambda root: (root / "train/images/0.png").write_bytes(b"x"), "images/0.png"),
    "of odd pixels": (
        lambda root: Image.fromarray(mask(0, 1)).convert("CMYK").save(root / "train/masks/0.png", "TIFF"),
        "CMYK",
    ),
}


@pytest.mark.parametrize("name", BAD_MASKS)
def test_a_bad_mask_is_one_image_set_aside(tmp_path: Path, name: str) -> None:
    data = open_masks(folder(tmp_path), num_classes=3)
    spoil, message = BAD_MASKS[name]
    spoil(tmp_path)
    with pytest.raises(ImageError) as caught:
        data.train.answers.read(0)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert data.train.answers.read(1).shape == (6, 8)
    if name != "gone":
        assert len(open_masks(tmp_path, num_classes=3).train) == 4  # the others go on


def test_a_mask_is_as_upright_as_its_image(tmp_path: Path) -> None:
    data = open_masks(folder(tmp_path), num_classes=3)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: 8 x 6 stored pixels are 6 x 8 upright
    Image.fromarray(picture()).save(tmp_path / "train/images/0.png", exif=exif)
    with pytest.raises(ImageError, match="8 x 6 pixels, its image 6 x 8"):
        data.train.answers.read(0)
    save(tmp_path / "train/masks/0.png", mask(0, 1, height=8, width=6))
    assert data.train.answers.read(0).shape == (8, 6)


def test_a_colour_that_is_not_listed_is_said(tmp_path: Path) -> None:
    folder(tmp_path, 2)
    (tmp_path / "classes.txt").write_text("a 0 0 0\nb 1 2 3\nc 200 0 0\n")
    save(tmp_path / "train/masks/0.png", np.full((6, 8, 3), (1, 2, 4)))
    source = open_masks(tmp_path).train
    with pytest.raises(ImageError, match="48 pixels have the colour 1 2 4"):
        source.answers.read(0)


def _drop(path: Path) -> None:
    for each in path.iterdir():
        each.unlink()
    path.rmdir()


BAD_DATA: dict[str, tuple[Callable[[Path], object], str]] = {
    "no masks folder": (lambda root: _drop(root / "train/masks"), "has no folder of masks"),
    "no images folder": (lambda root: _drop(root / "train/images"), "has no folder of images"),
    "two mask folders": (lambda root: (root / "train/labels").mkdir(), "labels/, masks/"),
    "two folders of a split": (lambda root: (root / "training").mkdir(), "both train/ and training/"),
    "two masks of an image": (lambda root: save(root / "train/masks/0.bmp", mask(0, 1)), "differ in their suffix"),
    "two masks by ending": (lambda root: save(root / "train/masks/0_mask.png", mask(0, 1)), "name one image"),
    "no pair": (
        lambda root: [path.rename(path.with_name(f"x{path.name}")) for path in [*root.glob("*/masks/*")]],
        "no image has a mask",
    ),
    "one class": (lambda root: [save(p, mask(0)) for p in root.glob("*/masks/*")], "one class"),
    "all masks wrong": (lambda root: [save(p, picture()) for p in root.glob("*/masks/*")], "has colours"),
    "both classes files": (
        lambda root: [(root / name).write_text("a\nb\n") for name in legend.FILES],
        "both classes.txt and classes.json",
    ),
    "a name twice": (lambda root: (root / "classes.txt").write_text("a\nb\na\n"), "'a' twice"),
    "a colour twice": (lambda root: (root / "classes.txt").write_text("a 1 1 1\nb 1 1 1\n"), "one colour twice"),
    "a colour missing": (lambda root: (root / "classes.txt").write_text("a 1 1 1\nb\n"), "no colour for 'b'"),
    "a colour too large": (lambda root: (root / "classes.txt").write_text("a 1 1 256\nb 1 1 1\n"), "outside 0 to 255"),
    "no classes": (lambda root: (root / "classes.txt").write_text("\n\n"), "lists no classes"),
    "too many classes": (
        lambda root: (root / "classes.txt").write_text("\n".join(map(str, range(300)))),
        "300 classes",
    ),
    "classes in Latin-1": (lambda root: (root / "classes.txt").write_bytes(b"caf\xe9\nb\n"), "not UTF-8"),
    "too few classes": (lambda root: (root / "classes.txt").write_text("a\nb\n"), "value 2"),
    "broken JSON": (lambda root: (root / "classes.json").write_text("[1,"), "classes.json"),
    "other JSON": (lambda root: (root / "classes.json").write_text('{"a": [1, 2]}'), "holds something else"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_data_that_cannot_be_used_are_one_clear_line(tmp_path: Path, name: str) -> None:
    spoil, message = BAD_DATA[name]
    spoil(folder(tmp_path))
    with pytest.raises(DataError) as caught:
        open_masks(tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_arguments_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    with pytest.raises(DataError, match="does not exist"):
        open_masks(tmp_path / "nothing")
    with pytest.raises(DataError, match="no folder of images"):
        open_masks(tmp_path)
    with pytest.raises(DataError, match="ignore_index 300"):
        open_masks(root, ignore_index=300)
    (root / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(DataError, match="3 classes"):
        open_masks(root, num_classes=4)
    with pytest.raises(DataError, match="a, b, c"):
        open_mask_source(root, ("a", "b", "d"))


def test_voc_lists_that_contradict_are_refused(tmp_path: Path) -> None:
    root = voc(tmp_path)
    (root / "ImageSets/Segmentation/val.txt").write_text("0\n3\n")
    with pytest.raises(DataError, match="0 is in train too"):
        read_masks(root)


@given(st.text(), st.sampled_from([legend.parse_text, legend.parse_json]))
def test_no_classes_file_breaks_the_parser(content: str, parse: Callable[[str, str], list[legend.Entry]]) -> None:
    try:
        entries = parse(content, "classes")
    except DataError:
        return
    names = [name for name, _ in entries]
    assert names and len(set(names)) == len(names) and all(name.isprintable() for name in names)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 300) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
)


@given(json_values)
def test_no_json_breaks_the_parser(values: Any) -> None:
    try:
        entries = legend.parse_json(json.dumps(values), "classes")
    except DataError:
        return
    assert len(entries) == len(values)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, unique=True), st.none() | st.integers(0, 9))
def test_every_value_has_a_class_or_is_ignored(names: list[str], ignore: int | None) -> None:
    entries = legend.numbered(len(names), ignore, names)
    found = legend.legend_of(entries, ignore)
    assert found.classes == tuple(names)
    for value in range(len(entries)):
        index = int(found.indices[value])
        assert (value == ignore) == (index == answers.IGNORED)
        assert value == ignore or index == value - (ignore is not None and ignore < value)
    turned = found.ordered(names[::-1])
    kept = found.indices[(found.indices >= 0) & (found.indices != answers.IGNORED)]
    assert [names[::-1][i] for i in turned.indices[: len(entries)] if i != answers.IGNORED] == [names[i] for i in kept]


# --- export --------------------------------------------------------------------------------------


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
    expected = np.stack([answers.mask_of(each, (64, 96), (64, 96)) for each in logits])
    assert (masks == expected).mean() > 0.9999
    assert len(np.unique(masks)) > 1
    with torch.no_grad():
        assert logits == pytest.approx(exported[0](torch.from_numpy(pixels))["logits"].numpy(), abs=1e-4)
    with pytest.raises(InputError, match="none called 'mask'"):
        add_mask(proto, (64, 96))
    with pytest.raises(InputError, match=r"an output 'road\.logits'"):
        add_mask(proto, (64, 96), "road")


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
    assert (first[0] == answers.mask_of(x[0], (5, 7), (5, 7))).all()
    assert (first + second == 1).all()


# --- a real data set -----------------------------------------------------------------------------


def test_camvid_opens_and_can_be_learnt_from(real_data: Path) -> None:
    root = real_data / "camvid"
    if not root.is_dir():
        pytest.skip("no CamVid beside this checkout")
    data = open_masks(root, ignore_index=11)
    assert (len(data.train), len(data.val), len(data.classes)) == (367, 101, 11)
    counts = pixel_counts(data.val.select(np.arange(8)))
    assert 0.7 * 8 * 360 * 480 < sum(counts) <= 8 * 360 * 480
    preprocess = Preprocess((96, 128), resize="squash", crop_pct=1.0)
    transform = SegmentTransform(preprocess)
    torch.manual_seed(0)
    network = Segmenter("mobilenetv2_035", 11, channels=32).train()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    loss, history = losses.SegmentationLoss(), []
    for step in range(12):
        rows = np.random.default_rng(step).integers(0, 16, 4)
        pairs = [
            transform.joint(
                data.train.read(int(i)), data.train.answers.read(int(i)), np.random.default_rng((step, int(i)))
            )
            for i in rows
        ]
        batch = torch.from_numpy(preprocess.normalise(np.stack([pixels for pixels, _ in pairs])))
        value = loss(network(batch), torch.from_numpy(np.stack([target for _, target in pairs]))).mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        history.append(value.item())
    assert np.mean(history[-3:]) < 0.9 * np.mean(history[:3])
    scorer = MaskScorer(data.classes, (96, 128))
    pixels, place = preprocess.read(data.val.read(0))
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy(preprocess.normalise(pixels[None])))["logits"].numpy()
    scorer.add(data.val.names[:1], logits, [data.val.answers.read(int(data.val.rows[0]))], [place])
    assert 0.1 < scorer.scores().metrics["pixel_accuracy"] <= 1
