"""Detection: anchors, decoding, the paper's counts, matching, losses, and what is exported."""

from __future__ import annotations

import importlib.util
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.analysis.cost import cost
from gossamer.errors import InputError, SettingsError, UnknownNameError
from gossamer.export.boxes import add_detections
from gossamer.export.convert import to_onnx
from gossamer.images.preprocess import Preprocess
from gossamer.predictions.anchors import AnchorSpec, Level, anchors, ssd_anchors
from gossamer.predictions.boxes import Decoding, decode_boxes, detections, nms, pairwise_iou, to_image, to_input
from gossamer.tasks.detection.fit import _iou, anchor_sizes_of, shapes_of
from gossamer.tasks.detection.heads import Detector, build_detector
from gossamer.tasks.detection.losses import DetectionLoss, anchor_focal, generalised_iou, hard_negatives
from gossamer.tasks.detection.match import (
    BACKGROUND,
    IGNORED,
    Target,
    collate,
    corners,
    decode_deltas,
    encode,
    match,
    overlaps,
)
from tests.boxcases import random_boxes

SPEC = ssd_anchors((64, 96), [(4, 6), (2, 3), (1, 2)])
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=8,
)


# decoding


def test_anchors_lie_level_by_level_row_by_row_and_shape_by_shape() -> None:
    spec = AnchorSpec((20, 60), (Level((2, 3), ((8.0, 4.0), (5.0, 6.0))), Level((1, 1), ((7.0, 9.0),))))
    expected = [
        [x, y, w, h] for y in (5, 15) for x in (10, 30, 50) for w, h in ((8, 4), (5, 6))
    ] + [[30, 10, 7, 9]]  # fmt: skip
    assert anchors(spec).tolist() == expected and spec.count == 13


def test_ssd_anchors_have_the_papers_scales_and_ratios() -> None:
    first, second, last = ssd_anchors((300, 300), [(10, 10), (5, 5), (1, 1)], (0.2, 0.9)).levels
    assert [len(level.shapes) for level in (first, second, last)] == [3, 6, 6]
    assert first.shapes[1] == pytest.approx((60 * math.sqrt(2), 60 / math.sqrt(2)))
    s, after = 300 * 0.55, 300 * 0.9
    assert second.shapes[0] == pytest.approx((s, s)) and second.shapes[1] == pytest.approx((math.sqrt(s * after),) * 2)
    assert second.shapes[5] == pytest.approx((s / math.sqrt(3), s * math.sqrt(3)))
    assert last.shapes[1] == pytest.approx((300 * math.sqrt(0.9),) * 2)


def test_a_spec_travels_as_json() -> None:
    assert AnchorSpec.from_json(SPEC.to_json()) == SPEC
    assert Decoding.from_json(Decoding(iou=0.6).to_json()) == Decoding(iou=0.6)


@pytest.mark.parametrize(
    "change",
    [
        {"input": [0, 5]},
        {"input": [5.0, 5]},
        {"levels": []},
        {"levels": [{"size": [1, 1], "shapes": []}]},
        {"levels": [{"size": [1, 1], "shapes": [[float("nan"), 1.0]]}]},
        {"levels": [{"size": [1, 1], "shapes": [[-1.0, 1.0]]}]},
        {"levels": [{"size": [4096, 4096], "shapes": [[1.0, 1.0]]}]},
        {"variances": [0.1, float("inf")]},
        {"more": 1},
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        AnchorSpec.from_json({**SPEC.to_json(), **change})


@settings(max_examples=200, deadline=None)
@given(JSON, st.sampled_from(["input", "levels", "variances", ""]))
def test_hostile_json_is_an_error_or_a_spec(value: Any, key: str) -> None:
    for kind, good in ((AnchorSpec, SPEC.to_json()), (Decoding, Decoding().to_json())):
        try:
            kind.from_json({**good, key: value} if key else value)
        except SettingsError:
            continue
        assert key in good


def test_decoding_by_hand() -> None:
    # centre 10 + 0.1 * 2 * 8 = 11.6, 20 - 0.1 * 4 = 19.6; sides 8 * exp(0.2), 4 * exp(-0.2)
    decoded = decode_boxes(
        np.array([[2, -1, 1, -1]], np.float32), np.array([[10, 20, 8, 4]], np.float32), (0.1, 0.2)
    )  # fmt: skip
    w, h = 4 * math.exp(0.2), 2 * math.exp(-0.2)
    assert decoded[0].tolist() == pytest.approx([11.6 - w, 19.6 - h, 11.6 + w, 19.6 + h])


def slow_nms(boxes: Any, scores: Any, labels: Any, iou: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        if all(labels[i] != labels[j] or pairwise_iou(boxes[[i]], boxes[[j]])[0, 0] <= iou for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(8))
def test_nms_is_that_of_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, labels = random_boxes(rng, 120), rng.integers(0, 3, 120)
    scores = rng.integers(0, 30, 120).astype(np.float32) / 30  # with ties
    assert nms(boxes, scores, labels, 0.4).tolist() == slow_nms(boxes, scores, labels, 0.4)


@pytest.mark.parametrize(("iou", "limit"), [(0.5, 100), (0.0, 100), (0.0, 3)])
def test_nms_stops_when_it_has_enough_and_not_before(iou: float, limit: int) -> None:
    rng = np.random.default_rng(2)
    boxes, labels, scores = random_boxes(rng, 900), rng.integers(0, 2, 900), rng.random(900).astype(np.float32)
    boxes[:700], labels[:700], scores[:700] = [0, 0, 90, 90], 0, scores[:700] + 1  # of the likeliest one stays
    assert nms(boxes, scores, labels, iou, limit).tolist() == slow_nms(boxes, scores, labels, iou)[:limit]


def test_nms_of_nothing() -> None:
    assert len(nms(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), 0.5)) == 0


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_detections_are_the_likeliest_boxes(score: str) -> None:
    logits = np.full((SPEC.count, 4 if score == "softmax" else 3), -9, np.float32)
    deltas = np.zeros((SPEC.count, 4), np.float32)
    if score == "softmax":
        logits[:, 0] = 9
    shift = int(score == "softmax")
    logits[7, 2 + shift], logits[8, 2 + shift], logits[100, 0 + shift] = 4, 3, 2
    if score == "softmax":
        logits[[7, 8, 100], 0] = -9
    likeliest = detections(deltas, logits, SPEC, Decoding(score, threshold=0.5, iou=0.99))
    assert likeliest.labels.tolist() == [2, 2, 0]
    centre, side = anchors(SPEC)[100, :2], anchors(SPEC)[100, 2:]
    assert likeliest.boxes[2].tolist() == pytest.approx([*(centre - side / 2), *(centre + side / 2)], rel=1e-5)
    assert len(detections(deltas, logits, SPEC, Decoding(score, threshold=0.5, iou=0.99, limit=2)).scores) == 2
    one = detections(deltas, logits, SPEC, Decoding(score, threshold=0.5, iou=0.99, candidates=1))
    assert one.labels.tolist() == [2, 0]


def test_outputs_that_are_not_finite_give_no_boxes() -> None:
    broken = np.full((SPEC.count, 4), np.nan, np.float32)
    assert len(detections(broken, np.zeros((SPEC.count, 3), np.float32), SPEC, Decoding()).scores) == 0
    huge = np.full((SPEC.count, 4), 1e30, np.float32)
    assert np.isfinite(detections(huge, np.zeros((SPEC.count, 3), np.float32), SPEC, Decoding()).boxes).all()


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
def test_boxes_find_back_to_the_image(resize: str) -> None:
    # a white rectangle on black: where it lies in the input's pixels is where the box is moved to
    white_on_black = np.zeros((200, 300, 3), np.uint8)
    white_on_black[60:120, 90:210] = 255
    preprocess = Preprocess((64, 80), resize=resize, crop_pct=1.0)
    place = preprocess.place(200, 300)
    box = to_input(np.array([[90, 60, 210, 120]], np.float32), place)
    rows, columns = np.nonzero(preprocess.pixels(white_on_black)[..., 0] > 128)
    assert box[0].tolist() == pytest.approx([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], abs=0.6)
    assert to_image(box, place)[0].tolist() == pytest.approx([90, 60, 210, 120], abs=1e-3)
    outside = to_image(np.array([[-500, -500, 500, 500]], np.float32), place)
    assert outside.tolist() == [[0, 0, 300, 200]]


# heads


def meta_detector(net: str, *arguments: Any, **options: Any) -> Detector:
    with torch.device("meta"):
        return build_detector(net, *arguments, **options)


# the paper's tables 5 and 6 (1801.04381): parameters in millions, MACs in thousands of millions
@pytest.mark.parametrize(("lite", "params", "macs"), [(False, 14.8, 1.25), (True, 2.1, 0.35 / 2)])
def test_counts_of_the_head_are_those_of_the_paper(lite: bool, params: float, macs: float) -> None:
    # table 5; its 0.35 for SSDLite counts multiplications and additions each: see the docstring of Detector
    detector = meta_detector("mobilenetv2_100", 80, (320, 320), lite=lite)
    total, backbone = cost(detector, (1, 3, 320, 320)), cost(detector.maps, (1, 3, 320, 320))
    assert (total.params - backbone.params) / 1e6 == pytest.approx(params, rel=0.03)
    assert (total.macs - backbone.macs) / 1e9 == pytest.approx(macs, rel=0.03)
    assert total.unknown == {} and total.unused_params == 0


def test_counts_of_the_complete_ssdlite_are_those_of_the_paper() -> None:
    total = cost(meta_detector("mobilenetv2_100", 80, (320, 320)), (1, 3, 320, 320))
    assert (total.params / 1e6, total.macs / 1e9) == (pytest.approx(4.3, rel=0.03), pytest.approx(0.8, rel=0.03))


@pytest.mark.parametrize(
    ("net", "size", "options", "maps"),
    [
        ("mobilenetv2_100", (320, 320), {}, [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]),
        ("mobilenetv3_small_100", (96, 96), {}, [(6, 6), (3, 3), (2, 2), (1, 1)]),
        ("mobilenetv3_small_100", (96, 160), {"levels": 3}, [(12, 20), (6, 10), (3, 5), (2, 3), (1, 2), (1, 1)]),
        ("resnet18", (64, 96), {"pyramid": True, "levels": 3}, [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]),
        ("shufflenet_v2_x0_5", (64, 64), {"score": "sigmoid", "lite": False}, [(4, 4), (2, 2), (1, 1)]),
        ("squeezenet1_1", (100, 100), {}, None),
        ("mobilenetv4_conv_small", (64, 64), {"in_chans": 1}, [(4, 4), (2, 2), (1, 1)]),
        ("densenet121", (96, 96), {"output_stride": 16}, None),
        ("mobilenetv2_100", (32, 32), {"pyramid": True, "small_input": True}, [(8, 8), (4, 4), (2, 2), (1, 1)]),
        ("lenet_caffe", (48, 32), {}, None),
    ],
)
def test_any_network_at_any_size_is_a_detector(net: str, size: Any, options: Any, maps: Any) -> None:
    detector = meta_detector(net, 5, size, **options)
    assert cost(detector, (1, options.get("in_chans", 3), *size)).unused_params == 0  # else they would never learn
    outputs = detector.to_empty(device="cpu")(torch.zeros(2, options.get("in_chans", 3), *size))
    assert maps is None or [level.size for level in detector.spec.levels] == maps
    assert outputs["deltas"].shape == (2, detector.spec.count, 4)
    assert outputs["logits"].shape == (2, detector.spec.count, 5 if options.get("score") == "sigmoid" else 6)


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_a_network_of_timm_is_a_detector() -> None:
    detector = meta_detector("timm:mobilenetv3_small_050", 2, (64, 96))
    assert [level.size for level in detector.spec.levels] == [(4, 6), (2, 3), (1, 2), (1, 1)]


def test_the_first_map_is_the_expansion_and_the_network_is_unchanged_by_reading_it() -> None:
    torch.manual_seed(0)
    detector = build_detector("mobilenetv2_050", 3, (64, 64)).eval()
    x = torch.randn(1, 3, 64, 64)
    wide, last = detector.maps(x)
    plain = x
    for part in (detector.maps.stem, *detector.maps.stages[:5]):
        plain = part(plain)
    assert torch.equal(wide, detector.maps.stages[5][0].expand(plain))
    for part in (*detector.maps.stages[5:], detector.maps.conv_head):
        plain = part(plain)
    assert torch.equal(last, plain)


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_every_place_speaks_for_its_own_anchor_and_expects_background(score: str) -> None:
    # a detector whose maps are the image itself: its outputs at a place depend on that place alone
    detector = Detector(Whole(), 2, (3, 4), in_chans=2, lite=False, score=score).eval()
    with torch.no_grad():
        detector.logits[0].weight[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
        x = torch.zeros(1, 2, 3, 4)
        before = detector(x)["logits"]
        x[0, :, 1, 2] = 1  # row 1, column 2
        changed = (detector(x)["logits"] != before).any(2).nonzero()[:, 1]
    per_place = len(detector.spec.levels[0].shapes)
    place = (1 * 4 + 2) * per_place
    assert [i for i in changed.tolist() if i < 12 * per_place] == list(range(place, place + per_place))
    if score == "softmax":
        assert before.softmax(2)[0, :, 0].tolist() == pytest.approx([0.99] * detector.spec.count, abs=1e-4)
    else:
        assert before.sigmoid()[0].flatten().tolist() == pytest.approx([0.01] * 2 * detector.spec.count, abs=1e-4)


class Whole(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x * 1]


def test_detectors_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SettingsError):
        build_detector("resnet18", 3, (64, 64), levels=0)
    with pytest.raises(SettingsError):
        meta_detector("lenet_caffe", 3, (64, 64), levels=4)
    with pytest.raises(UnknownNameError):
        meta_detector("resnet18", 3, (64, 64), score="hinge")
    with pytest.raises(InputError):
        meta_detector("alexnet", 3, (8, 8))


# matching


def slow_match(boxes: Any, labels: Any, spec: AnchorSpec) -> list[int]:
    """SSD's matching, one pair at a time. Its overlaps are the code's own: equal ones are to be equal here, too."""
    placed = corners(torch.from_numpy(anchors(spec).copy()))
    iou = overlaps(torch.from_numpy(boxes)[None], placed)[0].numpy()
    assert np.allclose(iou, pairwise_iou(boxes, placed.numpy()), atol=1e-5)
    iou[labels < 0] = 0
    owners = [int(iou[:, a].argmax()) if iou[:, a].max() > 0.5 else BACKGROUND for a in range(spec.count)]
    left = iou.copy()
    while left.max() > 0:
        row, anchor = np.unravel_index(left.argmax(), left.shape)
        owners[int(anchor)] = int(row)
        left[row], left[:, anchor] = 0, 0
    return owners


@pytest.mark.parametrize("seed", range(6))
def test_matching_is_that_of_the_paper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    few = [Target(random_boxes(rng, n, 64), rng.integers(0, 3, n)) for n in (40, 0, 7)]
    few[2].boxes[1] = few[2].boxes[0]  # twice the same object
    owners = match(collate(few), torch.from_numpy(anchors(SPEC).copy()))
    assert owners.shape == (3, SPEC.count) and (owners[1] == BACKGROUND).all()
    for index in (0, 2):
        assert owners[index].tolist() == slow_match(few[index].boxes, few[index].labels, SPEC)
        assert set(range(len(few[index].labels))) <= set(owners[index].tolist())  # every object has an anchor


def test_anchors_in_a_crowd_are_ignored_unless_they_stand_for_an_object() -> None:
    spec = AnchorSpec((20, 60), (Level((1, 3), ((10.0, 10.0),)),))  # centres 10, 30, 50
    boxes = np.array([[0, 0, 40, 20], [25, 5, 35, 15]], np.float32)
    owners = match(collate([Target(boxes, np.array([IGNORED, 2]))]), torch.from_numpy(anchors(spec).copy()))
    assert owners.tolist() == [[IGNORED, 1, BACKGROUND]]


def test_deltas_go_there_and_back() -> None:
    rng = np.random.default_rng(0)
    base, boxes = torch.from_numpy(anchors(SPEC).copy()), torch.from_numpy(random_boxes(rng, SPEC.count))
    deltas = encode(boxes, base, SPEC.variances)
    assert torch.allclose(decode_deltas(deltas, base, SPEC.variances), boxes, atol=1e-3)
    assert np.allclose(decode_boxes(deltas.numpy(), base.numpy(), SPEC.variances), boxes.numpy(), atol=1e-3)


# losses


INDEX = torch.tensor([[0, BACKGROUND, BACKGROUND, BACKGROUND, BACKGROUND, BACKGROUND, IGNORED]])


def test_the_hardest_three_negatives_count_and_ignored_anchors_do_not() -> None:
    logits = torch.tensor([[[0.0, 1], [5, 0], [1, 0], [2, 0], [3, 0], [4, 0], [0, 9]]])
    losses = hard_negatives(logits, torch.zeros(1, 7, dtype=torch.int64), INDEX)
    expected = math.log1p(math.exp(-1)) + sum(math.log1p(math.exp(-z)) for z in (1, 2, 3))
    assert losses.tolist() == pytest.approx([expected])
    nothing = hard_negatives(logits[:, 1:6], torch.zeros(1, 5, dtype=torch.int64), INDEX[:, 1:6])
    assert nothing.tolist() == pytest.approx([expected - math.log1p(math.exp(-1))])


def test_focal_loss_by_hand() -> None:
    logits = torch.tensor([[[2.0, -1]]])
    p, q = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))
    other = -0.75 * q**2 * math.log(1 - q)
    hit = anchor_focal(logits, torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[0]]), 0.25, 2.0)
    assert hit.tolist() == pytest.approx([-0.25 * (1 - p) ** 2 * math.log(p) + other])
    miss = anchor_focal(logits, torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[BACKGROUND]]), 0.25, 2.0)
    assert miss.tolist() == pytest.approx([-0.75 * p**2 * math.log(1 - p) + other])
    assert anchor_focal(
        logits, torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[IGNORED]]), 0.25, 2.0
    ).tolist() == [0]


def test_generalised_iou_by_hand() -> None:
    first = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1], [1, 2, 3, 5]])
    second = torch.tensor([[1.0, 0, 3, 2], [3, 0, 4, 1], [1, 2, 3, 5]])
    # 2 of 6, hull 6; 0 of 2, hull 4; the same
    assert generalised_iou(first, second).tolist() == pytest.approx([1 / 3, -2 / 4, 1])


@pytest.mark.parametrize("boxes", ["smooth_l1", "giou"])
@pytest.mark.parametrize("classes", ["softmax", "focal"])
def test_the_mean_of_the_losses_is_over_the_batchs_objects_and_falls_to_nothing(boxes: str, classes: str) -> None:
    rng = np.random.default_rng(1)
    targets = collate([Target(random_boxes(rng, n, 64), rng.integers(0, 3, n)) for n in (5, 0, 9)])
    loss = DetectionLoss(SPEC, boxes, classes)
    base = torch.from_numpy(anchors(SPEC).copy())
    owners = match(targets, base)
    wanted = targets.boxes.gather(1, owners.clamp_min(0)[..., None].expand(-1, -1, 4))
    perfect = encode(wanted, base, SPEC.variances)
    hits = torch.where(owners >= 0, targets.labels.gather(1, owners.clamp_min(0)) + 1, 0)
    logits = 40.0 * torch.nn.functional.one_hot(hits, 4).float() - 20
    logits = logits if classes == "softmax" else logits[..., 1:]
    outputs = {"deltas": perfect.requires_grad_(), "logits": logits.requires_grad_()}
    values = loss(outputs, targets)
    assert values.shape == (3,) and values.dtype == torch.float32
    assert values.tolist() == pytest.approx([0, 0, 0], abs=2e-4)
    worse = {"deltas": perfect.detach() + 0.5, "logits": torch.zeros_like(logits)}
    positives = [int((one >= 0).sum()) for one in owners]
    alone = loss({key: value[:1] for key, value in worse.items()}, type(targets)(targets.boxes[:1], targets.labels[:1]))
    assert float(loss(worse, targets)[0]) == pytest.approx(
        float(alone[0]) * positives[0] * 3 / sum(positives), rel=1e-4
    )
    values.sum().backward()
    assert all(torch.isfinite(one.grad).all() for one in outputs.values())


@pytest.mark.full
def test_a_detector_learns_where_a_square_is() -> None:
    torch.manual_seed(0)
    detector = build_detector("mobilenetv3_small_050", 2, (64, 64))
    loss = DetectionLoss(detector.spec)
    images = torch.zeros(8, 3, 64, 64)
    rng, few = np.random.default_rng(0), []
    for image in images:
        x, y, label = int(rng.integers(0, 36)), int(rng.integers(0, 36)), int(rng.integers(2))
        image[label, y : y + 24, x : x + 24] = 2
        few.append(Target(np.array([[x, y, x + 24, y + 24]], np.float32), np.array([label])))
    targets, optimiser = collate(few), torch.optim.Adam(detector.parameters(), 3e-3)
    values = []
    for _ in range(30):
        optimiser.zero_grad()
        mean = loss(detector(images), targets).mean()
        mean.backward()
        optimiser.step()
        values.append(mean.item())
    assert values[-1] < 0.4 * values[0]


def test_unknown_losses_are_refused() -> None:
    for arguments in (("l3", "softmax"), ("giou", "hinge")):
        with pytest.raises(UnknownNameError):
            DetectionLoss(SPEC, *arguments)


# export


def raw_model(spec: AnchorSpec, outputs: int, prefix: str = "") -> Any:
    """An ONNX model that returns its inputs."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    shapes = {"deltas": ["n", spec.count, 4], "logits": ["n", spec.count, outputs]}
    nodes = [helper.make_node("Identity", [f"raw_{key}"], [prefix + key]) for key in shapes]
    values = [
        [helper.make_tensor_value_info(start + key, 1, shape) for key, shape in shapes.items()]
        for start in ("raw_", prefix)
    ]
    return helper.make_model(
        helper.make_graph(nodes, "raw", *values), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )


@pytest.mark.parametrize(
    ("how", "prefix"),
    [
        (Decoding(threshold=0.05), ""),
        (Decoding(threshold=0.2, candidates=20, iou=0.3, limit=15), "eyes"),
        (Decoding("sigmoid", threshold=0.6, candidates=1000, limit=30), ""),
        (Decoding("sigmoid", threshold=1.0), ""),
    ],
)
def test_the_graph_keeps_the_same_boxes_as_numpy(how: Decoding, prefix: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    classes = 3 + (how.score == "softmax")
    proto = raw_model(SPEC, classes, f"{prefix}." if prefix else "")
    add_detections(proto, SPEC, how, prefix)
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(4)
    deltas = rng.normal(0, 1.5, (3, SPEC.count, 4)).astype(np.float32)
    logits = rng.normal(0, 2, (3, SPEC.count, classes)).astype(np.float32)
    logits[1] = np.where(np.arange(classes) == 0, 30, -30) if how.score == "softmax" else -30  # nothing there
    name = f"{prefix}.detections" if prefix else "detections"
    (rows,) = session.run([name], {"raw_deltas": deltas, "raw_logits": logits})
    assert rows.shape[1] == 7 and (len(rows) > 20) == (how.threshold < 1)
    for image in range(3):
        expected = detections(deltas[image], logits[image], SPEC, how)
        mine = rows[rows[:, 0] == image]
        assert mine[:, 1].tolist() == expected.labels.tolist()
        assert np.allclose(mine[:, 2], expected.scores, atol=1e-6)
        assert np.allclose(mine[:, 3:], expected.boxes, atol=0.01)


@pytest.mark.full
def test_a_detectors_file_finds_what_the_detector_does() -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    detector = build_detector("squeezenet1_1", 3, (64, 96), pyramid=True).eval()
    proto = onnx.load_from_string(to_onnx(detector, (64, 96), outputs=("deltas", "logits")))
    how = Decoding(threshold=0.0, limit=20)
    add_detections(proto, detector.spec, how)
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = torch.randn(3, 3, 64, 96)
    deltas, logits, rows = session.run(["deltas", "logits", "detections"], {"input": x.numpy()})
    with torch.no_grad():
        expected = detector(x)
    assert np.allclose(deltas, expected["deltas"], atol=1e-4) and np.allclose(logits, expected["logits"], atol=1e-4)
    assert [int((rows[:, 0] == image).sum()) for image in range(3)] == [20, 20, 20]
    assert np.allclose(rows[:20, 3:], detections(deltas[0], logits[0], detector.spec, how).boxes, atol=0.01)


def test_detections_are_added_to_a_detectors_outputs_only_and_once() -> None:
    with pytest.raises(InputError):
        add_detections(raw_model(ssd_anchors((64, 64), [(2, 2)]), 4), SPEC, Decoding())
    proto = raw_model(SPEC, 4)
    add_detections(proto, SPEC, Decoding())
    with pytest.raises(InputError):
        add_detections(proto, SPEC, Decoding())


# fitted anchors


def test_the_overlap_of_sides_is_that_of_boxes_which_share_a_corner() -> None:
    """Against IoU by counting the pixels of two boxes at the origin."""
    boxes = np.array([[10, 20], [20, 10], [7, 7], [10, 20]], np.float64)
    centres = np.array([[20, 10], [5, 5], [10, 20]], np.float64)
    expected = np.zeros((4, 3))
    for i, (width, height) in enumerate(boxes.astype(int)):
        for j, (w, h) in enumerate(centres.astype(int)):
            grid = np.zeros((2, 32, 32), bool)
            grid[0, :height, :width], grid[1, :h, :w] = True, True
            expected[i, j] = (grid[0] & grid[1]).sum() / (grid[0] | grid[1]).sum()
    assert _iou(boxes, centres) == pytest.approx(expected)
    assert expected[0, 0] == pytest.approx(1 / 3)


def test_boxes_of_three_shapes_give_these_shapes_smallest_first() -> None:
    tall, wide, square = [[10, 40]] * 5, [[40, 10]] * 5, [[100, 100]] * 5
    sides = np.array([*tall, *wide, *square], np.float32)
    for seed in range(5):
        assert sorted(shapes_of(sides, 3, seed)) == [(10, 40), (40, 10), (100, 100)]
        assert shapes_of(sides, 3, seed)[2] == (100, 100)
    assert len(shapes_of(sides, 9)) == 3  # no more than there are shapes
    assert shapes_of(np.array([[1, 2], [1, 2]]), 2) == [(4, 4)]  # smaller sides count as the least
    assert shapes_of(np.zeros((0, 2)), 3) == []


def test_fitted_anchors_are_the_middles_of_clusters_of_shapes() -> None:
    rng = np.random.default_rng(3)
    kinds = np.array([[12, 40], [50, 16], [90, 90]])
    sides = (kinds[rng.integers(3, size=300)] * rng.uniform(0.8, 1.25, (300, 2))).astype(np.float32)
    fitted = np.array(shapes_of(sides, 3, seed=0))
    nearest = sorted(map(tuple, fitted))
    assert np.allclose(nearest, sorted(map(tuple, kinds)), rtol=0.1)
    assert list(fitted.prod(axis=1)) == sorted(fitted.prod(axis=1))
    assert _iou(sides.astype(np.float64), fitted).max(axis=1).mean() > 0.75


def test_anchor_sizes_are_in_input_pixels_and_leave_crowds_out() -> None:
    corners = np.array([[0, 0, 20, 10], [5, 5, 45, 15], [0, 0, 90, 90]], np.float32)
    crowd = np.array([False, False, True])
    annotated = SimpleNamespace(corners=corners, crowd=crowd, size=(100, 200))  # height, width
    # into 50 x 400 (height, width): twice as wide, half as high
    assert anchor_sizes_of([annotated], (50, 400), seed=0) == [40.0, 5.0, 80.0, 5.0]  # type: ignore[list-item]


def test_overlaps_encoding_and_ignored_regions_are_those_of_hand_computed_boxes() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 20.0], [10.0, 10.0, 5.0, 20.0]]])  # the second has no area
    placed = torch.tensor([[5.0, 10.0, 15.0, 30.0], [0.0, 0.0, 10.0, 20.0], [40.0, 40.0, 50.0, 50.0]])
    assert overlaps(boxes, placed)[0].tolist() == [pytest.approx([50 / 350, 1, 0]), [0, 0, 0]]
    base = torch.tensor([[10.0, 20.0, 4.0, 8.0]])
    deltas = encode(torch.tensor([[10.0, 18.0, 14.0, 34.0]]), base, (0.1, 0.2))
    # centre (12, 26) of sides (4, 16): 2 / 4 / 0.1, 6 / 8 / 0.1, log(1) / 0.2, log(2) / 0.2
    torch.testing.assert_close(deltas, torch.tensor([[5.0, 7.5, 0.0, math.log(2) / 0.2]]))
    torch.testing.assert_close(decode_deltas(deltas, base, (0.1, 0.2)), torch.tensor([[10.0, 18.0, 14.0, 34.0]]))
    region = Target(np.array([[0, 0, 10, 10]], np.float32), np.array([IGNORED]))
    halves = torch.tensor([[10.0, 5.0, 4.0, 4.0], [10.1, 5.0, 4.0, 4.0], [5.0, 5.0, 4.0, 4.0]])
    assert match(collate([region]), halves)[0].tolist() == [IGNORED, BACKGROUND, IGNORED]


def test_an_anchor_needs_more_than_the_overlap_unless_it_is_an_objects_best() -> None:
    target = Target(np.array([[0, 0, 10, 10]], np.float32), np.array([3]))
    # overlaps of 1, 0.5 and 0.6 with the object
    spread = torch.tensor([[5.0, 5.0, 10.0, 10.0], [5.0, 10.0, 10.0, 20.0], [5.0, 3.0, 10.0, 6.0]])
    assert match(collate([target]), spread)[0].tolist() == [0, BACKGROUND, 0]
    assert match(collate([target]), spread[1:2])[0].tolist() == [0]
