"""From an image file to an upright 8-bit image, or to one clear error.

What every image becomes, decided once:

* The content decides the format, never the file name; only the formats of `FORMATS` are opened.
* The orientation is applied that EXIF gives, or XMP (tiff:Orientation) where EXIF gives none; broken EXIF is ignored.
  Of an animation, the first frame is read.
* Transparency is laid on white, as on a page; CMYK goes through Pillow's plain conversion, and four-channel
  JPEG are read as Adobe's inverted ones, as browsers do. Colour profiles are not applied.
* 16-bit grey is scaled to 8 bits by round(v / 257), 12-bit by round(v * 255 / 4095); Pillow gives 16-bit colour
  as its upper 8 bits. Float, LAB and full-range 32-bit images are refused: their range is not in the file.
* A file that ends early or whose data are damaged is an error, never a half-grey image, whatever
  `PIL.ImageFile.LOAD_TRUNCATED_IMAGES` says.
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import re
import stat
import threading
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from gossamer.errors import ImageError

PIXEL_LIMIT = 100_000_000
"""Pixels above which an image is not decoded, unless set otherwise."""

SIDE_LIMIT = 1_000_000
"""Pixels on one side; Pillow's memory, one row pointer or filter tap per line, stays in the megabytes."""

FILE_LIMIT = 1 << 30
"""Bytes of a file; files are read completely, and an image within the pixel limit is smaller."""

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
)
"""What is looked for in folders (compare in lower case); the content decides what a file is."""

FORMATS: dict[str, Callable[[Any], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
}
"""The only readers that ever see a file. They are called directly, not through Image.open, which would add
warnings and a pixel limit of its own that is global to the process."""

StrPath: TypeAlias = str | os.PathLike[str]
Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels, as in arrays; Pillow's own sizes are the other way round."""
Box: TypeAlias = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels, as in Pillow."""

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    *((b"P%d" % kind, "PPM") for kind in range(1, 7)),
)
_ALLOWED = "a complete " + ", ".join(FORMATS) + " image"
_FIX = "replace or remove it"

# EXIF tag 0x0112 -> the turn that makes the image upright (EXIF 2.32, section 4.6.4)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_REORDERING = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
"""Format characters (Cf) that can reverse the text around them."""
_NO_TEXT = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Categories of characters that are no part of a line of text: control characters, surrogates, ends of lines."""

_ORIENTATION = 0x0112
# where Pillow leaves EXIF and XMP
_EXIF = frozenset({"exif", "Raw profile type exif"})
_METADATA = _EXIF | {"xmp", "XML:com.adobe.xmp", "Raw profile type xmp"}
# the chunks of a PNG that hold EXIF or XMP, by how they begin: any text chunk may have one of the words that Pillow knows
_WORDS = tuple(word.encode() + b"\0" for word in sorted(_METADATA))
_PNG_METADATA: dict[bytes, bytes | tuple[bytes, ...]] = {
    b"eXIf": b"",
    b"iTXt": _WORDS,
    b"tEXt": _WORDS,
    b"zTXt": _WORDS,
}
# XMP, part 2, 8.5: the property Orientation of this namespace, whose prefix a file may choose, as attribute or element
_TIFF_PREFIX = re.compile(rb"""xmlns:([A-Za-z_][\w.-]{0,40})\s{0,9}=\s{0,9}["']http://ns\.adobe\.com/tiff/1\.0/["']""")
_TIFF_ORIENTATION = (
    rb"""(?<![\w.:-])%b:Orientation(?:\s{0,9}=\s{0,9}["']|(?:\s[^<>]{0,200})?>)\s{0,9}([1-8])\s{0,9}["'<]"""
)
_MOST_PREFIXES = 8


@dataclass(frozen=True)
class Description:
    """What a file says about itself; mode is Pillow's word (RGB, L, CMYK, P, I;16, ...); sides of the upright image."""

    format: str
    mode: str
    height: int
    width: int


def decode(
    source: StrPath | bytes,
    *,
    channels: int = 3,
    at_least: Size | None = None,
    pixel_limit: int = PIXEL_LIMIT,
    name: str = "",
) -> Image.Image:
    """The image in a file or in its bytes: upright, mode RGB (channels=3) or L (channels=1).

    at_least: (height, width); a JPEG may be decoded at 1/2, 1/4 or 1/8 size as long as both sides stay at least
    that, which saves most of the time of a large photo. name: how messages call bytes. Raises ImageError.
    """
    needed = None if at_least is None else (lambda size: at_least)
    return decode_to(source, channels, needed, pixel_limit, name)[0]


def decode_stored(data: bytes, *, pixel_limit: int = PIXEL_LIMIT, name: str = "") -> Image.Image:
    """The image in `data` with the values that the file stores: not turned, no palette or depth converted.

    For masks, whose values are numbers rather than colours. `format` says what kind of file it was. Raises ImageError.
    """
    data, name = _contents(data, name)
    with _pillow(name):
        image = _opened(data, name, pixel_limit)
        _load(image)
        return image


def describe(source: StrPath | bytes, *, pixel_limit: int = PIXEL_LIMIT, name: str = "") -> Description:
    """Format, mode and size from the header alone; the pixels may still be damaged. Raises ImageError."""
    data, name = _contents(source, name)
    with _pillow(name):
        image = _opened(data, name, pixel_limit)
        width, height = reversed(image.size) if _turned_when_loaded(image, data) else image.size
        return Description(str(image.format), image.mode, height, width)


def read_file(path: StrPath) -> bytes:
    """The bytes of a regular file; a folder, pipe or device is refused unopened, so that nothing hangs.

    Raises ImageError.
    """
    name = printable(os.fspath(path))
    try:
        status = pathlib.Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device, not a file"
            raise ImageError(f"{name}: is {kind}", _ALLOWED, "give a file")
        if status.st_size > FILE_LIMIT:
            raise ImageError(f"{name}: has {status.st_size} bytes", f"files of at most {FILE_LIMIT} bytes", _FIX)
        # Should a pipe have replaced the file since, O_NONBLOCK lets the open return
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        with open(os.open(path, flags), "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
            return file.read() or b""
    except OSError as error:
        raise ImageError(f"{name}: {error.strerror or error}", "a readable file", "check the path") from error
    except ValueError as error:  # a path with a null character
        raise ImageError(f"{name}: {error}", "the path of a file", "check the path") from error


def is_text(text: str) -> bool:
    """Whether all of `text` can be shown: `str.isprintable()`, and what it refuses though languages need it, the joiners
    and marks of Persian, Malayalam, Thai, Hebrew or emoji, spaces such as the ideographic one, characters for private
    use (of Hong Kong's names, of icons) and those that are younger than Python's tables."""
    return text.isprintable() or all(
        c.isprintable() or (unicodedata.category(c) not in _NO_TEXT and c not in _REORDERING) for c in text
    )


def printable(text: str) -> str:
    """`text` with control characters and undecodable bytes escaped: file names are not to be trusted on a terminal."""
    if is_text(text):
        return text
    return "".join(c if is_text(c) else c.encode("unicode_escape").decode() for c in text)


# --- decoding ------------------------------------------------------------------------------------


def decode_to(
    source: StrPath | bytes, channels: int, needed: Callable[[Size], Size] | None, pixel_limit: int, name: str
) -> tuple[Image.Image, Box]:
    """`decode`, with the smallest useful size as a function of the size of the upright image.

    Also gives the box that the image fills: at 1/8 size, a JPEG of 375 pixels is 46.875 pixels on 47.
    """
    if channels not in (1, 3):
        raise ImageError(f"channels {channels!r}", "1 (grey) or 3 (RGB)", "give one of them")
    data, name = _contents(source, name)
    with _pillow(name):
        image = _opened(data, name, pixel_limit)
        turn, reduced = 1, None
        if needed and isinstance(image, JpegImagePlugin.JpegImageFile):
            turn = _orientation(image)
            least = needed(image.size if turn >= 5 else (image.size[1], image.size[0]))
            reduced = image.draft(None, least if turn >= 5 else (least[1], least[0]))
        missed = _missed_by_pillow(image)
        _load(image)
        decoded = _plain(image, channels, name, missed)
        decoded.info = {}  # else decoding it again would turn it again
        return decoded, _filled(decoded.size, reduced[1][2:], turn) if reduced else (0, 0, *decoded.size)


def _filled(size: tuple[int, int], part: tuple[float, float], turn: int) -> Box:
    """Where `part`, at the upper left before the image was turned, is in `size` after; both (width, height)."""
    part = (part[1], part[0]) if turn >= 5 else part
    left = size[0] - part[0] if turn in (2, 3, 6, 7) else 0
    top = size[1] - part[1] if turn in (3, 4, 7, 8) else 0
    return left, top, left + part[0], top + part[1]


def plain(image: Image.Image, channels: int, name: str, pixel_limit: int) -> Image.Image:
    """What `decode` gives, of an image that somebody has opened with Pillow. Raises ImageError."""
    with _pillow(name):
        check_pixels(*image.size, name, pixel_limit)
        missed = _missed_by_pillow(image)
        if isinstance(image, ImageFile.ImageFile):
            _load(image)
        # Of others, exif_transpose or the loading of a TIFF may have turned the pixels by EXIF, and left XMP that Pillow
        # does not understand as it was
        as_stored = isinstance(image, ImageFile.ImageFile) and _EXIF.isdisjoint(image.info)
        return _plain(image, channels, name, missed, as_stored)


def _contents(source: StrPath | bytes, name: str) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        return source, printable(name) or f"image of {len(source)} bytes"
    return read_file(source), printable(name or os.fspath(source))


def _opened(data: bytes, name: str, pixel_limit: int) -> ImageFile.ImageFile:
    """The image with its header read, within the limits, nothing decoded."""
    if not data:
        raise ImageError(f"{name}: is empty", _ALLOWED, _FIX)
    kind = next((kind for start, kind in _SIGNATURES if data.startswith(start)), "")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "WEBP"
    if not kind:
        raise ImageError(f"{name}: is not an image that can be read; it starts with {data[:12]!r}", _ALLOWED, _FIX)
    if kind == "GIF":  # these two readers make a canvas before they report its size
        check_pixels(_little(data[6:8]), _little(data[8:10]), name, pixel_limit)
    elif kind == "WEBP" and data[12:16] == b"VP8X":
        check_pixels(_little(data[24:27]) + 1, _little(data[27:30]) + 1, name, pixel_limit)
    file = io.BytesIO(data) if kind == "JPEG" else _File(data)  # a JPEG's header is read in many pieces
    image = FORMATS[kind](file)
    image.format = kind
    # The scans start where the header ends. A download that was allotted its length and broke off ends in zeros, which
    # decode to grey without an error; in complete scans the end-of-image marker cannot occur by chance (ITU-T T.81, B.1.1.5)
    if kind == "JPEG" and data.find(b"\xff\xd9", file.tell()) < 0:
        raise OSError("it ends early")
    check_pixels(*image.size, name, pixel_limit)
    return image


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def check_pixels(width: int, height: int, name: str, pixel_limit: int) -> None:
    """Raises ImageError for more pixels, or a longer side, than is decoded."""
    if width * height > pixel_limit or max(width, height) > SIDE_LIMIT:
        raise ImageError(
            f"{name}: is {width} x {height} pixels",
            f"{pixel_limit} pixels in all and {SIDE_LIMIT} a side",
            "make it smaller, or raise pixel_limit if it can be trusted",
        )


def _load(image: ImageFile.ImageFile) -> None:
    """Decode, taking no damaged or missing data for an image."""
    codec = image.tile[0][0] if image.tile else ""
    if codec == "raw" and image.format == "TIFF":
        width, height = image.size
        if sum((box[2] - box[0]) * (box[3] - box[1]) for _, box, *_ in image.tile if box) < width * height:
            raise OSError("strips do not cover the image")
    # libtiff is strict by itself, and so is Pillow about a single tile, unless set otherwise
    if codec != "libtiff" and (len(image.tile) > 1 or ImageFile.LOAD_TRUNCATED_IMAGES):
        image.tile = [_strict(tile) for tile in image.tile]
    if image.format == "JPEG" and isinstance(image.fp, io.BytesIO):
        image.fp = _File(image.fp.getvalue())
    if isinstance(image.fp, _File):
        image.fp.ends = not codec.startswith("ppm")  # text: read to the end, then it may be too little
    image.load()


class _File(io.BytesIO):
    """The bytes of a file; once `ends` is set, reading on at their end is an error.

    Pillow fills up what is missing if LOAD_TRUNCATED_IMAGES is set anywhere in the process.
    """

    ends = False

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if self.ends and not data and size:
            raise OSError("it ends early")
        return data


class _StrictDecoder(ImageFile.PyDecoder):
    """One of Pillow's decoders, whose errors count.

    Pillow ignores them if LOAD_TRUNCATED_IMAGES is set, and all but the last of an image in tiles.
    """

    def init(self, args: tuple[Any, ...]) -> None:
        self.inner = Image._getdecoder(self.mode, args[0], args[1:])

    @property
    def pulls_fd(self) -> bool:
        return self.inner.pulls_fd

    def setfd(self, fd: Any) -> None:
        self.inner.setfd(fd)

    def setimage(self, im: Any, extents: tuple[int, int, int, int] | None = None) -> None:
        self.inner.setimage(im, extents)

    def decode(self, buffer: Any) -> tuple[int, int]:
        used, error = self.inner.decode(buffer)
        if error < 0:
            raise OSError(f"damaged data (code {error})")
        return used, error

    def cleanup(self) -> None:
        self.inner.cleanup()


Image.register_decoder("gossamer_strict", _StrictDecoder)


def _strict(tile: Any) -> Any:
    name, box, offset, args = tile
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    parts = ("gossamer_strict", box, offset, (name, *args))
    return tile._replace(codec_name=parts[0], args=parts[3]) if hasattr(tile, "_replace") else parts


def _orientation(image: Image.Image, as_stored: bool = True) -> int:
    """The orientation in EXIF, or else in XMP, 1..8; 1 where there is none or it makes no sense.

    as_stored: whether the pixels stand as in the file; else XMP counts only as Pillow understands it.
    """
    if _METADATA.isdisjoint(image.info):
        return 1
    try:
        value = Image.Image.getexif(image).get(_ORIENTATION)  # PngImageFile's own would decode the pixels
    except Exception:  # Pillow raises a dozen types on broken EXIF, and an image with broken EXIF is an image
        return 1
    value = _in_xmp(image.info) if value is None and as_stored else value
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _in_xmp(info: Mapping[str | tuple[int, int], Any]) -> int:
    """The orientation in the XMP of an image where it is written otherwise than Pillow looks for it: with another prefix,
    with other quotation marks, in UTF-16, in ImageMagick's text of hexadecimal digits. 1 where there is none."""
    packet = info.get("XML:com.adobe.xmp") or info.get("xmp") or info.get("Raw profile type xmp") or b""
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "replace")
    if not isinstance(packet, bytes):
        return 1
    if b"<" not in packet:
        with contextlib.suppress(ValueError):
            packet = bytes.fromhex(b"".join(packet.split(b"\n")[3:]).decode("ascii", "replace"))
    packet = packet.replace(b"\0", b"")  # UTF-16 and UTF-32 of plain letters
    prefixes = dict.fromkeys([*_TIFF_PREFIX.findall(packet)[:_MOST_PREFIXES], b"tiff"])
    patterns = (_TIFF_ORIENTATION % re.escape(prefix) for prefix in prefixes)
    return next((int(match[1]) for pattern in patterns if (match := re.search(pattern, packet))), 1)


def _missed_by_pillow(image: Image.Image) -> int:
    """The orientation of a TIFF that Pillow does not apply when it loads it: of XMP that it does not understand."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or "xmp" not in image.info:
        return 1
    if _ORIENTATION in image.tag_v2.tagtype:  # which, unlike its value, is still there once Pillow has applied it
        return 1
    try:
        applied = _ORIENTATION in Image.Image.getexif(image)
    except Exception:  # as above
        return 1
    return 1 if applied else _in_xmp(image.info)


def _turned_when_loaded(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Whether the sides of the upright image are those of the header the other way round."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _ORIENTATION not in image.tag_v2 and _orientation(image) >= 5  # Pillow has turned the size by that tag
    if isinstance(image, PngImagePlugin.PngImageFile):
        late = _metadata_behind_pixels(data, bool(image.is_animated))
        if late:
            image = PngImagePlugin.PngImageFile(io.BytesIO(late))
    return _orientation(image) >= 5


def _metadata_behind_pixels(data: bytes, animated: bool) -> bytes:
    """The PNG `data` without its pixels where metadata stand behind them, else b"": Pillow reads those only when it
    decodes (PNG, third edition, 5.6: eXIf and text chunks may stand anywhere)."""
    kept = [data[:8]]
    at, behind, late = 8, False, False
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if kind == b"IDAT":
            behind = True
        elif kind == b"fcTL" and behind and animated:
            break  # the next frame begins, where the decoder stops
        elif kind != b"fdAT":
            kept.append(data[at:end])
        starts = _PNG_METADATA.get(kind)
        late = late or (behind and starts is not None and data.startswith(starts, at + 8))
        at = end
    return b"".join(kept) if late else b""


def _plain(image: Image.Image, channels: int, name: str, missed: int, as_stored: bool = True) -> Image.Image:
    """Upright, 8 bits, opaque, RGB or L. missed: as `_missed_by_pillow` gave it before the image was loaded. as_stored: as
    of `_orientation`."""
    # Pillow turns a TIFF as it loads it
    turn = _UPRIGHT.get(missed if image.format == "TIFF" else _orientation(image, as_stored))
    image = image if turn is None else image.transpose(turn)
    if image.mode == "I" or image.mode.startswith("I;"):
        image = _eight_bits(image, name)
    if image.mode in ("F", "LAB"):
        kind = {"F": "floating-point pixels", "LAB": "LAB colours"}[image.mode]
        raise ImageError(f"{name}: has {kind}", "8- or 16-bit grey, RGB, CMYK or palette", "convert it to RGB")
    if image.has_transparency_data:
        seen = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.new("RGB", seen.size, "white")
        image.paste(seen, mask=seen.getchannel("A"))
    wanted = "L" if channels == 1 else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Grey of 12 or 16 bits (modes I;16..., I) as 8 bits; a transparent value becomes white."""
    values = np.asarray(image)
    top, inverted = 65535, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        top = 4095 if image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0] == 12 else top
        inverted = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0  # white is zero
    if image.mode == "I" and (values.min() < 0 or values.max() > top):
        raise ImageError(
            f"{name}: has grey values from {values.min()} to {values.max()}", "0 to 65535", "convert it to 16 or 8 bits"
        )
    scale = np.minimum((np.arange(65536) * 255 + top // 2) // top, 255).astype(np.uint8)
    grey = (scale[::-1] if inverted else scale)[values]
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return Image.fromarray(grey)


# --- Pillow's exceptions and warnings ------------------------------------------------------------

_inside = threading.local()


class _HereOnly:
    """Matches a warning's module if it comes from Pillow in a thread that is in `_pillow` now.

    `warnings.catch_warnings` swaps global state and is not safe in threads. One filter that
    asks which thread it is in is: warnings of the user's own Pillow calls stay as they were.
    """

    pattern = r"PIL\."  # whoever copies the filters, as scikit-learn does for its workers, takes them for compiled ones

    def match(self, module: str) -> bool:
        return getattr(_inside, "pillow", False) and module.startswith("PIL.")


_FILTER: Any = ("ignore", None, Warning, _HereOnly(), 0)
# it logs one error that it also raises; without a handler, Python prints that
TiffImagePlugin.logger.addFilter(lambda record: not getattr(_inside, "pillow", False))


@contextlib.contextmanager
def _pillow(name: str) -> Iterator[None]:
    """Any exception that Pillow raises becomes an ImageError, its warnings stay unheard."""
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    if not filters or filters[0] is not _FILTER:  # filters were added or reset since
        with contextlib.suppress(ValueError):
            filters.remove(_FILTER)
        filters.insert(0, _FILTER)
    outer, _inside.pillow = getattr(_inside, "pillow", False), True
    try:
        yield
    except ImageError:
        raise
    except (
        Exception
    ) as error:  # OSError, SyntaxError, ValueError, struct.error, KeyError, MemoryError, ...: bytes decide
        reason = printable(" ".join(str(error).split()))[:160] or "no reason given"
        raise ImageError(f"{name}: damaged or cut off ({type(error).__name__}: {reason})", _ALLOWED, _FIX) from error
    finally:
        _inside.pillow = outer
