"""Why a run failed, or what holds it back: causes ranked, with their figures and the next command.

`causes.py` is the table of causes, `evidence.py` what they read. Neither torch nor the network is needed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gossamer.diagnosis.causes import CAUSES, ORDER, Finding
from gossamer.diagnosis.evidence import gather
from gossamer.host.shown import Report
from gossamer.run import Run


@dataclass(frozen=True, repr=False)
class Diagnosis(Report):
    """What was found in a run, the most certain first. notes: what was not looked at, and what else is to be known."""

    run: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    score: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "run": self.run,
            "findings": [asdict(finding) for finding in self.findings],
            "notes": list(self.notes),
            "score": dict(self.score),
        }

    def text(self) -> str:
        """A paragraph for each finding, then the notes."""
        lines = []
        for number, finding in enumerate(self.findings, 1):
            lines += [
                f"{number}. {finding.cause} ({finding.certainty})",
                f"   {finding.what}",
                f"   next: {finding.command}",
                "",
            ]
        if not self.findings:
            lines += [f"{self.run}: none of {len(CAUSES)} known causes of failure is found", ""]
        return "\n".join([*lines, *self.notes]).rstrip()


def diagnose(run: str | os.PathLike[str], *, with_data: bool = True) -> Diagnosis:
    """What made the training of a run folder fail, or holds it back.

    with_data: also look at the images, where they are still there: a few are decoded, some hundred compared by their
    bytes. Nothing is written. Raises RunError, SettingsError where `run` is no run folder or is damaged.
    """
    evidence = gather(Run.open(os.fspath(run)), with_data)
    found = [finding for cause in CAUSES if (finding := cause.check(evidence)) is not None]
    found.sort(key=lambda finding: ORDER.index(finding.certainty))  # stable: the table's order among equals
    notes = []
    if evidence.training_now:
        notes.append("it is training now: the figures are those of its last evaluation")
    if evidence.missing:
        notes.append(f"the images were not looked at: {evidence.missing}")
    elif evidence.data is not None:
        notes += [note for note in evidence.data.notes if note.startswith("since ")]
    if problem := evidence.run.metrics_problem():
        notes.append(problem)
    elif not evidence.rows:
        epoch = evidence.state.get("epoch")
        lost = evidence.state.get("finished") or (isinstance(epoch, int) and epoch > 0)
        notes.append(
            "its metrics are gone, so there are no scores"
            if lost
            else "it has not been evaluated yet, so there are no scores"
        )
    score = {
        name: value for name, value in (evidence.rows[-1] if evidence.rows else {}).items() if name.startswith("val_")
    }
    return Diagnosis(os.fspath(run), tuple(found), tuple(notes), score)
