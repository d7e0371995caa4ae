"""Text on drawn predictions: labels of boxes, lines in a corner, and the legend of a mask; sizes follow the image's.

The font is Pillow's own, which has Latin letters; a font of the system is used for names that need one, where there is any.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

SMALL, READABLE = 128, 320  # pixels: an image whose longer side is below SMALL is enlarged to READABLE or more
LEAST = 10  # pixels: height of the smallest text
MOST_LINES = 12  # of a caption or legend; the rest are counted
LONGEST = 60  # characters of a line
# fonts that hold most writing systems, by the names under which systems have them
WIDE_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "PingFang.ttc",
    "wqy-microhei.ttc",
    "Arial Unicode.ttf",
    "DejaVuSans.ttf",
)
GROUND = (20, 20, 20, 190)  # behind captions and legends: dark, a quarter transparent


def enlargement(size: tuple[int, int]) -> int:
    """The whole factor by which an image of (width, height) pixels is enlarged before text is drawn on it."""
    longer = max(size)
    return 1 if longer >= SMALL else -(-READABLE // longer)


def enlarged(image: Image.Image) -> Image.Image:
    """The image in RGB, each pixel of a small one as a square of `enlargement` pixels, so that text has room."""
    factor, page = enlargement(image.size), image.convert("RGB")
    return page if factor == 1 else page.resize((page.width * factor, page.height * factor), Image.Resampling.NEAREST)


def text_height(size: tuple[int, int]) -> int:
    """Font size in pixels for an image of (width, height): 3 % of their mean, and at most a tenth of the shorter side."""
    return max(LEAST, min(round(0.015 * sum(size)), min(size) // 10))


def line_width(size: tuple[int, int]) -> int:
    """Width in pixels of the lines of boxes in an image of (width, height)."""
    return max(2, round(max(size) / 320))


def font_for(text: str, height: int) -> Any:
    """A font of `height` pixels that has the letters of `text`, where one is installed."""
    return _wide_font(height) if any(ord(letter) > 0x24F for letter in text) else _plain_font(height)


def draw_label(page: Image.Image, corner: tuple[float, float], text: str, colour: Colour) -> None:
    """Text on a ground of `colour` above the point `corner`, the upper left of a box; below it where there is no room.

    Nothing leaves the page: a label moves to the left at the right edge, and a text wider than the page is cut.
    """
    draw, pad = ImageDraw.Draw(page), line_width(page.size)
    font = font_for(text, text_height(page.size))
    text = _fitting(draw, text, font, page.width - 2 * pad)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = max(0, min(round(corner[0]), page.width - width))
    y = round(corner[1]) - height if corner[1] >= height else round(corner[1])
    y = max(0, min(y, page.height - height))
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    draw.text((x + pad - left, y + pad - top), text, fill="black" if is_light(colour) else "white", font=font)


def draw_lines(
    page: Image.Image, lines: Sequence[str], swatches: Sequence[Colour] = (), *, below: bool = False
) -> None:
    """Lines on a dark ground in the upper left corner, or the lower left one, each after its swatch where there are any.

    At most MOST_LINES of them, fewer in a low image; the last line then counts the rest.
    """
    if not lines:
        return
    draw, height = ImageDraw.Draw(page), text_height(page.size)
    pad, step = max(2, height // 3), round(height * 1.4)
    room = max(1, min(MOST_LINES, (page.height - 2 * pad) // step))
    shown = list(lines) if len(lines) <= room else [*lines[: room - 1], f"+ {len(lines) - room + 1} more"]
    indent = height + pad if swatches else 0
    fonts = [font_for(line, height) for line in shown]
    shown = [_fitting(draw, line, font, page.width - 2 * pad - indent) for line, font in zip(shown, fonts)]
    width = min(
        page.width, 2 * pad + indent + max(round(draw.textlength(text, font=f)) for text, f in zip(shown, fonts))
    )
    total = min(page.height, 2 * pad + step * len(shown))
    top = page.height - total if below else 0
    ground = Image.new("RGBA", (width, total), GROUND)
    page.paste(ground, (0, top), ground)
    for row, (line, font) in enumerate(zip(shown, fonts)):
        y = top + pad + row * step
        if row < min(len(swatches), len(lines) if len(lines) <= room else room - 1):
            draw.rectangle((pad, y, pad + height - 1, y + height - 1), fill=swatches[row], outline="white")
        draw.text((pad + indent, y + height // 2), line, fill="white", font=font, anchor="lm")


def is_light(colour: Sequence[int]) -> bool:
    """Whether black text is easier to read on the colour than white (luma of ITU-R BT.601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 128


def _fitting(draw: ImageDraw.ImageDraw, text: str, font: Any, width: int) -> str:
    """`text` on one line, cut with an ellipsis where it is wider than `width` pixels."""
    text = " ".join(text.split())
    if len(text) <= LONGEST and draw.textlength(text, font=font) <= width:
        return text
    text = text[: LONGEST - 3]
    while len(text) > 1 and draw.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text + "..."


@lru_cache(maxsize=64)
def _plain_font(height: int) -> Any:
    return ImageFont.load_default(height)


@lru_cache(maxsize=64)
def _wide_font(height: int) -> Any:
    for name in WIDE_FONTS:
        try:
            return ImageFont.truetype(name, height)
        except OSError:
            continue
    return _plain_font(height)
