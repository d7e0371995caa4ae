"""Fixtures shared by all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

# The same examples at every run, and no clock: a busy machine must not fail a test.
hypothesis.settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("steady")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no folder of real images beside this checkout (shared/data)")
    return folder


def write_pictures(
    root: Path, classes: int = 3, each: int = 12, size: int = 32, splits: tuple[str, ...] = ("train", "val")
) -> Path:
    """An ImageFolder of easy pictures: a class is the colour and the place of a square, on noise."""
    rng = np.random.default_rng(7)
    colours = np.array([[220, 40, 40], [40, 200, 60], [50, 70, 230], [230, 210, 40], [200, 60, 220]])
    for split in splits:
        for label in range(classes):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(each):
                pixels = rng.integers(0, 120, (size, size, 3))
                top, left = rng.integers(0, size // 2, 2)
                pixels[top : top + size // 2, left : left + size // 2] = colours[label % len(colours)]
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:03}.png")
    return root


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ImageFolder with train/ and val/, 3 classes; not to be changed."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def make_pictures(tmp_path: Path) -> Callable[..., Path]:
    """Make an ImageFolder of one's own."""
    return lambda name="own", **options: write_pictures(tmp_path / name, **options)
