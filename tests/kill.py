"""kill -9 at random moments of a training run, until it is through; its weights against an uninterrupted run.

python -m tests.kill --kills 50
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import write_image_folder
from tests.runs import RECIPE, commands, gossamer, same, weights


@dataclass(frozen=True)
class Report:
    """How often the run was killed, how often before its folder was complete, and whether the weights agree."""

    kills: int
    before_the_first_state: int
    identical: bool


def kill_and_resume(image_folder: Path, folder: Path, kills: int, seed: int) -> Report:
    """Train once in peace, once with at least `kills` kills; compare both states bit for bit."""
    rng = random.Random(seed)
    peaceful, hunted = folder / "peaceful", folder / "hunted"
    # enough epochs that many lives end before the run does
    recipe = [*RECIPE, "--epochs", str(max(20, 2 * kills)), "--save-steps", "3"]
    gossamer("train", image_folder, *recipe, "--out", peaceful)
    done = early = 0
    started = time.monotonic()
    gossamer("train", "--resume", peaceful)  # complete: it loads all that a life has to load, and ends
    start_up = time.monotonic() - started
    while done < kills:
        if finished(hunted):  # it got through between two kills: begin again, and count on
            shutil.rmtree(hunted)
        begun = (hunted / "settings.yaml").exists()
        arguments = ["train", "--resume", hunted] if begun else ["train", image_folder, *recipe, "--out", hunted]
        life = commands().start(arguments)
        time.sleep(rng.uniform(0.3, 2.5) * start_up)
        killed = life.runs()
        life.kill()
        done += killed
        early += killed and not (hunted / "last.safetensors").exists()
    if (hunted / "settings.yaml").exists():
        gossamer("train", "--resume", hunted)
    else:
        gossamer("train", image_folder, *recipe, "--out", hunted)
    return Report(
        done,
        early,
        same(weights(peaceful), weights(hunted)) and same(weights(peaceful, "best"), weights(hunted, "best")),
    )


def finished(run: Path) -> bool:
    """Whether the run says of itself that it is complete."""
    state = run / "last.json"
    return state.exists() and bool(json.loads(state.read_text())["counters"]["finished"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        report = kill_and_resume(write_image_folder(Path(name) / "images"), Path(name), options.kills, options.seed)
    sys.stdout.write(f"{report}\n")
    sys.exit(not report.identical)


if __name__ == "__main__":
    main()
