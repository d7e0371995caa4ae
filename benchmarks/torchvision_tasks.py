"""What torchvision's own light networks reach from random weights, for comparison with `gossamer train`.

    python benchmarks/torchvision_tasks.py detect DATA --minutes 20 [--threads 1]      # ssdlite320_mobilenet_v3_large
    python benchmarks/torchvision_tasks.py segment DATA --minutes 20 --ignore-index 11 --input 240x320   # lraspp_mobilenet_v3_large

Flips and AdamW with a cosine schedule; torchvision's own losses. Data are read and annotations scored by gossamer's readers
and scores, so that both sides are counted alike; the time is that of training alone, evaluation left out. Prints a line
an evaluation, and the last one on the test images where there are some, as JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tests.counterparts import import_library
from torch import Tensor

from gossamer.data.boxes.open import open_boxes
from gossamer.data.masks.open import open_masks
from gossamer.data.source import Source
from gossamer.images.preprocess import Preprocess, decode
from gossamer.predictions.boxes import ScoredBoxes
from gossamer.settings.parse import parse_size
from gossamer.tasks.detection.scores import DetectionScores
from gossamer.tasks.segmentation.scores import MaskScorer


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """torchvision's operator in plain torch, for where its compiled part does not fit this torch."""
    order, kept = scores.argsort(descending=True), []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(first)
        low, high = torch.maximum(boxes[first, :2], boxes[rest, :2]), torch.minimum(boxes[first, 2:], boxes[rest, 2:])
        shared = (high - low).clamp_min(0).prod(1)
        order = rest[shared / (areas[first] + areas[rest] - shared) <= threshold]
    return torch.stack(kept) if kept else order


def decoded(source: Source, index: int) -> np.ndarray[Any, Any]:
    """(H, W, 3) uint8."""
    return np.asarray(decode(source.read(index)))


def detect(options: argparse.Namespace) -> None:
    """Train and score the detector."""
    models = import_library("torchvision").models.detection
    extension = importlib.import_module("torchvision.extension")
    library = torch.library.Library("torchvision", "IMPL", "CPU")
    if not extension._has_ops():
        library.impl("nms", nms)
        extension._has_ops = lambda: True
    data = open_boxes(options.data)
    torch.manual_seed(options.seed)
    model = models.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=len(data.classes) + 1)
    photos = [decoded(data.train, i) for i in range(len(data.train))]
    annotations = [data.train.target(i) for i in range(len(data.train))]

    def loss(indices: list[int], rng: np.random.Generator) -> Tensor:
        images, targets = [], []
        for index in indices:
            image, corners = (
                torch.from_numpy(photos[index].copy()).permute(2, 0, 1).float() / 255,
                annotations[index].corners,
            )
            corners = torch.from_numpy(corners.copy())
            if rng.random() < 0.5:
                image, width = image.flip(2), image.shape[2]
                corners = torch.stack([width - corners[:, 2], corners[:, 1], width - corners[:, 0], corners[:, 3]], 1)
            images.append(image)
            targets.append({"boxes": corners, "labels": torch.from_numpy(annotations[index].labels) + 1})
        total: Tensor = sum(model(images, targets).values())
        return total

    def score(source: Source) -> dict[str, float]:
        truth, detections = [source.target(i) for i in range(len(source))], []
        for index in range(len(source)):
            image = torch.from_numpy(decoded(source, index).copy()).permute(2, 0, 1).float() / 255
            with torch.inference_mode():
                detections_of_image = model([image])[0]
            parts = [detections_of_image[name].numpy() for name in ("boxes", "labels", "scores")]
            detections.append(ScoredBoxes(parts[0].astype(np.float32), parts[1] - 1, parts[2].astype(np.float32)))
        return DetectionScores(data.classes, list(source.names), truth, detections, []).metrics

    run(options, model, len(data.train), loss, lambda: score(data.val), lambda: score(data.test or data.val), "map50")


def segment(options: argparse.Namespace) -> None:
    """Train and score the segmenter."""
    models = import_library("torchvision").models.segmentation
    data = open_masks(options.data, ignore_index=options.ignore_index)
    size = parse_size(options.input)
    torch.manual_seed(options.seed)
    model = models.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=len(data.classes))
    usual = Preprocess(size)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (usual.mean, usual.std))

    def input_of(source: Source, index: int) -> Tensor:
        image = torch.from_numpy(decoded(source, index).copy()).permute(2, 0, 1).float() / 255
        scaled = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        return (scaled - mean) / std

    images = [input_of(data.train, i) for i in range(len(data.train))]
    masks = [
        F.interpolate(torch.from_numpy(data.train.target(i))[None, None].float(), size, mode="nearest")[0, 0].long()
        for i in range(len(data.train))
    ]

    def loss(indices: list[int], rng: np.random.Generator) -> Tensor:
        flips = [rng.random() < 0.5 for _ in indices]
        x = torch.stack([images[i].flip(2) if f else images[i] for i, f in zip(indices, flips)])
        y = torch.stack([masks[i].flip(1) if f else masks[i] for i, f in zip(indices, flips)])
        x = x.to(memory_format=torch.channels_last) if options.channels_last else x
        return F.cross_entropy(model(x)["out"].float(), y, ignore_index=255)

    def score(source: Source) -> dict[str, float]:
        scorer = MaskScorer(data.classes, size)
        for index in range(len(source)):
            truth = source.target(index)
            with torch.inference_mode():
                logits = model(input_of(source, index)[None])["out"]
            predicted = F.interpolate(logits, truth.shape, mode="bilinear", align_corners=False)[0].argmax(0)
            scorer.count(source.names[index], truth, predicted.numpy().astype(np.uint8))
        return scorer.scores().metrics

    run(options, model, len(data.train), loss, lambda: score(data.val), lambda: score(data.test or data.val), "miou")


def settle(model: Any, count: int, batch: int, loss: Any, rng: np.random.Generator) -> None:
    """The batch norms' statistics as plain averages over the training images: torchvision's momentum of 0.01 takes
    hundreds of steps to follow the weights, and a short training has not many more."""
    norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None
    model.train()
    with torch.no_grad():
        for start in range(0, count - batch + 1, batch):
            loss(list(range(start, start + batch)), rng)
    for layer, momentum in zip(norms, momenta):
        layer.momentum = momentum


def run(options: argparse.Namespace, model: Any, count: int, loss: Any, score: Any, last: Any, name: str) -> None:
    """Train for the minutes, with an evaluation every tenth of them."""
    if options.channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    rng, spent, step, shown = np.random.default_rng(options.seed), 0.0, 0, 1
    limit = options.minutes * 60
    order: list[int] = []
    while spent < limit:
        begun = time.perf_counter()
        if len(order) < options.batch:
            order = rng.permutation(count).tolist()
        indices, order = order[: options.batch], order[options.batch :]
        warm = min(1.0, (step + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = options.lr * warm * (0.5 + 0.5 * math.cos(math.pi * min(1.0, spent / limit)))
        model.train()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            value = loss(indices, rng)
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        step += 1
        spent += time.perf_counter() - begun
        if spent >= limit * shown / 10:
            shown += 1
            kept = {key: value.clone() for key, value in model.state_dict().items()} if options.settle else None
            if options.settle:
                settle(model, count, options.batch, loss, np.random.default_rng(options.seed))
            model.eval()
            print(
                f"{spent / 60:.1f} min, step {step}: loss {float(value):.3f}, val {name} {score()[name]:.4f}",
                flush=True,
            )
            if kept is not None:  # the training goes on as it would have without a look
                model.load_state_dict(kept)
    if options.settle:
        settle(model, count, options.batch, loss, np.random.default_rng(options.seed))
    model.eval()
    images = round(step * options.batch / spent, 1)
    print(json.dumps({"minutes": spent / 60, "images_per_second": images, "steps": step, **last()}))


def main() -> None:
    """Train the chosen tasks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("detect", "segment"))
    parser.add_argument("data")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--bf16", action="store_true", help="bf16 autocast")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument(
        "--settle", action="store_true", help="evaluate with batch norms averaged over the training images"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ignore-index", type=int, default=None)
    parser.add_argument("--input", default="240x320")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.task == "detect":
        detect(options)
    else:
        segment(options)


if __name__ == "__main__":
    main()
