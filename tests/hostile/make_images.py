"""Writes tests/hostile/images/: small files that break image readers. Run it again to get the same files.

    python tests/hostile/make_images.py

The name says what must happen: bad-*.* are refused with ImageError, good-*.* are decoded. Every good one shows the same
image, or its grey: the left half dark, the right half light, the lower right quarter red (see test_images.py).
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

WIDTH, HEIGHT = 48, 32
FOLDER = Path(__file__).parent / "images"


def reference_image() -> Image.Image:
    """RGB, WIDTH x HEIGHT; no two ways of turning it look alike."""
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, : WIDTH // 2], pixels[:, WIDTH // 2 :] = (40, 80, 120), (220, 200, 180)
    pixels[HEIGHT // 2 :, WIDTH // 2 :] = (180, 60, 40)
    return Image.fromarray(pixels)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG of raw rows (each with its filter byte), which need not fit the header."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def tiff(tags: dict[int, tuple[int, ...]], pixels: bytes, big: bool = False) -> bytes:
    """A TIFF of one uncompressed strip; every tag is written as LONGs."""
    order = ">" if big else "<"
    tags = {273: (0,), 279: (len(pixels),), **tags}
    start = 8 + 2 + 12 * len(tags) + 4
    tail, entries = b"", []
    strip = start + sum(4 * len(v) for v in tags.values() if len(v) > 1)
    for tag in sorted(tags):
        values = (strip,) if tag == 273 and tags[tag] == (0,) else tags[tag]
        block = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) == 1:
            entries.append(struct.pack(f"{order}HHI", tag, 4, 1) + block)
        else:
            entries.append(struct.pack(f"{order}HHII", tag, 4, len(values), start + len(tail)))
            tail += block
    head = (b"MM\0*" if big else b"II*\0") + struct.pack(f"{order}I", 8)
    return head + struct.pack(f"{order}H", len(tags)) + b"".join(entries) + bytes(4) + tail + pixels


def exif(orientation: int) -> Image.Exif:
    result = Image.Exif()
    result[0x0112] = orientation
    return result


def turned(orientation: int) -> Image.Image:
    """The image as a camera held that way stores it: the inverse of what makes it upright."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return reference_image().transpose(back[orientation]) if orientation in back else reference_image()


def good() -> dict[str, bytes]:
    """File name -> bytes that decode to the image, or to its grey."""
    rgb = reference_image()
    files = {f"exif-{i}.jpg": saved(turned(i), "JPEG", quality=95, subsampling=0, exif=exif(i)) for i in range(1, 9)}
    files |= {f"exif-{i}.{kind}": saved(turned(i), kind, exif=exif(i)) for i in (3, 6) for kind in ("png", "tiff")}
    files["exif-6.webp"] = saved(turned(6), "WEBP", lossless=True, exif=exif(6))
    files["exif-broken.jpg"] = saved(
        rgb, "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40
    )
    files["exif-out-of-range.jpg"] = saved(rgb, "JPEG", quality=95, subsampling=0, exif=exif(77))
    files["really-png.jpg"] = saved(rgb, "PNG")
    files["really-jpeg.png"] = saved(rgb, "JPEG", quality=95, subsampling=0)
    files["no-suffix"] = saved(rgb, "BMP")
    files["plain.ppm"] = b"P3 48 32 255\n" + b" ".join(b"%d" % v for v in np.asarray(rgb).ravel())
    files["progressive.jpg"] = saved(rgb, "JPEG", quality=95, subsampling=0, progressive=True)
    files["cmyk.jpg"] = saved(rgb.convert("CMYK"), "JPEG", quality=95)  # Pillow writes these inverted, as Adobe does
    files["cmyk.tiff"] = saved(rgb.convert("CMYK"), "TIFF")
    files["ycck.jpg"] = ycck()
    files["palette.png"] = saved(rgb.quantize(16), "PNG")
    files["palette.gif"] = saved(rgb.quantize(16), "GIF")
    files["palette.bmp"] = saved(rgb.quantize(16), "BMP")
    frames = [Image.new("RGB", rgb.size, colour) for colour in ("red", "blue")]
    files["animated.gif"] = saved(rgb.quantize(16), "GIF", save_all=True, append_images=frames)
    files["animated.png"] = saved(rgb, "PNG", save_all=True, append_images=frames)
    files["animated.webp"] = saved(rgb, "WEBP", save_all=True, append_images=frames, lossless=True)
    files["lzw.tiff"] = saved(rgb, "TIFF", compression="tiff_lzw")
    files["jpeg-inside.tiff"] = saved(rgb, "TIFF", compression="jpeg", quality=95)
    text = PngImagePlugin.PngInfo()
    text.add_text("orientation", "6")
    files["text-chunk.png"] = saved(rgb, "PNG", pnginfo=text)
    apng = saved(rgb, "PNG")
    files["apng-no-frames.png"] = apng[:33] + chunk(b"acTL", bytes(8)) + apng[33:]
    grey16 = np.asarray(rgb.convert("L")).astype(np.uint16) * 257
    files["grey16.png"] = saved(Image.fromarray(grey16), "PNG")
    files["grey16.tiff"] = saved(Image.fromarray(grey16), "TIFF")
    size = {256: (WIDTH,), 257: (HEIGHT,), 259: (1,), 262: (1,), 277: (1,), 278: (HEIGHT,)}
    files["grey16-big-endian.tiff"] = tiff({**size, 258: (16,)}, grey16.astype(">u2").tobytes(), big=True)
    files["grey16-white-is-zero.tiff"] = tiff({**size, 258: (16,), 262: (0,)}, (65535 - grey16).astype("<u2").tobytes())
    files["grey16.pgm"] = b"P5 48 32 65535\n" + grey16.astype(">u2").tobytes()
    twelve = np.round(np.asarray(rgb.convert("L")).astype(float) * 4095 / 255).astype(np.uint16).reshape(-1, 2)
    packed = np.stack([twelve[:, 0] >> 4, (twelve[:, 0] & 15) << 4 | twelve[:, 1] >> 8, twelve[:, 1] & 255], 1)
    files["grey12.tiff"] = tiff({**size, 258: (12,)}, packed.astype(np.uint8).tobytes())
    return files


def ycck() -> bytes:
    """A CMYK JPEG stored as YCCK, as Photoshop does: Adobe's transform flag set, CMY through the YCbCr matrix.

    Encoded as an inverted CMYK JPEG whose first three planes were converted, then relabelled.
    """
    cmyk = np.asarray(reference_image().convert("CMYK"))
    ycc = Image.fromarray(np.ascontiguousarray(cmyk[..., :3])).convert("YCbCr")
    # Stored values are 255 - CMYK; libjpeg gives back CMY = 255 - RGB(YCC), so store YCC of the inks' complement
    planes = np.dstack([np.asarray(ycc), 255 - cmyk[..., 3]])
    inverted = 255 - planes  # Pillow inverts once more when it writes
    data = saved(Image.frombytes("CMYK", (WIDTH, HEIGHT), inverted.tobytes()), "JPEG", quality=95)
    at = data.index(b"Adobe")
    return data[: at + 11] + b"\x02" + data[at + 12 :]


def bad() -> dict[str, bytes]:
    """File name -> bytes that must be refused."""
    rgb = reference_image()
    jpeg, whole = saved(rgb, "JPEG", quality=95), saved(rgb, "PNG")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    photo = saved(noise, "JPEG", quality=90)
    size = {256: (WIDTH,), 257: (HEIGHT,), 258: (8,), 259: (1,), 262: (1,), 277: (1,), 278: (HEIGHT,)}
    gif = saved(rgb.quantize(16), "GIF")
    return {
        "empty.jpg": b"",
        "text.jpg": b"This is not a picture.\n",
        "page.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n",
        "header-only.jpg": jpeg[:20],
        "half.jpg": photo[: len(photo) // 2],
        "half-then-zeros.jpg": photo[: len(photo) // 2] + bytes(len(photo) - len(photo) // 2),
        "half.png": saved(noise, "PNG")[:6000],
        "damaged-data.png": whole[:60] + b"\xff\x00\xff" + whole[63:],
        "no-end.png": whole[:-12],
        "half.gif": gif[: gif.index(b",") + 20],
        "half.webp": saved(noise, "WEBP")[:900],
        "half.bmp": saved(rgb, "BMP")[:2000],
        "half.tiff": saved(rgb, "TIFF")[:2000],
        "half.ppm": b"P6 48 32 255\n" + bytes(1000),
        "half-plain.ppm": b"P3 48 32 255\n" + b"1 2 3 " * 100,
        "wrong-words.ppm": b"P3 4 4 255\n" + b"red " * 48,
        "bomb.png": png(60000, 60000, 8, 2, bytes(1000)),
        "bomb.gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + gif[13:],
        "bomb.bmp": b"BM" + struct.pack("<IHHI IiiHHIIiiII", 54, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0),
        "bomb.tiff": tiff({**size, 256: (100000,), 257: (100000,)}, bytes(100)),
        "bomb.ppm": b"P6 100000 100000 255\n",
        "bomb.webp": webp_canvas(16383, 16383),
        "long-side.png": png(1, 2_000_000, 1, 0, bytes(4_000_000)),
        "zero-width.png": png(0, 16, 8, 2, b""),
        "negative-size.png": png(0xFFFFFFFF, 16, 8, 2, b""),
        "bad-crc.png": whole[:29] + b"\0\0\0\0" + whole[33:],
        "strips-missing.tiff": tiff({**size, 278: (1,)}, bytes(WIDTH)),
        "strip-outside.tiff": tiff({**size, 273: (1 << 31,)}, b""),
        "samples-bomb.tiff": tiff({**size, 277: (4_000_000,)}, bytes(WIDTH * HEIGHT)),
        "no-size.tiff": tiff({258: (8,), 262: (1,)}, bytes(16)),
        "loop.tiff": b"II*\0\x08\0\0\0\x00\x00\x08\0\0\0",
        "float.tiff": saved(Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)), "TIFF"),
        "lab.tiff": saved(Image.new("LAB", (16, 16), (128, 128, 128)), "TIFF"),
        "grey32.tiff": saved(Image.fromarray(np.arange(256, dtype=np.int32).reshape(16, 16) * 100000), "TIFF"),
        "photoshop.psd": b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 16, 16, 8, 3) + bytes(64),
        "postscript.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n",
        "icon.ico": saved(rgb, "ICO", sizes=[(16, 16)]),
        "float.pfm": b"Pf\n4 4\n-1.0\n" + bytes(64),
        "names-only.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16"/>\n',
    }


def webp_canvas(width: int, height: int) -> bytes:
    """An animated WebP with a huge canvas and one frame of 8 x 8."""
    frame = saved(Image.new("RGB", (8, 8)), "WEBP", lossless=True)[12:]
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    place = bytes(6) + (7).to_bytes(3, "little") * 2 + (10).to_bytes(3, "little") + b"\0"
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += b"ANMF" + struct.pack("<I", len(place) + len(frame)) + place + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, files in (("good", good()), ("bad", bad())):
        for name, data in files.items():
            (folder / f"{prefix}-{name}").write_bytes(data)


if __name__ == "__main__":
    write(FOLDER)
