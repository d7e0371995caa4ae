"""The reliability diagram: accuracy against confidence."""

from __future__ import annotations

from gossamer.charts.svg import WIDTH, Markup, Scale, chart, element, label, tooltip
from gossamer.host import text
from gossamer.report.scores import Bin, Calibration, wilson


def reliability_chart(calibration: Calibration) -> Markup:
    """Accuracy against confidence, bin by bin, with 95 % intervals; below it how the images spread over the bins."""
    across, up = Scale(0, 1, 50, WIDTH - 12), Scale(0, 1, 262, 28)
    parts = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(element("line", x1=50, x2=WIDTH - 12, y1=up(value), y2=up(value), class_="grid"))
        parts.append(label(f"{value * 100:.0f}", 44, up(value) + 4, text_anchor="end"))
        parts.append(label(f"{value * 100:.0f}", across(value), 350, text_anchor="middle"))
    parts.append(element("line", x1=across(0), y1=up(0), x2=across(1), y2=up(1), class_="rule dashed"))
    filled = [bin_ for bin_ in calibration.bins if bin_.count]
    largest = max(bin_.count for bin_ in calibration.bins)
    parts += [_bin(bin_, largest, across, up) for bin_ in filled]
    parts.append(label("accuracy, %", 50, 14, class_="soft"))
    parts.append(label("images", 44, 334, class_="soft", text_anchor="end"))
    parts.append(label("confidence, %", WIDTH - 12, 366, class_="soft", text_anchor="end"))
    bins = "; ".join(
        f"{bin_.low * 100:.0f} to {bin_.high * 100:.0f} %: {text.counted(bin_.count, 'image')}, {bin_.accuracy * 100:.0f} % correct"
        for bin_ in filled
    )
    description = f"Reliability diagram: expected calibration error {calibration.ece:.3f}. {bins}."
    return chart(WIDTH, 370, description, *parts)


def _bin(bin_: Bin, largest: int, across: Scale, up: Scale) -> Markup:
    """The dot and interval of a bin, and the bar of its images."""
    low, high = wilson(bin_.correct, bin_.count)
    x, y = across(bin_.confidence), up(bin_.accuracy)
    height = 48 * bin_.count / largest
    left, width = across(bin_.low) + 0.75, across(bin_.high) - across(bin_.low) - 1.5
    means = f"mean confidence {text.percent(bin_.confidence)}, accuracy {text.percent(bin_.accuracy)}"
    return element(
        "g",
        tooltip(f"{text.counted(bin_.count, 'image')}: {means}"),
        element("line", x1=x, x2=x, y1=up(low), y2=up(high), class_="line a"),
        element("circle", cx=x, cy=y, r=4, class_="fill a"),
        element("rect", x=left, y=334 - height, width=width, height=height, class_="fill c"),
    )
