"""Mutation testing: random changes of a room's source, each of which some test should notice.

    python -m tests.mutation --rooms all --count 300 --seed 1   rooms: names below src/gossamer with commas, or all
    python -m tests.mutation --again                            the survivors of earlier runs once more
    python -m tests.mutation --record [FILE...]                 which tests execute which lines, anew or of some test files
    python -m tests.mutation --full --record FILE...            those of the full tier among them

The first run records; everything runs in copies of the checkout, and what is kept lies in .mutation/. A mutant is killed if
one of the tests that execute its line fails, or together they take four times as long as they should; what survives the
quickest of them meets ten times as many.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.mutation.choose import WIDER, Chooser
from tests.mutation.mutants import Mutant, mutants
from tests.mutation.record import PACKAGE, STORE, load_record, record
from tests.mutation.run import Runner

RESULTS = STORE / "results.json"


def room_of(file: str) -> str:
    """The folder or file below src/gossamer."""
    return file.removeprefix(f"{PACKAGE}/").split("/")[0].removesuffix(".py")


def draw(sources: dict[str, str], rooms: Sequence[str], count: int, seed: int, of_all: bool = False) -> list[Mutant]:
    """`count` mutants, spread over the rooms by their lines: a random line of code each, and a random change of it.

    of_all: spread over all rooms, but only those of `rooms` are returned.
    """
    by_room: dict[str, dict[tuple[str, int], list[Mutant]]] = defaultdict(lambda: defaultdict(list))
    size: dict[str, int] = defaultdict(int)
    for file, source in sources.items():
        room = room_of(file)
        if of_all or room in rooms or rooms == ["all"]:
            size[room] += source.count("\n")
            for mutant in mutants(file, source):
                by_room[room][file, mutant.line].append(mutant)
    drawn = []
    for room, number in _shared(count, {room: size[room] for room in by_room}).items():
        chance = random.Random(f"{seed} {room}")
        lines = chance.sample(sorted(by_room[room]), min(number, len(by_room[room])))
        if room not in rooms and rooms != ["all"]:
            continue
        drawn += [chance.choice(by_room[room][line]) for line in lines]
    return drawn


def _shared(count: int, sizes: dict[str, int]) -> dict[str, int]:
    """`count` shared in proportion to the sizes, by largest remainders."""
    exact = {name: count * size / sum(sizes.values()) for name, size in sizes.items()}
    counts = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: (counts[name] - exact[name], name))[: count - sum(counts.values())]:
        counts[name] += 1
    return dict(sorted(counts.items()))


def judge(drawn: Sequence[Mutant], tests: Chooser, limit: float, keep: Callable[[dict[str, str]], None]) -> None:
    """The verdict on each mutant that was reached within `limit` seconds, by its name; kept as they come."""
    verdicts: dict[str, str] = {}
    end = time.monotonic() + limit
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        runner, bad, left = Runner(Path(folder)), set[str](), list(drawn)
        while left and time.monotonic() < end:
            for index, mutant in enumerate(left, 1):
                if time.monotonic() < end:
                    verdicts[mutant.name] = _verdict(runner, mutant, tests, bad)
                    keep(verdicts)
                    sys.stderr.write(f"{index}/{len(left)} {describe(mutant)}: {verdicts[mutant.name]}\n")
            # a test that fails without any mutant has shown nothing
            killers = {verdict.removeprefix("killed by ") for verdict in verdicts.values()} & tests.seconds.keys() - bad
            failing = runner.failing(sorted(killers), 600, stop=False) if killers else []
            bad |= killers if failing is None else set(failing)
            left = [mutant for mutant in drawn if verdicts.get(mutant.name, "").removeprefix("killed by ") in bad]
            for mutant in left:
                del verdicts[mutant.name]
            keep(verdicts)


def _verdict(runner: Runner, mutant: Mutant, tests: Chooser, bad: set[str]) -> str:
    """By the quickest tests, and where it survives them by more."""
    few = [name for name in tests.of(mutant) if name not in bad]
    verdict = runner.judge(mutant, few, sum(tests.seconds[name] for name in few))
    if verdict != "survived":
        return verdict
    more = [name for name in tests.of(mutant, WIDER) if name not in bad and name not in few]
    return runner.judge(mutant, more, sum(tests.seconds[name] for name in more)) if more else verdict


def describe(mutant: Mutant) -> str:
    """A mutant on one line."""
    before, after = (" ".join(text.split())[:120] for text in (mutant.before, mutant.after))
    return f"{mutant.file}:{mutant.line} {mutant.kind}: {before} -> {after}"


def table(results: list[dict[str, Any]]) -> str:
    """The score of each room, and the survivors."""
    rows: dict[str, list[bool]] = defaultdict(list)
    for result in results:
        rows[room_of(result["file"])].append(result["verdict"].startswith("killed"))
    rows = dict(sorted(rows.items()))
    rows["all"] = [killed for row in list(rows.values()) for killed in row]
    lines = [f"{'room':<12} {'mutants':>7} {'killed':>6} {'score':>6}"]
    lines += [
        f"{room:<12} {len(row):>7} {sum(row):>6} {sum(row) / max(1, len(row)):>6.1%}" for room, row in rows.items()
    ]
    lines += ["", "survivors:"]
    for result in results:
        if not result["verdict"].startswith("killed"):
            lines.append(f"{describe(_mutant(result))}: {result['verdict']}")
    return "\n".join(lines)


def _mutant(result: dict[str, Any]) -> Mutant:
    return Mutant(*(result[field] for field in Mutant._fields))


def merge(old: list[dict[str, Any]], drawn: Sequence[Mutant], verdicts: dict[str, str]) -> list[dict[str, Any]]:
    """Earlier results with newer verdicts in their places; `first` stays the first verdict on a mutant."""
    results = {_mutant(result).name: result for result in old}
    for mutant in drawn:
        if mutant.name in verdicts:
            verdict = verdicts[mutant.name]
            first = results.get(mutant.name, {}).get("first", verdict)
            results[mutant.name] = {**mutant._asdict(), "first": first, "verdict": verdict}
    return list(results.values())


def main() -> None:
    """Record, or draw and judge; print the table of all results kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", default="all", help="with commas")
    parser.add_argument("--count", type=int, default=50, help="mutants to draw")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--of-all", action="store_true", help="COUNT is spread over all rooms; judge those of --rooms")
    parser.add_argument("--jobs", type=int, default=1, help="processes that record")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop judging after so long")
    parser.add_argument("--again", action="store_true", help="judge the survivors kept in .mutation/ again")
    parser.add_argument("--resume", action="store_true", help="leave out the mutants that have a verdict")
    parser.add_argument("--record", nargs="*", default=None, metavar="FILE", help="record only")
    parser.add_argument("--full", action="store_true", help="with --record: the tests of the full tier too")
    options = parser.parse_args()
    if options.record is not None or not (STORE / "record.json.gz").exists():
        record(options.record or [], options.jobs, options.full)
    if options.record is not None:
        return
    tests = Chooser(load_record())
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    if options.again:
        survivors = {_mutant(result).name for result in old if not result["verdict"].startswith("killed")}
        every = {mutant.name: mutant for file, source in tests.sources.items() for mutant in mutants(file, source)}
        drawn = [every[name] for name in sorted(survivors) if name in every]
    else:
        drawn = draw(tests.sources, options.rooms.split(","), options.count, options.seed, options.of_all)
    if options.resume:
        judged = {_mutant(result).name for result in old if result["verdict"] != "no coverage"}
        drawn = [mutant for mutant in drawn if mutant.name not in judged]

    def keep(verdicts: dict[str, str]) -> None:
        part = RESULTS.with_suffix(".part")
        part.write_text(json.dumps(merge(old, drawn, verdicts), indent=1))
        part.replace(RESULTS)

    keep({})
    judge(drawn, tests, 60 * options.minutes, keep)
    sys.stdout.write(table(json.loads(RESULTS.read_text())) + "\n")


if __name__ == "__main__":
    main()
