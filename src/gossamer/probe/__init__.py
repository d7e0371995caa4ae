"""Classical classifiers on the features of a network that is not trained further: the quickest baseline."""

from __future__ import annotations

from gossamer.probe.classifiers import CLASSIFIERS
from gossamer.probe.measure import probe
from gossamer.probe.result import ClassifierScore, ProbeResult

__all__ = ["CLASSIFIERS", "ClassifierScore", "ProbeResult", "probe"]
