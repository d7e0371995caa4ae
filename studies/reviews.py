"""What `gossamer review` says of the networks that others were made from, and every warning of a published network.

    python -m studies.reviews [--out studies]

For each seed network every finding, with its figure and source, and whether the network that followed it still has it: the rules
are taken from the papers of the followers, so what they changed has to be named in the seeds and gone afterwards. Then
every warning that a network of the zoo draws at its own arguments, with the figure that is beyond the rule's threshold and why
that threshold is there. Nothing is timed. Writes reviews.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gossamer.adviser.review import Review, review
from gossamer.adviser.rule import Finding
from gossamer.host.storage import write_text
from gossamer.networks.registry import list_models

# seed -> the network that followed it
FOLLOWERS = {
    "alexnet": "googlenet_paper",
    "vgg16": "resnet50",
    "googlenet_paper": "inception_v3",
    "resnet18": "resnet50",
    "squeezenet1_0": "squeezenet1_1",
    "shufflenet_v1_g3_x1_0": "shufflenet_v2_x1_0",
    "mobilenetv1_100": "mobilenetv2_100",
    "mobilenetv2_100": "mobilenetv3_large_100",
    "efficientnet_b0": "mobilenetv3_large_100",
}
MOST = 2  # warnings of a published network


@dataclass(frozen=True)
class SeedFinding:
    """A finding of a seed, and that of the same rule in its follower, None where it is gone."""

    seed: str
    follower: str
    finding: Finding
    after: Finding | None

    @property
    def outcome(self) -> str:
        """What became of it, in words."""
        if self.after is None:
            return "gone"
        if self.after.cost < 0.75 * self.finding.cost:
            return f"less: {self.after.cost_text}"
        return f"stays: {self.after.cost_text}"


def figure_text(finding: Finding) -> str:
    """The figure beside the threshold that it is beyond."""
    return f"{finding.figure:.3g} {finding.figure_is} ({'under' if finding.below else 'above'} {finding.threshold:g})"


def seeds() -> list[SeedFinding]:
    """Every finding of every seed."""
    result = []
    for seed, follower in FOLLOWERS.items():
        after = {one.rule: one for one in review(follower).findings}
        result += [SeedFinding(seed, follower, one, after.get(one.rule)) for one in review(seed).findings]
    return result


def warned(names: Sequence[str]) -> list[Review]:
    """The networks that draw a warning."""
    found = (review(name) for name in names)
    return [one for one in found if one.warnings]


def markdown(findings: Sequence[SeedFinding], networks: Sequence[Review], reviewed: int) -> str:
    """The page."""
    warnings = [one for one in findings if one.finding.severity == "warning"]
    gone = sum(one.after is None for one in warnings)
    lower = sum(one.outcome.startswith("less") for one in warnings)
    over = [one.target for one in networks if len({w.rule for w in one.warnings}) > MOST]
    lines = [
        "# Reviews",
        "",
        "Written by `python -m studies.reviews`. A warning is a finding that concerns so much of the network that it is worth a change; the "
        "rest are notes.",
        "",
        "## Seeds and their followers",
        "",
        f"Of the {len(warnings)} warnings of the seeds {gone} are gone in the follower and {lower} concern less of it.",
        "",
        "| seed | finding | severity | where | figure | of the seed | in the follower | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in findings:
        found = one.finding
        cells = (one.seed, found.rule, found.severity, found.where, figure_text(found), found.cost_text)
        lines.append("| " + " | ".join((*cells, f"{one.follower}: {one.outcome}", found.source)) + " |")
    lines += [
        "",
        "## Warnings of the published networks",
        "",
        f"{len(networks)} of {reviewed} networks draw a warning"
        + (f"; more than {MOST}: {', '.join(over)}." if over else f", none more than {MOST}."),
        "",
        "| network | warning | figure | of the network | why the threshold |",
        "|---|---|---|---|---|",
    ]
    for network in networks:
        for found in network.warnings:
            lines.append(
                f"| {network.target} | {found.rule} | {figure_text(found)} | {found.cost_text} | {found.reason} |"
            )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None, names: Callable[[], Sequence[str]] = list_models) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default=str(Path(__file__).parent), help="folder of reviews.md")
    options = parser.parse_args(arguments)
    reviewed = names()
    page = markdown(seeds(), warned(reviewed), len(reviewed))
    write_text(Path(options.out) / "reviews.md", page)
    print(page)


if __name__ == "__main__":
    main()
