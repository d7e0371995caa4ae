"""Fixtures shared by all tests."""

from __future__ import annotations

import fcntl
import gc
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

from tests.disk import do_not_wait_for_the_disk
from tests.warm import keep_tables_of_torch

# The same examples at every run, and no clock: a busy machine must not fail a test.
hypothesis.settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("steady")

# Tests beside each other share the cores: threads that wait for one another would spin on them, ncnn's for seconds. torch and
# ncnn read it when loaded.
BESIDE = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if BESIDE > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // BESIDE)))
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# A shell starts what it puts in the background with interrupts ignored, and every command that a test interrupts would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

do_not_wait_for_the_disk()

# Of the tests' time a tenth went into looking for garbage among torch's modules and some ten thousand tests.
gc.set_threshold(20_000, 20, 20)

SLOW = {
    line for line in (Path(__file__).parent / "slow.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"
}


@pytest.hookimpl(tryfirst=True)  # before -m chooses by the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark those of slow.txt as `full`; begin with the tests that take minutes, then with the files that have slow ones, so
    that no process is left alone with one at the end. A file's tests stay beside each other: they share its fixtures."""
    for item in items:
        if item.nodeid in SLOW:
            item.add_marker("full")
    slow = {item.path for item in items if item.get_closest_marker("full")}

    def order(item: pytest.Item) -> float:
        timeout = item.get_closest_marker("timeout")
        return -timeout.args[0] if timeout else -1.0 * (item.path in slow)

    items.sort(key=order)


# What `make` sets up, and a machine that checks changes has: without it tests skip, and pass unseen.
BROUGHT = re.compile(r"not installed|could not import|is not built|no C(\+\+)? compiler|no sanitizers|comes without it")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--complete", action="store_true", help="fail where a test would skip for want of a package, compiler or engine"
    )


def fail_incomplete(config: pytest.Config, report: pytest.TestReport | pytest.CollectReport) -> None:
    """Under --complete: turn a skip for want of what should be there into a failure."""
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
    if config.getoption("--complete") and report.outcome == "skipped" and BROUGHT.search(reason):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} would skip: {reason} (--complete)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fail_incomplete(item.config, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_incomplete(collector.config, report)
    return report


def pytest_collection_finish(session: pytest.Session) -> None:
    """Where a test may export networks, keep what torch would build anew for each. What is there
    before the first test is no garbage and need not be looked through."""
    if "gossamer.export.convert" in sys.modules:
        keep_tables_of_torch()
    gc.collect()
    gc.freeze()


FACTORIES: list[pytest.TempPathFactory] = []  # that of this process, once its first test runs


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` of this session of tests, filled by `make`; not to be changed.

    The first of its processes that asks fills it and the others wait: what takes seconds is done once, not once a process.
    Where `make` fails, each that asks tries and fails for itself.
    """
    session = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    folder, ready = session / "once" / name, session / "once" / f"{name}.ready"
    folder.parent.mkdir(exist_ok=True)
    with (session / "once" / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            ready.touch()
    return folder


@pytest.fixture(scope="session", autouse=True)
def folders_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> None:
    """For what is made once where no fixture can be asked."""
    FACTORIES[:] = [tmp_path_factory]


@pytest.fixture(autouse=True)
def offline_flag_ends_with_its_test() -> Generator[None]:
    """`--offline` sets a variable for the processes that a command starts; in a test it would last for all tests after it."""
    before = os.environ.get("GOSSAMER_OFFLINE")
    yield
    if before is None:
        os.environ.pop("GOSSAMER_OFFLINE", None)
    else:
        os.environ["GOSSAMER_OFFLINE"] = before


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no folder of real images beside this checkout (shared/data)")
    return folder


def write_image_folder(
    root: Path, classes: int = 3, each: int = 12, size: int = 32, splits: tuple[str, ...] = ("train", "val")
) -> Path:
    """An ImageFolder of easy images: each class is the colour and the place of a square, on noise."""
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
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ImageFolder with train/ and val/, 3 classes; not to be changed."""
    return once(tmp_path_factory, "image_folder", write_image_folder)


@pytest.fixture
def make_image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Make an ImageFolder of one's own."""
    return lambda name="own", **options: write_image_folder(tmp_path / name, **options)


def write_boxes(root: Path, each: int = 8, size: int = 64, splits: tuple[str, ...] = ("train", "val")) -> Path:
    """PASCAL VOC: a red "sign" or a green "cone" on noise in each image."""
    rng = np.random.default_rng(7)
    colours = {"sign": (220, 40, 40), "cone": (40, 200, 60)}
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split in splits:
        stems = [f"{split}{index:03}" for index in range(each)]
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems))
        for index, stem in enumerate(stems):
            pixels = rng.integers(0, 120, (size, size, 3))
            left, top = rng.integers(1, size // 2, 2).tolist()
            side, name = size // 3, list(colours)[index % 2]
            pixels[top : top + side, left : left + side] = colours[name]
            Image.fromarray(pixels.astype(np.uint8)).save(root / "JPEGImages" / f"{stem}.png")
            (root / "Annotations" / f"{stem}.xml").write_text(
                f"<annotation><size><width>{size}</width><height>{size}</height></size><object><name>{name}</name><bndbox>"
                f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{left + side}</xmax><ymax>{top + side}</ymax>"
                "</bndbox></object></annotation>"
            )
    return root


def write_masks(root: Path, each: int = 8, size: int = 64, splits: tuple[str, ...] = ("train", "val")) -> Path:
    """Images of a bright square on noise, and their masks: "ground" 0 and "square" 1."""
    rng = np.random.default_rng(7)
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("ground\nsquare\n")
    for split in splits:
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True, exist_ok=True)
        for index in range(each):
            pixels, mask = rng.integers(0, 120, (size, size, 3)), np.zeros((size, size), np.uint8)
            top, left = rng.integers(0, size // 2, 2)
            square = np.s_[top : top + size // 2, left : left + size // 2]
            pixels[square], mask[square] = (230, 210, 40), 1
            Image.fromarray(pixels.astype(np.uint8)).save(root / split / "images" / f"{index:03}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{index:03}.png")
    return root
