"""Classical classifiers on the features of a network that is not trained further: the quickest honest baseline."""

from __future__ import annotations

from gossamer.probe.classifiers import CLASSIFIERS
from gossamer.probe.measure import probe
from gossamer.probe.result import Probe, Row

__all__ = ["CLASSIFIERS", "Probe", "Row", "probe"]
