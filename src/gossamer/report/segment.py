"""The report of a segmenter: classes, confusion, the best and the worst images."""

from __future__ import annotations

import math

from gossamer.charts.confusion import confusion_chart
from gossamer.host.text import counted, grouped_count, percent, points
from gossamer.predictions.masks import palette
from gossamer.report.contents import ReportData
from gossamer.report.scores import confused_pairs
from gossamer.report.segmentation_examples import SegmentationDetails
from gossamer.report.view import (
    SPLITS,
    Highlight,
    KeyFigure,
    TaskView,
    all_missed,
    bdi,
    most_confused,
    never_predicted,
    weakest_first,
)

PAIRS = 20
RARE = 0.01  # fraction of the pixels, below which a class is mentioned
NAMED_COLOURS = 32  # classes that the key to the colours names at most
SECTIONS = (("classes", "Classes"), ("confusion", "Confusion"), ("examples", "Examples"))


def segmentation_view(data: ReportData) -> TaskView:
    """The part of a segmenter."""
    scores = data.evaluation
    details: SegmentationDetails = data.details or SegmentationDetails((), ())
    rows = [{**row, "number": index} for index, row in enumerate(scores.per_class)]
    pixels = max(1, int(scores.confusion.sum()))
    return TaskView(
        template="segment.html",
        sections=SECTIONS,
        subject=counted(len(data.classes), "class"),
        headline=_headline(data),
        highlights=_highlights(data),
        values={
            "rows": [{**row, "fraction": row["support"] / pixels} for row in weakest_first(rows, "iou")],
            "matrix": confusion_chart(scores.confusion, data.classes, "pixels", percent=True),
            "pairs": confused_pairs(scores.confusion, PAIRS),
            "pixels": pixels,
            "worst_images": details.worst,
            "best_images": details.best,
            "label_colours": _label_colours(data, details),
        },
        extent_heads=("images",),
        extents=[(SPLITS.get(name, name), (images,)) for name, images in data.images.items()],
        styles=("tasks.css",),
    )


def _headline(data: ReportData) -> KeyFigure:
    metrics, images = data.evaluation.metrics, len(data.evaluation.names)
    note = f"pixel accuracy {percent(metrics['pixel_accuracy'])}; {grouped_count(images, f'{data.split} image')}"
    return KeyFigure("Mean IoU", percent(metrics["miou"]), note)


def _highlights(data: ReportData) -> list[Highlight]:
    scores = data.evaluation
    rows = [row for row in scores.per_class if row["support"]]
    missed = [(row["class"], row["support"]) for row in rows if row["accuracy"] == 0]
    highlights = all_missed(missed, "Never found", "pixels")
    partly = [row for row in rows if row["iou"] > 0]  # the others are among the failures
    if len(rows) > 1 and partly:
        weakest = min(partly, key=lambda row: row["iou"])
        figures = f"IoU {points(weakest['iou'])}, recall {points(weakest['accuracy'])}"
        highlights.append(Highlight("Weakest class", f"{bdi(weakest['class'])}: {figures}."))
    highlights += never_predicted([row["class"] for row in rows if math.isnan(row["precision"])])
    pixels = sum(row["support"] for row in rows)
    highlights += never_predicted(
        [row["class"] for row in rows if row["support"] < RARE * pixels], "Under 1 % of pixels"
    )
    for pair in confused_pairs(scores.confusion, 1):
        times = grouped_count(pair.count, "pixel")
        highlights.append(most_confused(data, pair.true, pair.predicted, times, pair.fraction))
    return highlights


def _label_colours(data: ReportData, details: SegmentationDetails) -> list[tuple[str, str]]:
    """(class, colour) of the classes in the examples."""
    present = sorted({label for example in (*details.worst, *details.best) for label in example.classes})
    colours = palette(len(data.classes))
    return [(data.classes[i], "#{:02x}{:02x}{:02x}".format(*colours[i].tolist())) for i in present[:NAMED_COLOURS]]
