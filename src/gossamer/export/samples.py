"""The inputs that a model file carries to be checked with: blocks of noise, and encoded images."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gossamer.images.preprocess import Preprocess
from gossamer.modelfile.metadata import CheckImage

JPEG_FACTOR = 4.7  # large enough that the decoder reduces the image while decoding, as it does for photographs
JPEG_SIDE = 1200


def noise(size: tuple[int, int], channels: int, block: int, seed: int) -> NDArray[np.uint8]:
    """uint8 (H, W, C): blocks of `block` pixels, each channel one of 16 levels, the same on every machine.

    The numbers are SplitMix64 (Steele, Lea and Flood 2014, figure 16) of a counter: integers only.
    """
    height, width = (-(-side // block) for side in size)
    counter = np.arange(1, height * width * channels + 1, dtype=np.uint64) + np.uint64(seed << 32)
    value = counter * np.uint64(0x9E3779B97F4A7C15)  # arithmetic modulo 2**64
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    levels = (((value ^ (value >> np.uint64(31))) >> np.uint64(60)) * np.uint64(17)).astype(np.uint8)
    blocks = levels.reshape(height, width, channels)
    return blocks.repeat(block, axis=0).repeat(block, axis=1)[: size[0], : size[1]]


def build_check_images(preprocess: Preprocess) -> tuple[CheckImage, ...]:
    """A large JPEG and a PNG of another shape than the input, with the pixels that they become on this machine."""
    height, width = preprocess.size
    large = (min(round(JPEG_FACTOR * height) + 3, JPEG_SIDE), min(round(JPEG_FACTOR * width) + 8, JPEG_SIDE))
    small = (height // 2 + 3, width + 7)
    files = {"jpeg": _encoded(large, "JPEG"), "png": _encoded(small, "PNG")}
    return tuple(CheckImage(name, file, preprocess.pixels(file)) for name, file in files.items())


def _encoded(size: tuple[int, int], kind: str) -> bytes:
    """An image with edges and slopes: blocks of noise, half as bright, on a slope in each channel."""
    blocks = noise(size, 3, max(2, min(size) // 16), seed=1) // 2
    down, across = np.indices(size)
    slope = np.stack([down * 127 // size[0], across * 127 // size[1], (down + across) * 127 // sum(size)], axis=2)
    file = io.BytesIO()
    Image.fromarray((blocks + slope).astype(np.uint8)).save(file, kind)
    return file.getvalue()
