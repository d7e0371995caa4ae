"""A network beside the rules: what is named, how much it costs, what to change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from gossamer.adviser.data_facts import DataFacts
from gossamer.adviser.load import subject_of
from gossamer.adviser.rule import Finding
from gossamer.adviser.subject import Subject
from gossamer.adviser.table import RULES
from gossamer.adviser.text import review_text
from gossamer.analysis.cost import Cost
from gossamer.host.progress import SILENT, Progress
from gossamer.host.shown import Report


@dataclass(frozen=True, repr=False)
class Review(Report):
    """What the rules found in a network, the most important first.

    rules: names of those that were applied, those on data where data were given. not_applied: of the others, with the
    reason. subject: the network as the rules read it.
    """

    target: str
    findings: tuple[Finding, ...]
    rules: tuple[str, ...]
    not_applied: dict[str, str]
    cost: Cost
    subject: Subject = field(repr=False)
    lanes: int
    measured: bool = False

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that cost much."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    @property
    def notes(self) -> tuple[Finding, ...]:
        """The others."""
        return tuple(finding for finding in self.findings if finding.severity == "note")

    def text(self) -> str:
        """The findings for people."""
        return review_text(self)

    def to_json(self) -> dict[str, Any]:
        """Plain values: costs as fractions, times in milliseconds, sizes in bytes."""
        return {
            "target": self.target,
            "kind": self.subject.kind,
            "input_shape": list(self.cost.input_shape),
            "params": self.cost.params,
            "macs": self.cost.macs,
            "peak_bytes": self.cost.peak_bytes,
            "unknown": self.cost.unknown,
            "lanes": self.lanes,
            "measured": self.measured,
            "warnings": len(self.warnings),
            "notes": len(self.notes),
            "findings": [finding.to_json() for finding in self.findings],
            "rules": list(self.rules),
            "not_applied": self.not_applied,
        }


def review(
    target: str | Path | nn.Module,
    input_shape: Sequence[int] | None = None,
    *,
    measure: bool = False,
    threads: int = 1,
    data: str | Path | DataFacts | None = None,
    progress: Progress = SILENT,
    **arguments: Any,
) -> Review:
    """Compare a network with the rules of `gossamer.adviser.table`: by name, an ONNX file, a run folder or a module.

    input_shape: (C, H, W), by default the network's own. arguments: for a network by name, as for `create_model`. measure: where
    a change is an argument of the network, build both with fresh weights and time them in turn, in processes of their
    own, with the native engine, or ONNX Runtime where that is missing. threads: of the engine. data: of a run, compare the
    network with its training images as well: where they lie, "" for where they lay when it was trained, or what is known of them.
    Raises UnknownNameError, InputError, SettingsError, RunError, MissingPackageError.
    """
    subject = subject_of(target, input_shape, arguments, data)
    table = [rule for rule in RULES if subject.data is not None or not rule.needs_data]
    applied = [rule for rule in table if subject.trained or not rule.needs_weights]
    findings = ranked(finding for rule in applied if (finding := rule.review(subject)) is not None)
    if measure:
        from gossamer.adviser.measure import with_gains

        findings = ranked(with_gains(subject, findings, threads, progress))
    return Review(
        subject.name,
        findings,
        tuple(rule.name for rule in applied),
        {rule.name: "needs trained weights: a run or an ONNX file" for rule in table if rule not in applied},
        subject.cost,
        subject,
        subject.lanes,
        measure,
    )


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Warnings first, then by cost; behind all others those whose change is slower here."""
    return tuple(
        sorted(
            findings,
            key=lambda finding: (
                finding.gain is not None and finding.gain.slower,
                finding.severity != "warning",
                -finding.cost,
            ),
        )
    )
