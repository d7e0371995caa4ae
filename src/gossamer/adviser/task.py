"""The task: what a network sees and predicts beside the objects and the images of its data."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gossamer.adviser.data_facts import MATCHED, DataFacts
from gossamer.adviser.rule import Candidate, Change
from gossamer.adviser.subject import LayerFacts, Subject
from gossamer.microscope.receptive import receptive_fields

LARGE, SMALL = 90, 10  # percentiles of the objects' sides


def _facts(subject: Subject) -> DataFacts:
    assert subject.data is not None, "a rule that needs data"
    return subject.data


def _last(subject: Subject) -> LayerFacts:
    return [each for each in subject.layers if each.kind in ("conv", "linear")][-1]


def seen(subject: Subject) -> float:
    """Pixels of the input on a side that the widest output sees, the smaller of rows and columns; infinity for all."""
    fields = receptive_fields(subject.graph)
    widest = 0.0
    for index in subject.graph.outputs:
        field = fields.get(index)
        if field is None:
            continue
        sides = [math.inf if axis is None else axis[0] for axis in (field.rows, field.columns)]
        widest = max(widest, min(sides))
    return widest or math.inf


def receptive_field(subject: Subject) -> Iterator[Candidate]:
    """The widest receptive field of the outputs beside the larger sides of the large objects."""
    facts = _facts(subject)
    if not len(facts.boxes):
        return
    longest = facts.boxes.max(axis=1)
    side, field = float(np.percentile(longest, LARGE)), seen(subject)
    detail = f"the outputs see {field:g} pixels of the input, and one object of ten is {side:.0f} pixels or more long"
    yield Candidate((_last(subject).index,), field / max(1.0, side), float((longest > field).mean()), detail)


def see_more(subject: Subject) -> Change:
    """More that every position sees."""
    return Change("a deeper backbone, dilated late stages, a pyramid of features, or a smaller input")


def output_stride(subject: Subject) -> Iterator[Candidate]:
    """Positions of the finest map that predicts, across the smaller sides of the small objects."""
    facts = _facts(subject)
    if not len(facts.boxes) or not facts.steps:
        return
    shortest, step = facts.boxes.min(axis=1), min(facts.steps)
    side = float(np.percentile(shortest, SMALL))
    detail = f"a position every {step:g} pixels of the input, and one object of ten is {side:.1f} pixels or less across"
    yield Candidate((_last(subject).index,), side / step, float((shortest < step).mean()), detail)


def finer(subject: Subject) -> Change:
    """A finer map."""
    return Change(
        f"predict on one finer map of the backbone more (--levels), or a larger input ({_larger(subject, 2)})"
    )


def unmatched_anchors(subject: Subject) -> Iterator[Candidate]:
    """The anchors that no training box overlaps by half, wherever it lies, as a fraction of all places."""
    facts = _facts(subject)
    if not len(facts.boxes) or not len(facts.anchors):
        return
    shared = np.minimum(facts.boxes[:, None, 0], facts.anchors[:, 0]) * np.minimum(
        facts.boxes[:, None, 1], facts.anchors[:, 1]
    )
    union = facts.boxes.prod(axis=1)[:, None] + facts.anchors[:, :2].prod(axis=1) - shared
    alone = (shared / np.maximum(union, 1e-9)).max(axis=0) < MATCHED
    places = facts.anchors[:, 2]
    part = float(places[alone].sum() / places.sum())
    sides = np.sqrt(facts.anchors[alone, :2].prod(axis=1)) if alone.any() else np.zeros(1)
    detail = (
        f"{int(alone.sum())} of {len(alone)} shapes, {sides.min():.0f} to {sides.max():.0f} pixels of the input wide"
    )
    yield Candidate((_last(subject).index,), part, part, detail)


def fit_anchors(subject: Subject) -> Change:
    """Anchors from the boxes."""
    return Change("anchors from the boxes of the training images (--anchors fitted)")


def upsampled(subject: Subject) -> Iterator[Candidate]:
    """How many pixels of the input's side stand for one of the image's, the median over training images."""
    facts = _facts(subject)
    if not len(facts.images):
        return
    scales = facts.scales().max(axis=1)
    middle = float(np.median(scales))
    height, width = np.median(facts.images, axis=0)
    detail = f"the median image has {height:.0f} x {width:.0f} pixels and is enlarged {middle:.2g} times"
    yield Candidate((0,), middle, float((scales > 1).mean()), detail)


def smaller_input(subject: Subject) -> Change:
    """An input of the images' own size."""
    facts = _facts(subject)
    scale = max(1.0, float(np.median(facts.scales().max(axis=1))))
    height, width = (max(32, 32 * round(side / scale / 32)) for side in facts.size)
    return Change(f"an input of about {height}x{width} (--input {height}x{width}), as large as what the images hold")


def squashed(subject: Subject) -> Iterator[Candidate]:
    """How much wider or higher objects become than they are, the median over training images."""
    facts = _facts(subject)
    if not len(facts.images):
        return
    scales = facts.scales()
    ratios = scales.max(axis=1) / np.maximum(1e-9, scales.min(axis=1))
    middle = float(np.median(ratios))
    yield Candidate(
        (0,), middle, float((ratios > 1.1).mean()), f"the median image is {middle:.2g} times out of proportion"
    )


def keep_proportions(subject: Subject) -> Change:
    """Sides in proportion."""
    facts = _facts(subject)
    height, width = np.median(facts.images, axis=0)
    area, ratio = facts.size[0] * facts.size[1], width / height
    rows = max(32, 32 * round(math.sqrt(area / ratio) / 32))
    columns = max(32, 32 * round(math.sqrt(area * ratio) / 32))
    return Change(f"--resize pad, or an input of the images' proportions (--input {rows}x{columns})")


def _larger(subject: Subject, times: int) -> str:
    height, width = _facts(subject).size
    return f"--input {times * height}x{times * width}"
