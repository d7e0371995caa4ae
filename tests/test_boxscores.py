"""Average precision and the other scores of boxes, beside pycocotools."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gossamer.images.preprocess import Preprocess
from gossamer.predictions.anchors import anchors, ssd_anchors
from gossamer.predictions.boxes import Decoding, ScoredBoxes, to_input
from gossamer.tasks.detection.average_precision import coco_matches, summary, voc_average_precision
from gossamer.tasks.detection.match import Target, collate, encode, match
from gossamer.tasks.detection.scores import DetectionScorer, DetectionScores
from tests.boxcases import CORNERS, annotated_boxes, random_boxes


def scored_boxes(boxes: Any, labels: Any, scores: Any) -> ScoredBoxes:
    return ScoredBoxes(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(scores, np.float32)
    )


def random_images(seed: int, images: int = 25, classes: int = 4) -> tuple[list[Any], list[ScoredBoxes]]:
    """Objects of all sizes, crowds, and detections near them with equal scores; some images and classes are empty."""
    rng = np.random.default_rng(seed)
    truth, detections = [], []
    for index in range(images):
        count = 0 if index % 7 == 3 else int(rng.integers(1, 9))
        boxes = random_boxes(rng, count, float(rng.choice([40, 150, 400])))
        objects = annotated_boxes(boxes, rng.integers(0, classes - 1, count), rng.random(count) < 0.2)
        truth.append(replace(objects, area=objects.area * rng.uniform(0.5, 1, count)))  # as of a mask
        near = np.repeat(np.arange(count), rng.integers(0, 4, count))
        moved = boxes[near] + rng.normal(0, 1, (len(near), 4)) * rng.choice([0, 0.5, 3], (len(near), 1))
        moved = np.concatenate([np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])], 1)
        far = 0 if index % 7 == 4 else 130
        labels = np.concatenate([objects.labels[near], np.where(rng.random(far) < 0.9, 0, 3)])
        scores = np.concatenate([rng.integers(15, 50, len(near)), rng.integers(1, 25, far)]) / 50
        detections.append(scored_boxes(np.concatenate([moved, random_boxes(rng, far, 300)]), labels, scores))
    return truth, detections


@pytest.mark.parametrize("seed", range(3))
def test_coco_numbers_are_those_of_pycocotools(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    classes = 4
    truth, detections = random_images(seed, classes=classes)

    def xywh(box: Any) -> list[float]:
        x0, y0, x1, y1 = (float(v) for v in box)
        return [x0, y0, x1 - x0, y1 - y0]

    annotations, results = [], []
    for image, (boxes, detected) in enumerate(zip(truth, detections), 1):
        for box, label, crowd, area in zip(boxes.corners, boxes.labels, boxes.crowd, boxes.area):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": xywh(box),
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
        for box, label, score in zip(*detected):
            results.append(
                {"image_id": image, "category_id": int(label), "bbox": xywh(box), "score": float(score)}
            )  # fmt: skip
    reference = coco.COCO()
    reference.dataset = {
        "info": {},
        "images": [{"id": i} for i in range(1, len(truth) + 1)],
        "annotations": annotations,
        "categories": [{"id": i} for i in range(classes)],
    }
    reference.createIndex()
    evaluation = cocoeval.COCOeval(reference, reference.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    matches = coco_matches(truth, detections, classes)
    order = "map map50 map75 map_small map_medium map_large ar1 ar10 ar100 ar_small ar_medium ar_large".split()
    ours = summary(matches)
    assert [ours[name] for name in order] == pytest.approx(evaluation.stats.tolist(), abs=1e-9)
    theirs = evaluation.eval["precision"]  # T, recalls, classes, areas, numbers of detections
    for label, each in enumerate(matches):
        for area in range(4):
            assert np.allclose(np.nan_to_num(each.curve(area)[0], nan=-1), theirs[:, :, label, area, 2], atol=1e-9)
    assert ours["map"] > 0.05 and np.isnan(matches[3].curve()[0]).all()


BOX, FAR = (0, 0, 10, 10), (50, 50, 60, 60)


def test_average_precision_by_hand() -> None:
    # ranked: hit, wrong, hit of two objects: precision 1 up to recall 1/2, then 2/3
    truth = [annotated_boxes([BOX, FAR], [0, 0])]
    detections = [scored_boxes([BOX, (20, 20, 30, 30), FAR], [0, 0, 0], [0.9, 0.8, 0.7])]
    assert summary(coco_matches(truth, detections, 1))["map"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert voc_average_precision(truth, detections, 1).tolist() == pytest.approx([0.5 + 0.5 * 2 / 3])
    assert voc_average_precision(truth, detections, 1, points=11).tolist() == pytest.approx([(6 + 5 * 2 / 3) / 11])


@pytest.mark.parametrize(("wide", "reached"), [(10, 10), (8, 7), (7, 5), (5.5, 2), (4, 0)])
def test_each_overlap_is_a_threshold_of_its_own(wide: float, reached: int) -> None:
    """An object found with one box that covers wide / 10 of it: right at the thresholds 0.5, 0.55, ... below that."""
    truth = [annotated_boxes([BOX], [0])]
    result = summary(coco_matches(truth, [scored_boxes([(0, 0, wide, 10)], [0], [0.9])], 1))
    assert result["map"] == result["ar1"] == result["ar100"] == result["map_small"] == pytest.approx(reached / 10)
    assert (result["map50"], result["map75"]) == (float(reached > 0), float(reached > 5))
    assert np.isnan(result["map_large"])


def test_voc_counts_a_second_detection_as_wrong_and_a_difficult_object_not_at_all() -> None:
    truth = [annotated_boxes([BOX, FAR], [0, 0], difficult=[False, True]), annotated_boxes([BOX], [1])]
    detections = [scored_boxes([FAR, BOX, BOX], [0, 0, 0], [0.9, 0.8, 0.7]), scored_boxes([], [], [])]
    assert voc_average_precision(truth, detections, 3)[:2].tolist() == [1, 0]
    assert np.isnan(voc_average_precision(truth, detections, 3)[2])
    twice = [scored_boxes([BOX, BOX], [0, 0], [0.9, 0.8]), scored_boxes([BOX], [0], [0.7])]
    more = [annotated_boxes([BOX], [0]), annotated_boxes([BOX], [0])]
    assert voc_average_precision(more, twice, 1).tolist() == pytest.approx([0.5 + 0.5 * 2 / 3])


def scores_of(truth: Any, detections: Any) -> DetectionScores:
    return DetectionScores(("a", "b"), [str(i) for i in range(len(truth))], truth, detections, [("x", "broken")])


def test_the_confusion_has_classes_misses_and_false_detections() -> None:
    third, fourth = (80, 80, 95, 95), (20, 20, 30, 30)
    truth = [annotated_boxes([BOX, FAR, third, (100, 0, 150, 50)], [0, 1, 0, 0], [0, 0, 0, 1])]
    detections = [
        scored_boxes(
            [BOX, BOX, FAR, fourth, (120, 10, 140, 30), third],
            [0, 1, 0, 1, 1, 0],
            [0.9, 0.8, 0.7, 0.6, 0.9, 0.1],
        )
    ]
    # rows: true a, b, background; BOX is detected once as a and once, falsely, as b; FAR is predicted as a
    assert scores_of(truth, detections).confusion.tolist() == [[1, 0, 1], [1, 0, 0], [0, 2, 0]]


def test_scores_are_plain_json() -> None:
    truth, detections = random_images(5, images=10, classes=3)
    detections = [ScoredBoxes(*(part[one.labels < 2] for part in one)) for one in detections]
    scores = scores_of(truth, detections)
    plain = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert plain["map"] == pytest.approx(scores.metrics["map"]) and len(plain["curves"][0]) == 101
    assert np.mean([row["map"] for row in plain["per_class"]]) == pytest.approx(plain["map"])
    assert f"{scores.metrics['map']:.4f}" in scores.text() and "10 images" in scores.text()
    empty = DetectionScores(("a",), [], [], [], [])
    assert np.isnan(empty.metrics["map"]) and empty.to_json()["map"] is None and "0 images" in empty.text()


@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_perfect_outputs_score_one_in_the_images_own_pixels_in_one_part_or_two(resize: str) -> None:
    preprocess = Preprocess((64, 96), resize=resize)
    spec = ssd_anchors((64, 96), [(8, 12), (4, 6), (2, 3)])
    base = torch.from_numpy(anchors(spec).copy())
    names, truth, places, raw = ["p", "q"], [annotated_boxes(CORNERS, [0, 1]), annotated_boxes([], [])], [], []
    for boxes, size in zip(truth, ((240, 320), (100, 300))):
        place = preprocess.place(*size)
        targets = collate([Target(to_input(boxes.corners, place), boxes.labels)])
        owners = match(targets, base)
        wanted = targets.boxes.gather(1, owners.clamp_min(0)[..., None].expand(-1, -1, 4))
        hits = torch.where(owners >= 0, targets.labels.gather(1, owners.clamp_min(0)) + 1, 0)
        logits = 20.0 * torch.nn.functional.one_hot(hits, 3).float()
        raw.append({"deltas": encode(wanted, base, spec.variances).numpy(), "logits": logits.numpy()})
        places.append(place)
    first, second = (DetectionScorer(("a", "b"), spec, Decoding()) for _ in range(2))
    first.add(names[:1], raw[0], truth[:1], places[:1])
    second.add(names[1:], raw[1], truth[1:], places[1:])
    first.merge(second)
    scores = first.scores()
    assert scores.metrics["map"] == pytest.approx(1) and scores.metrics["voc"] == 1 and scores.names == names
    assert scores.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
