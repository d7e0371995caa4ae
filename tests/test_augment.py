"""Training transforms: what they draw, what they leave alone, and that evaluation is the deployment code."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gossamer.data import augment, randaugment
from gossamer.data.augment import EvalTransform, TrainTransform
from gossamer.data.mix import mix_plan
from gossamer.data.streams import stream
from gossamer.errors import ImageError
from gossamer.images.preprocess import Preprocess
from gossamer.settings import Settings

SMALL = Preprocess((32, 32), crop_pct=1.0)


def ramp(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An image whose red is the column and green the row, in 0..255, so that a crop shows where it lay."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)[None, :]
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return pixels


def encoded(pixels: np.ndarray[Any, Any], form: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **({"quality": 95} if form == "JPEG" else {}), **options)
    return file.getvalue()


def transform(preprocess: Preprocess = SMALL, **settings: Any) -> TrainTransform:
    return TrainTransform(preprocess, Settings(**{"flip": 0.0, **settings}))


def test_evaluation_is_the_deployment_preprocessing() -> None:
    preprocess = Preprocess((48, 64))
    data = encoded(ramp(100, 180))
    result = EvalTransform(preprocess)(data)
    assert np.array_equal(result, preprocess.pixels(data)) and result.shape == EvalTransform(preprocess).shape
    assert np.array_equal(EvalTransform(preprocess).vary(EvalTransform(preprocess).prepare(data)), result)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("crop", ["random_resized", "padded", "center"])
def test_every_result_has_the_shape_and_is_the_same_for_the_same_draws(crop: str, channels: int) -> None:
    mean = (0.5,) * channels
    p = Preprocess((24, 40), channels=channels, mean=mean, std=mean)
    everything = {"flip": 0.5, "vertical_flip": 0.5, "color_jitter": 0.4, "randaugment": 2, "random_erasing": 0.5}
    t = TrainTransform(p, Settings(crop=crop, in_chans=channels, **everything))
    data = encoded(ramp(90, 70))
    for seed in range(20):
        result = t(data, stream(seed))
        assert result.shape == t.shape == (24, 40, channels) and result.dtype == np.uint8
        assert np.array_equal(result, t(data, stream(seed)))
    assert not np.array_equal(t(data, stream(0)), t(data, stream(1)))


def test_random_crops_have_the_areas_and_shapes_of_the_settings() -> None:
    t = transform(crop_scale=(0.35, 1.0))
    boxes = [t._box((300, 400), stream(0, 0, i)) for i in range(2000)]
    areas = np.array([(right - left) * (bottom - top) / 120_000 for left, top, right, bottom in boxes])
    ratios = np.array([(right - left) / (bottom - top) for left, top, right, bottom in boxes])
    assert areas.min() > 0.34 and areas.max() <= 1 and 0.5 < areas.mean() < 0.65
    assert ratios.min() > 0.74 and ratios.max() < 1.35
    assert all(0 <= left < right <= 400 and 0 <= top < bottom <= 300 for left, top, right, bottom in boxes)
    assert len({box[0] for box in boxes}) > 60 and len({box[1] for box in boxes}) > 60


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 99))
def test_a_crop_lies_within_an_image_of_any_size(height: int, width: int, seed: int) -> None:
    left, top, right, bottom = transform()._box((height, width), stream(seed))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height


def test_a_crop_decoded_at_a_reduced_scale_shows_the_same_part() -> None:
    """The JPEG is decoded at 1/2 to 1/8; its crop must agree with that of the full image within interpolation."""
    t = transform()
    pixels = ramp(480, 640)
    data = encoded(pixels)
    for seed in range(12):
        box = t._box((480, 640), stream(seed))
        cropped = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR, box))
        assert np.abs(t(data, stream(seed)).astype(int) - cropped).max() <= 6


def test_the_reduced_scale_still_covers_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[tuple[float, ...], tuple[int, int]]] = []
    real = augment.decode_to

    def spy(data: bytes, channels: int, needed: Any, limit: int, name: str) -> Any:
        requested: list[tuple[int, int]] = []
        image, filled = real(data, channels, lambda size: requested.append(needed(size)) or requested[-1], limit, name)
        sizes.append((requested[0], (image.height, image.width)))
        return image, filled

    monkeypatch.setattr(augment, "decode_to", spy)
    t = transform()
    for seed in range(20):
        t(encoded(ramp(480, 640)), stream(seed))
    assert all(down >= least[0] and across >= least[1] for least, (down, across) in sizes)
    assert all(size in ((60, 80), (120, 160)) for _, size in sizes)


@pytest.mark.parametrize(
    ("size", "ratio", "decoded"),
    [
        ((64, 256), 2.0, (256, 512)),
        ((256, 64), 2.0, (512, 1024)),
        ((128, 128), 0.5, (256, 512)),
        ((64, 64), 1.0, (128, 256)),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_covers_its_crop(
    size: tuple[int, int], ratio: float, decoded: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of 512 x 1024 pixels is 256 x 512 at ratio 2, 512 x 256 at 0.5 and 362 x 362 at 1: of the scales 1/1 to
    1/8, the one chosen is the smallest at which that still has the input's height and width."""
    sizes: list[tuple[int, int]] = []
    real = augment.decode_to

    def spy(*arguments: Any) -> Any:
        image, filled = real(*arguments)
        sizes.append((image.height, image.width))
        return image, filled

    monkeypatch.setattr(augment, "decode_to", spy)
    t = transform(Preprocess(size, crop_pct=1.0), crop_scale=(0.25, 0.25), crop_ratio=(ratio, ratio))
    data = encoded(ramp(512, 1024))
    for seed in range(8):
        t(data, stream(seed))
    assert sizes == 8 * [decoded]


def test_the_same_crop_whatever_the_orientation_says() -> None:
    pixels = ramp(200, 300)
    turned = Image.Exif()
    turned[0x0112] = 6  # the file lies on its side
    on_its_side = np.ascontiguousarray(np.rot90(pixels))
    t = transform()
    for seed in range(5):
        upright, other = t(encoded(pixels), stream(seed)), t(encoded(on_its_side, exif=turned), stream(seed))
        assert np.abs(upright.astype(int) - other).max() <= 8


def test_png_and_jpeg_of_one_size_get_the_same_crop() -> None:
    t = transform()
    for seed in range(5):
        png, jpeg = t(encoded(ramp(64, 64), "PNG"), stream(seed)), t(encoded(ramp(64, 64)), stream(seed))
        assert np.abs(png.astype(int) - jpeg).max() <= 8


def test_padded_crops_are_shifts_by_up_to_an_eighth_with_the_mean_around() -> None:
    t = transform(crop="padded")
    pixels = ramp(32, 32)
    page = np.empty((40, 40, 3), np.uint8)
    page[:] = t.fill
    page[4:36, 4:36] = pixels
    shifts = set()
    for i in range(600):
        result = t(encoded(pixels, "PNG"), stream(0, 0, i))
        rng = stream(0, 0, i)
        down, right = int(rng.integers(-4, 5)), int(rng.integers(-4, 5))
        assert np.array_equal(result, page[4 + down : 36 + down, 4 + right : 36 + right])
        shifts.add((down, right))
    assert len(shifts) == 81


def test_flips_turn_the_image_and_center_leaves_it() -> None:
    pixels = ramp(32, 32)
    data = encoded(pixels, "PNG")
    assert np.array_equal(transform(crop="center")(data, stream(0)), pixels)
    assert np.array_equal(transform(crop="center", flip=1.0)(data, stream(0)), pixels[:, ::-1])
    assert np.array_equal(transform(crop="center", vertical_flip=1.0)(data, stream(0)), pixels[::-1])
    mirrored = [bool(transform(crop="center", flip=0.5)(data, stream(i))[0, 0, 0]) for i in range(200)]
    assert 70 < sum(mirrored) < 130


def test_jitter_stays_within_its_strength() -> None:
    grey = np.full((32, 32, 3), 100, np.uint8)
    t = transform(crop="center", color_jitter=0.4)
    values = np.array([t(grey, stream(i))[0, 0, 0] for i in range(300)])
    assert values.min() >= 59 and values.max() <= 141 and values.min() < 70 and values.max() > 130


def test_erasing_fills_a_rectangle_with_the_mean_colour() -> None:
    t = transform(crop="center", random_erasing=1.0)
    white = np.full((32, 32, 3), 255, np.uint8)
    areas = []
    for i in range(200):
        result = t(white, stream(i))
        erased = (result == t.fill).all(-1)
        rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
        assert erased.sum() == len(rows) * len(columns)
        assert (result[~erased] == 255).all()
        areas.append(erased.mean())
    assert min(areas) > 0.01 and max(areas) < 0.45 and (white == 255).all()


def speckled() -> Image.Image:
    """Noise of a limited range on a ramp: every operation shows on it."""
    noise = np.random.default_rng(0).integers(0, 60, (40, 60, 3))
    return Image.fromarray((60 + ramp(40, 60) // 3 + noise).astype(np.uint8))


def test_randaugment_has_the_fourteen_operations_of_the_paper() -> None:
    assert len(randaugment.NAMES) == len(randaugment.OPERATIONS) == 14
    image = speckled()
    for name, (operation, most, _signed) in zip(randaugment.NAMES, randaugment.OPERATIONS, strict=True):
        for mode in ("RGB", "L"):
            result = operation(image.convert(mode), most, (124, 116, 104))
            assert result.size == (60, 40) and result.mode == mode
        changed = np.abs(np.asarray(operation(image, most, (124, 116, 104))).astype(int) - np.asarray(image)).max()
        assert (changed > 10) == (name != "identity"), name
        if most:
            nothing = np.asarray(operation(image, 0, (124, 116, 104)))
            assert np.array_equal(nothing, np.asarray(image)), name


def test_a_shear_leaves_the_middle_where_it_is_and_a_shift_is_a_fraction_of_the_side() -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (21, 41, 3)).astype(np.uint8)
    image, operations = Image.fromarray(pixels), dict(zip(randaugment.NAMES, randaugment.OPERATIONS, strict=True))
    along, down = (np.asarray(operations[name][0](image, 0.3, (0, 0, 0))) for name in ("shear_x", "shear_y"))
    assert (along[10] == pixels[10]).all() and (along[0] != pixels[0]).any()
    assert (down[:, 20] == pixels[:, 20]).all() and (down[:, 0] != pixels[:, 0]).any()
    most = [operations[name][1] for name in ("shear_x", "shear_y", "translate_x", "translate_y")]
    assert most == pytest.approx([0.3, 0.3, 150 / 331, 150 / 331])  # AutoAugment's 150 pixels of 331
    right = np.asarray(operations["translate_x"][0](image, 10 / 41, (7, 8, 9)))
    assert (right[:, :31] == pixels[:, 10:]).all() and (right[:, 31:] == (7, 8, 9)).all()
    below = np.asarray(operations["translate_y"][0](image, 5 / 21, (7, 8, 9)))
    assert (below[:16] == pixels[5:]).all() and (below[16:] == (7, 8, 9)).all()


def test_randaugment_draws_every_operation_in_both_directions() -> None:
    image = speckled()
    results = {randaugment.apply(image, 1, 15, (0, 0, 0), stream(i)).tobytes() for i in range(400)}
    signed = sum(signed for _, _, signed in randaugment.OPERATIONS)
    assert signed == 9 and len(results) == 14 + signed


def test_prepared_images_are_shrunk_to_eight_sevenths_and_small_ones_kept() -> None:
    t = transform(Preprocess((56, 56)))
    assert t.prepare(encoded(ramp(300, 400))).shape == (64, 85, 3)
    assert t.prepare(encoded(ramp(600, 90))).shape == (427, 64, 3)
    small = ramp(50, 70)
    assert np.array_equal(t.prepare(encoded(small, "PNG")), small)
    assert np.array_equal(t.prepare(t.prepare(encoded(ramp(300, 400)))), t.prepare(encoded(ramp(300, 400))))


@pytest.mark.parametrize("crop", ["padded", "center"])
def test_prepared_and_unprepared_give_the_same_pixels_where_the_geometry_is_fixed(crop: str) -> None:
    t = TrainTransform(SMALL, Settings(crop=crop, randaugment=1))
    data = encoded(ramp(50, 60))
    for i in range(10):
        assert np.array_equal(t(data, stream(i)), t.vary(t.prepare(data), stream(i)))


def test_keys_differ_by_preparation() -> None:
    keys = [
        transform().key(),
        transform(crop="padded").key(),
        transform(Preprocess((40, 32))).key(),
        transform(Preprocess((32, 32), interpolation="bicubic")).key(),
        EvalTransform(Preprocess((32, 32), resize="pad")).key(),
    ]
    assert len({repr(sorted(key.items())) for key in keys}) == len(keys)
    assert transform(crop="padded").key() == EvalTransform(SMALL).key()
    assert transform().key() == transform(color_jitter=0.3, crop_scale=(0.5, 1.0)).key()


def test_damaged_bytes_are_an_image_error_in_every_geometry() -> None:
    data = encoded(ramp(200, 200))
    for crop in ("random_resized", "padded", "center"):
        for broken in (b"", data[:40], data[: len(data) // 2], b"not an image"):
            with pytest.raises(ImageError):
                transform(crop=crop)(broken, stream(0))


# mixing


def test_no_plan_where_both_are_off() -> None:
    assert mix_plan(0, 0, 0, 0.0, 0.0, (32, 32)) is None


def test_cutmix_weighs_by_the_box_that_is_left() -> None:
    weights = []
    for step in range(500):
        plan = mix_plan(1, 2, step, 0.0, 1.0, (24, 40))
        assert plan is not None and plan.box is not None
        top, left, bottom, right = plan.box
        assert 0 <= top <= bottom <= 24 and 0 <= left <= right <= 40
        assert plan.lam == pytest.approx(1 - (bottom - top) * (right - left) / 960)
        weights.append(plan.lam)
    assert min(weights) < 0.3 and max(weights) > 0.95


def test_mixup_draws_from_beta_and_takes_turns_with_cutmix() -> None:
    lams = [plan.lam for step in range(2000) if (plan := mix_plan(0, 0, step, 0.2, 0.0, (32, 32)))]
    assert len(lams) == 2000 and abs(np.mean(lams) - 0.5) < 0.03
    assert abs(np.var(lams) - 1 / (4 * (2 * 0.2 + 1))) < 0.01
    both = [mix_plan(0, 0, step, 0.2, 1.0, (32, 32)) for step in range(400)]
    assert 160 < sum(plan is not None and plan.box is not None for plan in both) < 240
    assert mix_plan(0, 0, 3, 0.2, 1.0, (32, 32)) == both[3] != mix_plan(0, 1, 3, 0.2, 1.0, (32, 32))
