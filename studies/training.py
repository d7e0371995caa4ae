"""A short plain training loop for the studies that train: the same data, steps and seeds for every network."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.blocks.gates import gate_cost
from gossamer.data.open import open_data
from gossamer.data.source import Source
from gossamer.images.decode import decode

SIDE = 32
BATCH = 64


class Images(NamedTuple):
    """Training and test images (N, 3, 32, 32) of mean 0 and deviation 1, their classes, and what they are."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: int
    name: str


def load(folder: str = "", most: int = 4000) -> Images:
    """The images of a folder (one folder per class, or train/ and val/), or scikit-learn's digits; at most `most` of each."""
    if folder:
        data = open_data(folder)
        parts = [_pixels(source, most) for source in (data.train, data.val)]
        classes, name = len(data.classes), f"{len(parts[0][1])} images of {len(data.classes)} classes"
    else:
        parts, classes, name = _digits(most), 10, "scikit-learn's digits"
    mean, deviation = parts[0][0].mean((0, 2, 3), keepdim=True), parts[0][0].std((0, 2, 3), keepdim=True)
    (train, train_labels), (test, test_labels) = [((x - mean) / deviation, y) for x, y in parts]
    return Images(train, train_labels, test, test_labels, classes, name)


def _pixels(source: Source, most: int) -> tuple[Tensor, Tensor]:
    chosen = np.random.default_rng(0).permutation(len(source))[:most]
    images = [np.asarray(decode(source.read(int(i))).resize((SIDE, SIDE))) for i in chosen]
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return x, torch.tensor(np.asarray(source.labels)[chosen]).long()


def _digits(most: int) -> list[tuple[Tensor, Tensor]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.from_numpy(digits.images).float()[:, None] / 16
    x = F.interpolate(x, (SIDE, SIDE), mode="bilinear").expand(-1, 3, -1, -1)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))
    x, y = x[order], torch.from_numpy(digits.target)[order].long()
    return [(x[:1200][:most], y[:1200][:most]), (x[1200:][:most], y[1200:][:most])]


def train(
    model: nn.Module, images: Images, *, epochs: float, seed: int, lr: float = 2e-3, gate_target: float = 0.5
) -> float:
    """AdamW, one cycle, flips and shifts by 4 pixels (no flips of digits); the accuracy on the test images.

    gate_target: fraction of the multiply-adds behind hard gates that their cost leads to.
    """
    rng = torch.Generator().manual_seed(seed)
    steps = max(1, round(epochs * len(images.train) / BATCH))
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    model.to(memory_format=torch.channels_last).train()
    for _ in range(steps):
        index = torch.randint(len(images.train), (BATCH,), generator=rng)
        x = images.train[index]
        if "digits" not in images.name and torch.rand((), generator=rng) < 0.5:
            x = x.flip(3)
        down, right = torch.randint(-4, 5, (2,), generator=rng).tolist()
        x = torch.roll(x, (down, right), (2, 3)).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(model(x), images.train_labels[index], label_smoothing=0.1)
        extra = gate_cost(model, gate_target)
        loss = loss if extra is None else loss + extra
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return accuracy(model, images)


@torch.inference_mode()
def accuracy(model: nn.Module, images: Images) -> float:
    """The fraction of test images that are classified right."""
    model.eval()
    predictions = [model(x).argmax(1) for x in images.test.split(256)]
    return float((torch.cat(predictions) == images.test_labels).float().mean())


class Score(NamedTuple):
    """Mean over seeds and the half-width of its 95 % interval (Student's t)."""

    mean: float
    margin: float


def score(values: Sequence[float]) -> Score:
    """The mean of some seeds' accuracies and how sure it is; the margin is infinite for one."""
    if len(values) < 2:
        return Score(values[0], float("inf"))
    quantile = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}.get(len(values), 2.4)
    return Score(statistics.mean(values), quantile * statistics.stdev(values) / len(values) ** 0.5)


def differs(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether the seeds' differences, paired, are all of one sign and their 95 % interval leaves out 0."""
    difference = score([x - y for x, y in zip(a, b)])
    return abs(difference.mean) > difference.margin
