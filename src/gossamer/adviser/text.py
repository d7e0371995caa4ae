"""A review as lines of text."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from gossamer.adviser.rule import Finding, Gain
from gossamer.analysis.names import operator_name
from gossamer.host.text import compact_count, counted, decimal_bytes, dimensions, significant, thread_count

if TYPE_CHECKING:
    from gossamer.adviser.review import Review

WIDTH = 110


def review_text(review: Review) -> str:
    """A paragraph for each finding, after a line about the network."""
    warnings, notes = len(review.warnings), len(review.notes)
    lines = [
        f"{review.target} at {dimensions(review.cost.input_shape)}: {compact_count(review.cost.params)} parameters, "
        f"{compact_count(review.cost.macs)} multiply-adds",
        f"{counted(warnings, 'warning')} and {counted(notes, 'note')} of {len(review.rules)} rules"
        + (f"; {len(review.not_applied)} more need trained weights" if review.not_applied else ""),
    ]
    if review.cost.unknown:
        names = ", ".join(f"{operator_name(name)} ({count})" for name, count in review.cost.unknown.items())
        lines.append(f"not counted: {names}; no formula for these, so fractions are of the rest")
    for finding in review.findings:
        lines += ["", f"{finding.severity}: {finding.rule}, {finding.where}, {finding.cost_text}"]
        for line in paragraphs(finding):
            lines += textwrap.wrap(line, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    if review.measured and not any(finding.gain or finding.not_measured for finding in review.findings):
        lines += ["", "nothing measured: no change above is an argument of the network"]
    return "\n".join(lines)


def paragraphs(finding: Finding) -> list[str]:
    """What a finding says, line by line: what is wrong, the figure beside its threshold, change, gain, source."""
    lines = [finding.text, f"figure: {figure_text(finding)}", f"change, for {finding.claims}: {finding.change.text}"]
    if finding.gain:
        lines.append(f"measured here: {gain_text(finding.gain)}")
    elif finding.not_measured:
        lines.append(f"not measured: {finding.not_measured}")
    return [*lines, f"source: {finding.source}"]


def figure_text(finding: Finding) -> str:
    """The worst figure beside the threshold, and why that is where it is."""
    limit = f"{'from' if finding.below else 'up to'} {significant(finding.threshold)} is left alone"
    return f"{significant(finding.figure)} {finding.figure_is}; {limit}: {finding.reason}"


def gain_text(gain: Gain) -> str:
    """Milliseconds with their spread, bytes, multiply-adds and memory, before and after."""
    (before, after), (first, second) = gain.ms, gain.spread
    how = "slower" if gain.slower else "faster"
    ratio = after / before if gain.slower else before / after
    doubt = "" if gain.clear else ", within the spread"
    spread = f"{significant(first[0])}-{significant(first[1])} to {significant(second[0])}-{significant(second[1])}"
    return (
        f"{significant(before)} to {significant(after)} ms, {ratio:.2f} times {how}{doubt} (p10-p90 {spread}), "
        f"{decimal_bytes(gain.bytes[0])} to {decimal_bytes(gain.bytes[1])}, "
        f"{compact_count(gain.macs[0])} to {compact_count(gain.macs[1])} multiply-adds, activations of "
        f"{decimal_bytes(gain.memory_bytes[0])} to {decimal_bytes(gain.memory_bytes[1])} "
        f"({gain.runtime}, {thread_count(gain.threads)}, fresh weights)"
    )
