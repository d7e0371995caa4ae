"""The orientation of an image in XMP, however its writer spells it, in every kind of file that has it."""

from __future__ import annotations

import io
import time
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageOps

from gossamer.images.decode import decode, describe, plain
from tests.test_images import encoded, smooth, with_chunk

SPACE = "http://ns.adobe.com/tiff/1.0/"
PACKET = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    "{}</rdf:RDF></x:xmpmeta>"
)
FORMS = {
    "attribute": f'<rdf:Description xmlns:tiff="{SPACE}" tiff:Orientation="6"/>',
    "single quotes": f"<rdf:Description xmlns:tiff='{SPACE}' tiff:Orientation='6'/>",
    "spaces": f'<rdf:Description xmlns:tiff = "{SPACE}" tiff:Orientation = "6"/>',
    "element": f'<rdf:Description xmlns:tiff="{SPACE}"><tiff:Orientation>\n 6 \n</tiff:Orientation></rdf:Description>',
    "prefix": f'<rdf:Description xmlns:ns1="{SPACE}" ns1:Orientation="6"/>',
    "prefix of an element": f'<rdf:Description xmlns:t="{SPACE}"><t:Orientation>6</t:Orientation></rdf:Description>',
}
OTHERS = (
    f'<rdf:Description xmlns:tiff="{SPACE}" tiff:Orientation="0"/>',
    f'<rdf:Description xmlns:tiff="{SPACE}" tiff:OrientationOfAll="6"/>',
    '<rdf:Description xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" crs:Orientation="6"/>',
    '<rdf:Description Orientation="6"/>',
)


def near(first: Image.Image, second: Image.Image) -> bool:
    """Whether two images show the same, but for what JPEG and WebP lose."""
    return float(np.abs(np.asarray(first, float) - np.asarray(second, float)).mean()) < 5


def files(packet: bytes) -> Iterator[tuple[str, bytes]]:
    """The kinds of files with XMP, and the bytes of one that holds the packet."""
    image = smooth(40, 60)
    yield "JPEG", encoded(image, "JPEG", xmp=packet)
    yield "WebP", encoded(image, "WEBP", xmp=packet)
    yield "TIFF", encoded(image, "TIFF", tiffinfo={700: packet})
    yield "TIFF, LZW", encoded(image, "TIFF", compression="tiff_lzw", tiffinfo={700: packet})
    digits = packet.hex().encode()
    raw = b"\nxmp\n%8d\n" % len(packet) + b"\n".join(digits[i : i + 72] for i in range(0, len(digits), 72)) + b"\n"
    for late in (False, True):
        for name, kind, body in (
            ("iTXt", b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet),
            ("compressed iTXt", b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(packet)),
            ("tEXt", b"tEXt", b"XML:com.adobe.xmp\0" + packet),
            ("zTXt", b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(packet)),
            ("ImageMagick's tEXt", b"tEXt", b"Raw profile type xmp\0" + raw),
            ("ImageMagick's zTXt", b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(raw)),
        ):
            yield f"PNG, {name}, late: {late}", with_chunk(encoded(image), kind, body, late)


@pytest.mark.parametrize(
    ("form", "encoding"), [*((form, "utf-8") for form in FORMS), ("prefix", "utf-16"), ("element", "utf-16-be")]
)
def test_the_orientation_is_found_however_it_is_written(form: str, encoding: str) -> None:
    upright = smooth(40, 60).transpose(Image.Transpose.ROTATE_270)
    for kind, data in files(PACKET.format(FORMS[form]).encode(encoding)):
        header, image, small = describe(data), decode(data), decode(data, at_least=(5, 5))
        assert image.size == (40, 60) == (header.width, header.height), kind
        assert near(image, upright) and small.width < small.height, kind
        assert plain(Image.open(io.BytesIO(data)), 3, kind, 10**6).size == (40, 60), kind


@pytest.mark.parametrize("other", OTHERS)
def test_other_words_do_not_turn_an_image(other: str) -> None:
    for kind, data in files(PACKET.format(other).encode()):
        header, image = describe(data), decode(data)
        assert image.size == (60, 40) == (header.width, header.height), kind


def test_exif_counts_before_xmp_however_it_is_written() -> None:
    packet = PACKET.format(FORMS["prefix"]).encode()
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = smooth(40, 60).transpose(Image.Transpose.ROTATE_180)
    for data in (
        encoded(smooth(40, 60), "JPEG", xmp=packet, exif=exif),
        encoded(smooth(40, 60), "WEBP", xmp=packet, exif=exif),
        encoded(smooth(40, 60), "TIFF", tiffinfo={700: packet, 274: 3}),
    ):
        assert near(decode(data), turned) and describe(data).width == 60


def test_pixels_that_pillow_has_turned_are_not_turned_again() -> None:
    """Of an image that somebody has opened: Pillow removes the EXIF by which it turned, and not XMP of another spelling."""
    packet, exif = PACKET.format(FORMS["prefix"]).encode(), Image.Exif()
    exif[0x0112] = 6
    image = smooth(40, 60)
    raw = b"Raw profile type xmp\0\nxmp\n%8d\n" % len(packet) + packet.hex().encode() + b"\n"
    for kind, data in (
        ("JPEG", encoded(image, "JPEG", xmp=packet, exif=exif)),
        ("WebP", encoded(image, "WEBP", xmp=packet, exif=exif)),
        ("PNG", with_chunk(encoded(image, exif=exif), b"tEXt", raw, False)),
        ("TIFF", encoded(image, "TIFF", tiffinfo={700: packet, 274: 6})),
        ("TIFF, LZW", encoded(image, "TIFF", compression="tiff_lzw", tiffinfo={700: packet, 274: 6})),
    ):
        opened, turned = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(data))
        ImageOps.exif_transpose(turned, in_place=True)
        copy = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        assert decode(data).size == (40, 60)
        for each in (opened, opened, turned, turned, copy, copy.convert("L")):
            assert plain(each, 3, kind, 10**6).size == (40, 60), kind


@pytest.mark.parametrize(
    "packet",
    [b"tiff:Orientation " * 60_000, b"tiff:Orientation" + b" " * 1_000_000, f'xmlns:t="{SPACE}"'.encode() * 30_000],
)
def test_a_hostile_packet_takes_no_time(packet: bytes) -> None:
    data = encoded(smooth(40, 60), "WEBP", xmp=packet)
    started = time.process_time()
    assert decode(data).size == (60, 40)
    assert time.process_time() - started < 2
