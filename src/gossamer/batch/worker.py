"""A worker process: claims the units that its parent names on standard input, a JSON line each, and reports on standard output.

It ends with its parent: the end of standard input ends it at once. Started as `python -P -m gossamer.batch.worker`.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import IO, Any

from gossamer.batch.answering import Answering
from gossamer.batch.folder import claim
from gossamer.batch.plan import Unit
from gossamer.errors import GossamerError, InputError, StorageError
from gossamer.host.signals import goes_first
from gossamer.predictions.limits import DecodingLimits
from gossamer.runtime.model import load


def answering(config: dict[str, Any]) -> Answering:
    """What the parent's first line asks for. Raises ModelFileError, InputError."""
    model = load(config["model"], runtime=config["runtime"], threads=config["threads"])
    if config["check"] and model.sha256 != config["sha256"]:
        raise InputError(f"{config['model']}: has changed since the start", "one model file", "start it again")
    return Answering(
        model,
        Path(config["out"]),
        config["sha256"],
        config["top"],
        DecodingLimits(*config["limits"]),
        config["batch"],
        config["format"],
        config["decoders"],
    )


def main() -> None:
    """Serve one parent."""
    goes_first()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not come between the replies
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    config = json.loads(sys.stdin.readline() or "null")
    if config is None:
        return
    threading.Thread(target=_read, args=(sys.stdin, requests), daemon=True).start()

    def send(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    def take(wait: bool) -> Unit | None:
        try:
            return claim(Path(config["out"]), requests.get(block=wait)["unit"])
        except queue.Empty:
            return None

    ready = False
    try:
        answers = answering(config)
        ready = True
        send({"ready": True})
        answers.serve(take, send)
    except GossamerError as error:
        kind = "storage" if isinstance(error, StorageError) else ""
        send({"error": str(error), "exit_code": error.exit_code, "kind": kind})
    except MemoryError:
        what = "the memory of this machine is not enough"
        if not ready:  # else it is the unit's: it is tried again, as where the system kills a worker
            send({"error": f"{what}; try fewer --workers or a smaller --batch", "exit_code": 2})
            return
        _end(what)
    except BrokenPipeError:  # the parent is gone
        os._exit(1)
    except Exception as error:
        traceback.print_exc()
        _end(f"{type(error).__name__}: {error}")


def _end(why: str) -> None:
    """End with a last line on standard error; at once, as the thread that reads may not be waited for."""
    sys.stderr.write(f"{' '.join(why.split())}\n")
    sys.stderr.flush()
    os._exit(1)


def _read(stream: IO[str], requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in stream:
        requests.put(json.loads(line))
    os._exit(0)  # the parent has ended, or wants this process to


if __name__ == "__main__":
    main()
