"""A sweep that leaves trials early beside running all of them to the end, and beside random search in the same minutes.

    python benchmarks/sweep.py --data cifar10-shards --folder SCRATCH --minutes 60 --seeds 3
    python benchmarks/sweep.py --data cifar10-shards --folder SCRATCH --minutes 2.5            # a small figure, 15 minutes or so
    python benchmarks/sweep.py --data cifar10-shards --folder SCRATCH --minutes 60 --seeds 3 --table

Twelve configurations: four networks with three learning rates each (--nets and --rates take others). For each seed:

1. `gossamer sweep --minutes M`, a process that is ended by kill -9 three times on its way and started again.
2. Each of the twelve to its end, as long as that sweep planned for a trial that comes to its end, by `gossamer train`.
3. Random search: of the trainings of 2, in a random order, as many as end within M minutes; the mean over 1,000 orders. Nothing
   is trained again for it: these are the trainings that it would have done.

SCRATCH holds all of it. The sweep and the trainings resume, so the benchmark can be interrupted, and --seeds raised later. All of it
takes about three times M for each seed. Milliseconds are those of the sweep, for all three alike.

What is printed: minutes; the gap, by how many points of accuracy a front lies below that of all twelve at the same milliseconds,
at the worst and on the mean over the points of that front; and whether a trial was lost or trained twice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

import gossamer
from gossamer.host.machine import describe_machine
from gossamer.host.storage import write_text
from gossamer.settings.file import dump_settings
from gossamer.sweeps.settings import load_sweep

NETS = ("mobilenetv1_025", "mobilenetv2_035", "mobilenetv3_small_050", "shufflenet_v2_x0_5")
RATES = (0.02, 0.06, 0.18)
ORDERS = 1000  # of random search

Point = tuple[float, float]  # milliseconds, score


def write_sweep(path: Path, options: argparse.Namespace, seed: int) -> None:
    """The file of the sweep."""
    same: dict[str, Any] = {"data": str(Path(options.data).resolve()), "input": 32, "batch": 64, "seed": seed}
    same |= {"val_share": options.val_share, "threads": options.threads, "precision": "float32"}
    same |= {"memory_format": "channels_last"}
    values = {"settings": same, "grid": {"net": options.nets, "lr": options.rates}, "runtime": options.runtime}
    text = yaml.safe_dump(values, sort_keys=False)
    if path.exists() and path.read_text() != text:
        raise SystemExit(f"{path}: is of other options; give another --folder")
    write_text(path, text)


def run_sweep(place: Path, minutes: float, trials: int) -> None:
    """The sweep, killed and started again; what its starts took is kept in killed.json."""
    # after so many finished steps: the plan and a timing a trial, then trainings; the last one among the second rungs
    kills = (1 + trials + trials // 6, 1 + trials + 2 * trials // 3, 1 + 2 * trials + trials // 6)
    state = place / "killed.json"
    known = json.loads(state.read_text()) if state.exists() else {"kills": 0, "seconds": 0.0, "complete": False}
    command = [sys.executable, "-m", "gossamer", "sweep", str(place / "sweep.yaml"), "--out", str(place / "sweep")]
    while not known["complete"]:
        begun = time.monotonic()
        process = subprocess.Popen([*command, "--minutes", f"{minutes:g}"], stdout=subprocess.DEVNULL)
        while process.poll() is None:
            time.sleep(0.2)
            steps = len(list((place / "sweep" / "steps").glob("*.json")))
            if known["kills"] < len(kills) and steps >= kills[known["kills"]]:
                time.sleep(random.Random(known["kills"]).uniform(0.5, 3))  # in the midst of a training
                process.kill()
                known["kills"] += process.wait() < 0
        known["seconds"] += time.monotonic() - begun
        if process.returncode > 0:
            raise SystemExit(f"the sweep ended with exit code {process.returncode}")
        known["complete"] = process.returncode == 0
        write_text(state, json.dumps(known))


def run_all(place: Path, found: dict[str, Any], schedule: float) -> dict[int, dict[str, float]]:
    """Every trial to its end; trial -> its best score and the seconds of its training."""
    path = place / "all.json"
    known: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    space = load_sweep(place / "sweep.yaml").space
    for one in found["trials"]:
        name = f"{one['number']:04d}"
        if name in known:
            continue
        folder, config = place / "all" / name, place / f"{name}.yaml"
        write_text(config, dump_settings(space.settings(one["values"]).replace(minutes=schedule)))
        begun = (folder / "settings.yaml").exists()
        words = ["--resume", str(folder)] if begun else ["--config", str(config), "--out", str(folder)]
        print(f"training {name} {one['values']} to its end, {schedule:.2g} minutes", flush=True)
        subprocess.run([sys.executable, "-m", "gossamer", "train", *words], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)  # fmt: skip
        run = gossamer.Run.open(folder)
        best = run.best("val_accuracy")
        known[name] = {"score": float(best["val_accuracy"]) if best else 0.0, "seconds": float(run.clock()["seconds"])}
        write_text(path, json.dumps(known))
    return {int(name): values for name, values in known.items()}


def front(points: list[Point]) -> list[Point]:
    """Those that no other beats: a higher score in no more milliseconds."""
    return [one for one in points if not any(o[0] <= one[0] and o[1] >= one[1] and o != one for o in points)]


def gaps(found: list[Point], best: list[Point]) -> list[float]:
    """For each point of the front `best`, the points of accuracy by which `found` stays below at its milliseconds, 0 at least."""
    return [max(0.0, score - max((s for m, s in found if m <= ms), default=0.0)) * 100 for ms, score in best]


def random_gaps(
    all_points: dict[int, Point], seconds: dict[int, float], limit: float, best: list[Point]
) -> tuple[list[float], list[float], float]:
    """Worst and mean gap of each random order, and the trainings that fit on the mean."""
    rng = random.Random(0)
    worst, mean, fitted = [], [], []
    for _ in range(ORDERS):
        order = list(all_points)
        rng.shuffle(order)
        past, there = 0.0, []
        for number in order:
            past += seconds[number]
            if past > limit:
                break
            there.append(all_points[number])
        each = gaps(there, best)
        worst.append(max(each))
        mean.append(statistics.fmean(each))
        fitted.append(len(there))
    return worst, mean, statistics.fmean(fitted)


def result_of(place: Path, seed: int, minutes: float, trials: int) -> dict[str, Any]:
    """What one seed shows."""
    found = json.loads((place / "sweep" / "trials.json").read_text())
    known = {int(name): each for name, each in json.loads((place / "all.json").read_text()).items()}
    killed = json.loads((place / "killed.json").read_text())
    ms = {one["number"]: one["ms"] for one in found["trials"]}
    every = {number: (ms[number], each["score"]) for number, each in known.items() if ms[number] is not None}
    best = front(list(every.values()))
    swept = [(one["ms"], one["score"]) for one in found["trials"] if one["complete"]]
    # the score of a trial differs a little between its two trainings, which take minutes: so what it was trained to here counts
    chosen = [every[one["number"]] for one in found["trials"] if one["complete"]]
    worst, mean, fitted = random_gaps(every, {n: each["seconds"] for n, each in known.items()}, 60 * minutes, best)
    steps = [path.stem for path in (place / "sweep" / "steps").glob("trial-*-rung-*.json")]
    twice = len(found["trials"]) - len({json.dumps(one["values"], sort_keys=True) for one in found["trials"]})
    return {
        "seed": seed,
        "kills": killed["kills"],
        "trials": len(found["trials"]),
        "twice": twice,
        "lost": trials - len(found["trials"]) + found["left"],
        "rungs": len(steps),
        "complete": len(swept),
        "sweep_minutes": killed["seconds"] / 60,
        "all_minutes": sum(each["seconds"] for each in known.values()) / 60,
        "sweep_gap": [max(gaps(swept, best)), statistics.fmean(gaps(swept, best))],
        "choice_gap": [max(gaps(chosen, best)), statistics.fmean(gaps(chosen, best))],
        "random_gap": [statistics.fmean(worst), statistics.fmean(mean)],
        "random_trainings": fitted,
        "random_better": statistics.fmean(one < statistics.fmean(gaps(chosen, best)) for one in mean),
    }


def print_table(results: list[dict[str, Any]], minutes: float) -> None:
    """A row a seed, as Markdown."""
    print("| seed | kills | trials lost, twice | to the end | sweep, min | all, min | gap of the sweep, points: worst, mean | "
          "of its choice | of random search | trainings of random search | its orders that beat the choice |")  # fmt: skip
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for one in results:
        pair = [f"{one[name][0]:.2f}, {one[name][1]:.2f}" for name in ("sweep_gap", "choice_gap", "random_gap")]
        cells = [
            str(one["seed"]),
            str(one["kills"]),
            f"{one['lost']}, {one['twice']}",
            f"{one['complete']} of {one['trials']}",
        ]
        cells += [f"{one['sweep_minutes']:.1f}", f"{one['all_minutes']:.1f}", *pair, f"{one['random_trainings']:.1f}"]
        print("| " + " | ".join([*cells, f"{100 * one['random_better']:.0f} %"]) + " |")
    machine = describe_machine()
    print(f"\n{minutes:g} minutes a sweep; {machine['cpu']}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--val-share", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runtime", default="native")
    parser.add_argument("--table", action="store_true", help="print what is there, and train nothing")
    parser.add_argument("--nets", type=lambda text: text.split(","), default=list(NETS), help="divided by commas")
    parser.add_argument("--rates", type=lambda text: [float(one) for one in text.split(",")], default=list(RATES))
    options = parser.parse_args()
    trials = len(options.nets) * len(options.rates)
    results = []
    for seed in range(options.seeds):
        place = options.folder / f"{options.minutes:g}-seed-{seed}"
        if not options.table:
            place.mkdir(parents=True, exist_ok=True)
            write_sweep(place / "sweep.yaml", options, seed)
            run_sweep(place, options.minutes, trials)
            plan = json.loads((place / "sweep" / "steps" / "plan.json").read_text())
            run_all(place, json.loads((place / "sweep" / "trials.json").read_text()), plan["schedule"])
        if (place / "all.json").exists():
            results.append(result_of(place, seed, options.minutes, trials))
    if not results:
        raise SystemExit("nothing is measured")
    print_table(results, options.minutes)


if __name__ == "__main__":
    main()
