"""Decoding: every kind of image comes out right, every broken one as one ImageError."""

from __future__ import annotations

import io
import os
import pickle
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from gossamer.errors import ImageError
from gossamer.images.preprocess import IMAGE_SUFFIXES, Preprocess, decode, describe, read_file

HOSTILE = Path(__file__).parent / "hostile"
sys.path.insert(0, str(HOSTILE))
import make_images  # noqa: E402

GOOD = sorted(HOSTILE.glob("images/good-*"))
BAD = sorted(HOSTILE.glob("images/bad-*"))
RGB = np.asarray(make_images.reference_image()).astype(int)
GREY = np.asarray(make_images.reference_image().convert("L")).astype(int)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> Image.Image:
    """An image without detail finer than a fifth of its shorter side."""
    return Image.fromarray(noise(5, 7)).resize((width, height), Image.Resampling.BICUBIC)


def difference(a: object, b: object) -> int:
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max())


# --- every kind of image -----------------------------------------------------------------------


def test_the_hostile_files_are_those_that_the_script_writes(tmp_path: Path) -> None:
    make_images.write(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in GOOD + BAD}
    assert sum(p.stat().st_size for p in GOOD + BAD) < 300_000


@pytest.mark.parametrize("path", GOOD, ids=lambda p: p.name)
def test_a_good_file_decodes_to_the_image(path: Path) -> None:
    image = decode(path)
    grey = "grey" in path.name
    assert (image.mode, image.size) == ("RGB", (make_images.WIDTH, make_images.HEIGHT))
    expected = np.repeat(GREY[..., None], 3, 2) if grey else RGB
    if "animated.webp" not in path.name:
        assert difference(image, expected) <= 3
    assert difference(decode(path, channels=1), GREY) <= 3
    shape = describe(path)
    assert (shape.height, shape.width) == (make_images.HEIGHT, make_images.WIDTH)


@pytest.mark.parametrize("path", BAD, ids=lambda p: p.name)
def test_a_bad_file_is_refused_with_one_line(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    with pytest.raises(ImageError) as caught:
        decode(path)
    assert time.monotonic() - started < 2
    message = str(caught.value)
    assert path.name in message and "\n" not in message and "; allowed: " in message and len(message) < 600
    with pytest.raises(ImageError):
        Preprocess((32, 32)).pixels(path.read_bytes())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("path", [p for p in BAD if "half" in p.name or "end" in p.name], ids=lambda p: p.name)
def test_truncated_is_refused_whatever_the_process_told_pillow(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageError):
        decode(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "progressive", "lzw"])
def test_cut_anywhere_a_file_is_refused_or_complete(kind: str, lenient: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    image = Image.fromarray(noise(24, 20))
    if kind == "progressive":
        data = encoded(image, "JPEG", progressive=True)
    elif kind == "lzw":  # compressed without libtiff, which reports each cut on standard error
        data = encoded(image, "TIFF", compression="packbits")
    else:
        data = encoded(image.quantize(64) if kind == "GIF" else image, kind)
    complete, refused = np.asarray(decode(data)), 0
    for end in range(0, len(data), 1 + len(data) // 150):
        try:
            assert np.array_equal(np.asarray(decode(data[:end])), complete), end
        except ImageError:
            refused += 1
    assert refused > 100


def test_transparency_is_laid_on_white() -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 1, 3], pixels[1, 0, 3], pixels[1, 1] = 255, 128, (255, 0, 0, 128)
    expected = np.array([[[255] * 3, [0] * 3], [[127] * 3, [255, 127, 127]]])
    assert difference(decode(encoded(Image.fromarray(pixels))), expected) <= 1
    grey = Image.fromarray(np.ascontiguousarray(pixels[..., 2:]))
    assert grey.mode == "LA"
    assert difference(decode(encoded(grey), channels=1), expected[..., 1].clip(max=255)) <= 128
    assert difference(decode(encoded(grey), channels=1), [[255, 0], [127, 127]]) <= 1


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(kind: str) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 2]], np.uint8)).convert("L")
    image = Image.frombytes("P", (2, 2), image.tobytes())
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    assert (
        difference(decode(encoded(image, kind, transparency=1)), [[[10, 20, 30], [255] * 3], [[70, 80, 90]] * 2]) == 0
    )


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_transparent_colour_is_white(mode: str) -> None:
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert(mode)
    clear = (0, 0, 0) if mode == "RGB" else 0
    assert np.asarray(decode(encoded(image, transparency=clear))).tolist() == [[[255] * 3] * 2]


def test_16_bit_grey_is_rounded_not_clipped() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.round(values / 257).astype(int)
    big_endian = Image.frombytes("I;16B", (256, 256), values.astype(">u2").tobytes())
    for data in (
        encoded(Image.fromarray(values)),
        encoded(Image.fromarray(values), "TIFF"),
        encoded(big_endian, "TIFF"),
        encoded(Image.fromarray(values.astype(np.int32)), "TIFF"),
        b"P5 256 256 65535 " + values.astype(">u2").tobytes(),
    ):
        assert difference(decode(data, channels=1), expected) == 0


def test_one_bit_is_black_and_white() -> None:
    image = Image.fromarray(np.array([[True, False, True]]))
    for kind in ("PNG", "TIFF", "BMP", "PPM"):
        assert np.asarray(decode(encoded(image, kind), channels=1)).tolist() == [[255, 0, 255]]


def test_hsv_and_other_modes_of_an_open_image_are_converted() -> None:
    preprocess = Preprocess((32, 48), "squash")
    for mode in ("HSV", "YCbCr", "CMYK", "RGBA", "RGBX"):
        assert difference(preprocess.pixels(make_images.reference_image().convert(mode)), RGB) <= 4, mode
    with pytest.raises(ImageError, match="LAB"):
        preprocess.pixels(Image.new("LAB", (8, 8)))


def test_the_turn_is_not_applied_twice() -> None:
    path = HOSTILE / "images" / "good-exif-6.jpg"
    preprocess = Preprocess((make_images.HEIGHT, make_images.WIDTH), "squash")
    with Image.open(path) as opened:
        assert np.array_equal(preprocess.pixels(opened), preprocess.pixels(path))
        assert opened.getexif()[0x0112] == 6  # the caller's image is left as it was
    assert np.array_equal(preprocess.pixels(decode(path)), preprocess.pixels(path))


# --- files, names, limits ------------------------------------------------------------------------


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for path, reason in (
        (tmp_path, "is a folder"),
        (tmp_path / "pipe.jpg", "is a pipe"),
        ("/dev/zero", "is a pipe, socket or device"),
        (tmp_path / "link.jpg", "No such file"),
        (tmp_path / "loop.jpg", "symbolic links"),
        (tmp_path / ("x" * 300), "File name too long"),
        ("null\0.jpg", "null"),
        (tmp_path / "absent.jpg", "No such file"),
    ):
        with pytest.raises(ImageError, match=reason):
            decode(path)


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_an_image_error(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(smooth(8, 8)))
    path.chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        read_file(path)


def test_names_cannot_steer_a_terminal(tmp_path: Path) -> None:
    path = os.fsdecode(bytes(tmp_path) + b"/\x1b[2J\n\xff.jpg")
    Path(path).write_bytes(b"")
    with pytest.raises(ImageError) as caught:
        decode(path)
    assert str(caught.value).isprintable() and "is empty" in str(caught.value)
    with pytest.raises(ImageError, match=r"^shard\.tar/7\.jpg: is empty"):
        decode(b"", name="shard.tar/7.jpg")


def test_the_pixel_limit_is_held_to_the_pixel() -> None:
    data = encoded(smooth(20, 30))
    assert decode(data, pixel_limit=600).size == (30, 20)
    for call in (lambda: decode(data, pixel_limit=599), lambda: Preprocess((8, 8), pixel_limit=599).pixels(data)):
        with pytest.raises(ImageError, match="30 x 20 pixels"):
            call()
    with pytest.raises(ImageError, match="30 x 20 pixels"):
        Preprocess((8, 8), pixel_limit=599).pixels(smooth(20, 30))


def test_pillow_keeps_its_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # would warn or raise in Image.open
    for kind in ("PNG", "JPEG", "BMP", "PPM"):
        assert decode(encoded(smooth(20, 30), kind)).size == (30, 20)
    assert Image.MAX_IMAGE_PIXELS == 100


BROKEN_EXIF = (HOSTILE / "images" / "good-exif-broken.jpg").read_bytes()


def test_warnings_of_pillow_stay_inside_and_those_of_others_outside() -> None:
    heard: list[str] = []

    def work() -> None:
        for _ in range(50):
            decode(BROKEN_EXIF)
            decode((HOSTILE / "images" / "good-apng-no-frames.png").read_bytes())

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *rest: heard.append(str(message))
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert heard == []
        with Image.open(io.BytesIO(BROKEN_EXIF)) as image:
            image.getexif()
        assert any("EXIF" in message for message in heard)
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error")
        decode(BROKEN_EXIF)


def test_only_the_known_formats_are_ever_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object, **options: object) -> None:
        raise AssertionError("Image.open tries every reader that any package has registered")

    monkeypatch.setattr(Image, "open", forbidden)
    for path in GOOD:
        decode(path)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)


@quick
@given(st.binary(max_size=300), st.sampled_from([p.read_bytes()[:16] for p in GOOD]))
def test_random_bytes_raise_image_errors_only(tail: bytes, head: bytes) -> None:
    for data in (tail, head + tail):
        try:
            decode(data)
        except ImageError as error:
            assert "\n" not in str(error)


# TIFF compressed by libtiff is left out here: it reports damage on the process's standard error
FUZZED = [p.read_bytes() for p in GOOD if "lzw" not in p.name and "inside" not in p.name]


@settings(quick, max_examples=300)
@given(st.data())
def test_damaged_files_raise_image_errors_only(data: st.DataObject) -> None:
    mutant = bytearray(data.draw(st.sampled_from(FUZZED)))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, min(len(mutant), data.draw(st.sampled_from([64, 400, 10_000]))) - 1))
        mutant[at] = data.draw(st.sampled_from([0, 1, 127, 128, 255, mutant[at] ^ 1, mutant[at] ^ 128]))
    try:
        image = decode(bytes(mutant), pixel_limit=1_000_000)
        assert image.mode == "RGB" and image.width * image.height <= 1_000_000
    except ImageError as error:
        assert "\n" not in str(error)


def test_errors_survive_a_worker_process() -> None:
    with pytest.raises(ImageError) as caught:
        decode(b"")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


# --- reduced decoding ----------------------------------------------------------------------------


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"{}</rdf:RDF></x:xmpmeta>'
)


def xmp(orientation: int, element: bool = False) -> bytes:
    """The orientation in XMP, as an attribute or as an element."""
    fragment = f"><tiff:Orientation>{orientation}</tiff:Orientation></rdf:Description>"
    return XMP.format(fragment if element else f' tiff:Orientation="{orientation}"/>').encode()


def with_chunk(data: bytes, kind: bytes, body: bytes, late: bool, before: bytes = b"") -> bytes:
    """A PNG with a chunk before its pixels, or behind them."""
    at = data.index(before or (b"IEND" if late else b"IDAT")) - 4
    return data[:at] + make_images.chunk(kind, body) + data[at:]


def oriented(stored: Image.Image, where: str, orientation: int) -> bytes:
    exif = make_images.exif(orientation)
    if where.startswith("png"):
        body = exif.tobytes().removeprefix(b"Exif\0\0")
        if "xmp" in where:
            body = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(orientation)
        return with_chunk(encoded(stored), b"iTXt" if "xmp" in where else b"eXIf", body, "late" in where)
    kind, options = where.split()[0].upper(), {"exif": exif}
    if "both" in where:
        options = {"exif": exif, "xmp": xmp(5 if orientation in (1, 3) else 1)}
    elif "xmp" in where:
        options = {"xmp": xmp(orientation, "element" in where)}
    if kind == "TIFF" and "xmp" in where:
        options = {"tiffinfo": {700: options["xmp"]}}
    if kind == "TIFF" and "both" in where:
        options = {"tiffinfo": {700: xmp(6), 274: orientation}}
    return encoded(stored, kind, **options)


WHERE = (
    *("jpeg exif", "jpeg xmp", "jpeg xmp element", "jpeg both", "webp exif", "webp xmp", "webp both"),
    *("png exif early", "png exif late", "png xmp early", "png xmp late", "tiff exif", "tiff xmp", "tiff both"),
)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("where", WHERE)
def test_the_orientation_is_the_same_for_all_who_ask(where: str, orientation: int) -> None:
    data = oriented(smooth(40, 60), where, orientation)
    image = decode(data)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert image.size == expected.size and difference(image, expected) <= 1
    assert image.size == ((40, 60) if orientation >= 5 else (60, 40))
    header = describe(data)
    assert (header.width, header.height) == image.size
    place = Preprocess((64, 64), resize="squash", crop_pct=1.0).read(data)[1]
    assert (place.width, place.height) == image.size
    small = decode(data, at_least=(5, 5))
    assert (small.width > small.height) == (image.width > image.height)


def test_the_size_of_a_png_needs_no_pixels() -> None:
    data = with_chunk(encoded(smooth(40, 60)), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6), late=False)
    at = data.index(b"IDAT") + 8
    broken = data[:at] + bytes(8) + data[at + 8 :]
    assert (describe(broken).width, describe(broken).height) == (40, 60)
    with pytest.raises(ImageError):
        decode(broken)
    text = with_chunk(encoded(smooth(40, 60)), b"tEXt", b"date:create\0" + b"2020", late=True)
    assert (describe(text).width, describe(text).height) == decode(text).size == (60, 40)


def test_what_stands_behind_the_first_frame_does_not_turn_it() -> None:
    first, second = smooth(40, 60), Image.fromarray(noise(40, 60))
    data = encoded(first, "PNG", save_all=True, append_images=[second])
    body = make_images.exif(6).tobytes().removeprefix(b"Exif\0\0")
    for changed in (with_chunk(data, b"eXIf", body, True), with_chunk(data, b"eXIf", body, True, before=b"fdAT")):
        header = describe(changed)
        assert (header.width, header.height) == decode(changed).size


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_jpeg_is_decoded_small_but_never_too_small(orientation: int) -> None:
    upright = smooth(300, 500)
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    stored = upright.transpose(back[orientation]) if orientation in back else upright
    data = encoded(stored, "JPEG", quality=95, exif=make_images.exif(orientation))
    for least, size in (
        ((300, 500), (500, 300)),
        ((150, 250), (250, 150)),
        ((151, 10), (500, 300)),
        ((10, 251), (500, 300)),
        ((75, 1), (125, 75)),
        ((1, 1), (63, 38)),
        ((1000, 1000), (500, 300)),
    ):
        assert decode(data, at_least=least).size == size
    assert decode(encoded(upright), at_least=(1, 1)).size == (500, 300)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_decode_shows_the_same_place(orientation: int) -> None:
    """Sides that 8 does not divide leave part of a pixel, on the side that the turn puts it."""
    upright = smooth(403, 613)
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # numbers of Image.Transpose
    stored = upright.transpose(Image.Transpose(inverse[orientation])) if orientation in inverse else upright
    data = encoded(stored, "JPEG", quality=98, subsampling=0, exif=make_images.exif(orientation))
    for resize in ("crop", "squash", "pad"):
        preprocess = Preprocess((40, 30), resize, crop_pct=1.0)
        assert difference(preprocess.pixels(data), preprocess.pixels(upright)) <= 4


def test_reduced_decoding_of_photos_is_close_to_full(real_data: Path) -> None:
    preprocess = Preprocess((96, 96))
    photos = sorted((real_data / "photos").glob("*.JPEG"))[::5]
    assert photos
    for path in photos:
        full, reduced = preprocess.pixels(decode(path)), preprocess.pixels(path)
        assert np.abs(full.astype(int) - reduced).mean() < 1 and difference(full, reduced) < 20
