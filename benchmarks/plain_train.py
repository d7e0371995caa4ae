"""Training as a plain PyTorch script does it: an image folder, a DataLoader, Pillow, a loop.

    python benchmarks/plain_train.py DATA --size 224 --batch 32 [--precision bf16] [--channels-last]

The augmentation is torchvision's RandomResizedCrop, flip, ToTensor and Normalize, written out, so that the script needs
no more than torch and Pillow. The network is gossamer's, so that both sides of the comparison train the same one.
With --seconds it stops after that time, measured after some warm-up, and prints images per second as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from gossamer import create_model

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
WARMUP_STEPS = 3


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """One folder per class."""

    def __init__(self, root: Path, size: int, scale: tuple[float, float]) -> None:
        self.size, self.scale = size, scale
        self.classes = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
        self.samples = [
            (path, label) for label, name in enumerate(self.classes) for path in sorted((root / name).iterdir())
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.samples[index]
        image = Image.open(path).convert("RGB")
        image = image.crop(self.random_box(*image.size)).resize((self.size, self.size), Image.Resampling.BILINEAR)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return (tensor - MEAN) / STD, label

    def random_box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The box of torchvision's RandomResizedCrop: left, top, right, bottom."""
        for _ in range(10):
            area = width * height * random.uniform(*self.scale)
            ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = random.randint(0, width - w), random.randint(0, height - h)
                return left, top, left + w, top + h
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/CLASS/IMAGE")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--scale", type=float, nargs=2, default=(0.08, 1.0))
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--seconds", type=float, default=0.0)
    options = parser.parse_args()

    dataset = ImageFolder(options.data / "train", options.size, tuple(options.scale))
    loader = DataLoader(
        dataset,
        options.batch,
        shuffle=True,
        num_workers=options.workers,
        drop_last=True,
        persistent_workers=options.workers > 0,
    )
    model = create_model("mobilenet_v2", num_classes=len(dataset.classes), small_input=options.size <= 64).train()
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    model.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), options.lr, momentum=0.9, nesterov=True, weight_decay=4e-5)
    criterion = nn.CrossEntropyLoss()

    step, started = 0, time.perf_counter()
    for _ in range(options.epochs):
        for images, targets in loader:
            images = images.to(memory_format=layout)
            with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
                loss = criterion(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step == WARMUP_STEPS:
                started = time.perf_counter()
            seconds = time.perf_counter() - started
            if options.seconds and step > WARMUP_STEPS and seconds >= options.seconds:
                images_done = (step - WARMUP_STEPS) * options.batch
                print(json.dumps({"images_per_second": images_done / seconds, "images": images_done, "note": ""}))
                return


if __name__ == "__main__":
    main()
