"""The dataset check: it reports what is planted, and nothing else."""

from __future__ import annotations

import io
import json
from itertools import combinations
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from gossamer.data.check import duplicates
from gossamer.data.check.duplicates import groups, look, near_pairs
from gossamer.data.check.images import ODD, ImageCheck, check_images
from gossamer.data.open import open_data
from gossamer.data.source import Data, Source
from gossamer.errors import ImageError
from gossamer.host.progress import Progress


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def scene(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """An image with large shapes and a little texture, unlike those of other seeds."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    texture = rng.integers(-10, 11, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + texture, 0, 255).astype(np.uint8))


class Memory:
    """A store of bytes; an exception in place of bytes is raised."""

    def __init__(self, contents: list[bytes | Exception]) -> None:
        self.contents = contents

    def read(self, row: int) -> bytes:
        content = self.contents[row]
        if isinstance(content, Exception):
            raise content
        return content


CLASSES = ("cat", "dog")
Row = tuple[str, bytes | Exception, str]


def source(rows: list[Row], classes: tuple[str, ...] = CLASSES) -> Source:
    labels = np.array([classes.index(label) for _, _, label in rows], dtype=np.int64)
    store = Memory([content for _, content, _ in rows])
    return Source(classes, [name for name, _, _ in rows], labels, store, np.arange(len(rows)))  # type: ignore[arg-type]


def data(train: list[Row], val: list[Row], test: list[Row] | None = None) -> Data:
    return Data(source(train), source(val), source(test) if test else None, CLASSES, "in memory")


def even(first: int, each: int = 12) -> list[Row]:
    return [(f"{c}/{i}.png", encoded(scene(first + 2 * i + k)), c) for i in range(each) for k, c in enumerate(CLASSES)]


def names(groups: list[list[object]]) -> list[list[str]]:
    return [[f"{item.split}:{item.name}" for item in group] for group in groups]  # type: ignore[attr-defined]


def test_a_sound_data_set_gives_no_advice() -> None:
    check = check_images(data(even(0), even(100)))
    assert (check.unreadable, check.exact, check.near) == ([], [], [])
    assert not any(check.odd.values())
    assert check.advice == ["Nothing: no unreadable, repeated, leaking or odd images, and the classes are even."]
    train = check.splits["train"]
    assert (train.images, train.classes, train.formats, train.modes) == (
        24,
        {"cat": 12, "dog": 12},
        {"PNG": 24},
        {"RGB": 24},
    )
    assert vars(train.width or 0) == {"low": 48, "median": 48.0, "high": 48}
    assert vars(train.height or 0) == {"low": 40, "median": 40.0, "high": 40}


def test_unreadable_images_are_listed_with_their_reason() -> None:
    content = encoded(scene(1000))
    broken: list[Row] = [
        ("empty.png", b"", "cat"),
        ("text.png", b"hello", "cat"),
        ("cut.png", content[: len(content) // 2], "dog"),
        ("gone.png", OSError(5, "Input/output error"), "dog"),
        ("refused.png", ImageError("refused.png: permission denied", "a file", "check"), "dog"),
        ("bomb.png", b"P6 90000 90000 255\n", "dog"),
    ]
    check = check_images(data(even(0) + broken, even(100)))
    reasons = {item.name: item.reason for item in check.unreadable}
    assert list(reasons) == [name for name, _, _ in broken]
    for name, words in zip(
        reasons, ["empty", "not an image", "cut off", "Input/output", "permission", "90000 x 90000"]
    ):
        assert words in reasons[name] and name not in reasons[name]
    assert check.splits["train"].images == 30 and sum(check.splits["train"].formats.values()) == 24
    assert any("Unreadable images: 6 (11.1%)" in line for line in check.advice)


def test_exact_and_near_copies_across_splits_are_leaks() -> None:
    train, val = even(0), even(100)
    copied, changed = train[0][1], Image.open(io.BytesIO(train[3][1])).resize((60, 50))  # type: ignore[arg-type]
    val += [("copy.png", copied, "cat"), ("re.jpg", encoded(changed, "JPEG", quality=60), "dog")]
    check = check_images(data(train, val, even(200)))
    assert names(check.leaks("exact")) == [["train:cat/0.png", "val:copy.png"]]
    assert names(check.leaks("near")) == [["train:dog/1.png", "val:re.jpg"]]
    assert check.conflicts("exact") == check.conflicts("near") == []
    assert check.advice[0].startswith("Images of val that are in another split too, byte for byte: 1 (3.8%)")
    assert check.advice[1].startswith("Images of val that are in another split too, but for small changes: 1 (3.8%)")


def test_copies_within_a_split_are_no_leak() -> None:
    train = even(0)
    check = check_images(data([*train, ("again.png", train[0][1], "cat")], even(100)))
    assert names(check.exact) == [["train:cat/0.png", "train:again.png"]]
    assert check.leaks("exact") == [] and check.near == []
    assert any(line.startswith("Exact copies of other images: 1.") for line in check.advice)


def test_a_near_group_names_all_copies_of_its_members() -> None:
    train = even(0)
    near = encoded(ImageEnhance.Contrast(scene(0)).enhance(0.8))
    check = check_images(data([*train, ("near.png", near, "cat"), ("twice.png", near, "cat")], even(100)))
    assert names(check.near) == [["train:cat/0.png", "train:near.png", "train:twice.png"]]


def test_copies_of_different_class_are_conflicts() -> None:
    train = even(0)
    train.append(("wrong.png", train[0][1], "dog"))
    train.append(("wrong.jpg", encoded(scene(2), "JPEG", quality=80), "dog"))
    check = check_images(data(train, even(100)))
    assert names(check.conflicts("exact")) == [["train:cat/0.png", "train:wrong.png"]]
    assert names(check.conflicts("near")) == [["train:cat/1.png", "train:wrong.jpg"]]
    assert sum("in different classes: 1." in line for line in check.advice) == 2


def test_odd_images_are_listed_by_kind() -> None:
    odd: list[Row] = [
        ("small.png", encoded(scene(900, (15, 40))), "cat"),
        ("long.png", encoded(scene(901, (500, 100))), "cat"),
        ("black.png", encoded(Image.new("L", (40, 40))), "dog"),
        ("also-black.png", encoded(Image.new("RGB", (50, 40))), "dog"),
        ("large.png", encoded(Image.new("1", (5100, 5000))), "dog"),
    ]
    check = check_images(data(even(0) + odd, even(100)))
    listed = {kind: [item.name for item in check.odd[kind]] for kind in ODD}
    assert listed["small"] == ["small.png"] and listed["elongated"] == ["long.png"] and listed["large"] == ["large.png"]
    assert listed["blank"] == ["black.png", "also-black.png", "large.png"]
    assert check.near == []  # blank images look alike, which says nothing
    assert set(check.splits["train"].modes) == {"RGB", "L", "1"}


def test_classes_are_compared_between_splits_and_with_each_other() -> None:
    train = even(0)
    cats = [row for row in train if row[2] == "cat"]
    check = check_images(
        data(cats + [row for row in train if row[2] == "dog"][:3], [r for r in even(100) if r[2] == "cat"])
    )
    assert any(line.startswith("Class dog: no images in val, so cannot be measured") for line in check.advice)
    assert any(line.startswith("Class dog: fewer than 10") for line in check.advice)
    assert any("Class cat has 4.0 times the training images of dog" in line for line in check.advice)


def test_the_text_is_aligned_and_safe_and_the_json_complete() -> None:
    train = [*even(0), ("evil\x1b[2J\n.png", b"", "cat"), *[(f"{i}.png", b"", "dog") for i in range(20)]]
    check = check_images(data(train, even(100)))
    lines = check.text().split("\n")
    assert all(line.isprintable() for line in lines)
    table = lines[2:6]
    assert table[0].split() == ["class", "train", "val"] and len({len(line) for line in table}) == 1
    assert "unreadable: 21" in lines and "  ..." in lines and lines[-1].startswith("  * ")
    plain = json.loads(json.dumps(check.to_json()))
    assert len(plain["unreadable"]) == 21 and plain["unreadable"][0]["reason"] == "is empty"
    assert plain["splits"]["train"]["classes"] == {"cat": 13, "dog": 32}
    assert plain["splits"]["val"]["width"] == {"low": 48, "median": 48.0, "high": 48}


def test_many_classes_are_cut_in_the_middle() -> None:
    classes = tuple(f"c{i:02}" for i in range(40))
    rows: list[Row] = [(f"{i}-{k}.png", b"", c) for i, c in enumerate(classes) for k in range(i + 1)]
    half = source(rows, classes)
    text = check_images(Data(half, half, None, classes, "")).text()
    assert "(16 more)" in text and "c39" in text and "c00" in text and "c20" not in text.split("unreadable")[0]


def test_order_and_result_do_not_depend_on_the_threads() -> None:
    dataset = data(even(0), even(10))
    one, four = check_images(dataset, threads=1), check_images(dataset, threads=4)
    assert one == four and one.exact


def test_progress_counts_every_image() -> None:
    class Count(Progress):
        def track(self, items, total=None, what=""):  # type: ignore[no-untyped-def]
            self.total, self.seen = total, 0
            for item in items:
                self.seen += 1
                yield item

    progress = Count()
    check_images(data(even(0), even(100)), progress=progress)
    assert progress.total == progress.seen == 48


def test_a_folder_on_disk_is_inspected_through_open_data(image_folder: Path) -> None:
    check = check_images(open_data(image_folder))
    assert check.unreadable == [] and set(check.splits) == {"train", "val"}
    assert check.splits["train"].formats == {"PNG": 36}


# --- duplicates ----------------------------------------------------------------------------------


def ones(x: int) -> int:
    return int(x).bit_count()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, (1 << 63) - 1), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
def test_near_pairs_are_those_that_comparing_all_finds(seeds: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = [x ^ sum(1 << int(b) for b in rng.choice(63, n, replace=False)) for x in seeds for n in (0, 3, 6, 7, 9)]
    bits = list(dict.fromkeys(bits))  # equal hashes are compared with their first only
    thumbs = rng.integers(0, 256, (3, 16, 16), dtype=np.uint8)[rng.integers(0, 3, len(bits))]
    expected = [
        (i, j)
        for i, j in combinations(range(len(bits)), 2)
        if ones(bits[i] ^ bits[j]) <= duplicates.MOST_BITS and np.array_equal(thumbs[i], thumbs[j])
    ]
    assert near_pairs(np.array(bits, np.uint64), thumbs) == expected


def test_equal_hashes_are_paired_without_comparing_all() -> None:
    rng = np.random.default_rng(0)
    thumbs = np.repeat(rng.integers(0, 256, (1, 16, 16), dtype=np.uint8), 50_000, 0)
    pairs = near_pairs(np.full(50_000, 12345, np.uint64), thumbs)
    assert pairs == [(0, i) for i in range(1, 50_000)]
    assert groups(50_000, pairs) == [list(range(50_000))]


def test_a_hundred_thousand_hashes_take_seconds() -> None:
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 1 << 63, 100_000, dtype=np.uint64)
    bits[777], bits[99_999] = bits[5] ^ np.uint64(0b1011), bits[5] ^ np.uint64(1 << 62)
    thumbs: NDArray[np.uint8] = rng.integers(0, 256, (100_000, 16, 16), dtype=np.uint8)
    thumbs[777] = thumbs[99_999] = thumbs[5]
    assert near_pairs(bits, thumbs) == [(5, 777), (5, 99_999), (777, 99_999)]


def test_groups_are_what_pairs_connect() -> None:
    assert groups(8, [(5, 6), (0, 3), (3, 7), (2, 6)]) == [[0, 3, 7], [2, 5, 6]]
    assert groups(3, []) == []


def test_small_changes_keep_the_look() -> None:
    for seed in range(20):
        image = scene(seed, (120, 90))
        again = Image.open(io.BytesIO(encoded(image, "JPEG", quality=50)))
        for change in (again, image.resize((60, 45)), image.convert("L"), ImageEnhance.Contrast(image).enhance(0.8)):
            a, b = look(image), look(change)
            assert near_pairs(np.array([a.bits, b.bits], np.uint64), np.stack([a.thumb, b.thumb])) == [(0, 1)]


# --- real images ---------------------------------------------------------------------------------


def test_different_real_images_are_not_called_duplicates(real_data: Path) -> None:
    check = check_images(open_data(real_data / "cifar10-small"))
    assert (check.exact, check.near, check.unreadable) == ([], [], [])
    assert check.splits["train"].images == 2000 and check.splits["val"].images == 500


def test_photos_saved_again_are_near_copies(real_data: Path) -> None:
    def again(path: Path) -> bytes:
        with Image.open(path) as image:
            half = image.convert("RGB").resize((image.width // 2, image.height // 2))
            return encoded(half, "JPEG", quality=70)

    photos = sorted((real_data / "photos").glob("*.JPEG"))[:40]
    train: list[Row] = [(p.name, p.read_bytes(), CLASSES[i % 2]) for i, p in enumerate(photos)]
    val: list[Row] = [(f"again-{p.name}", again(p), CLASSES[i % 2]) for i, p in enumerate(photos)]
    check: ImageCheck = check_images(data(train, val))
    assert len(check.leaks("near")) >= 39 and all(len(group) == 2 for group in check.near)
    assert check.conflicts("near") == [] and check.exact == []
