"""A process that has imported torch and forks once per command: run by `tests.runs.gossamer`, as `python server.py`.

A command still runs in a process, a folder and an environment of its own and exits as an interpreter does; only the imports
of other packages and torch's preparations for its first export, which take seconds, are done before. It imports nothing of
gossamer: each command does.

A line on standard input is a command as JSON: `words` of `gossamer ...`, `cwd`, `environment`, and the files that take
`stdout` and `stderr`. The reply is two lines: the number of the process, and its exit status, negative for a signal.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

import onnx  # noqa: F401
import onnxscript  # noqa: F401
import PIL.Image  # noqa: F401
import safetensors.numpy  # noqa: F401
import torch
import yaml  # noqa: F401
from tqdm import tqdm

from disk import do_not_wait_for_the_disk  # beside this file
from warm import keep_tables_of_torch

OPSET = 18  # that gossamer exports to; another would only be slower

PROGRAM = "gossamer"


def become(command: dict[str, Any]) -> None:
    """Make this process what `python -m gossamer WORDS` would be, up to its first line."""
    os.setsid()  # so that a command that takes too long ends with its own workers
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update(command["environment"])
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, command["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, command["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = [PROGRAM, *command["words"]]
    sys.path[0] = command["cwd"]


def prepare() -> None:
    """Do once what torch does at the first export of a process; leave one thread and nothing for the collector to walk."""
    keep_tables_of_torch()
    interval, tqdm.monitor_interval = tqdm.monitor_interval, 0  # a bar that torch draws would start a thread
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            torch.nn.Conv2d(3, 4, 1).eval(),
            (torch.zeros(2, 3, 4, 4),),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            verbose=False,
        )
    tqdm.monitor_interval = interval
    tasks = Path("/proc/self/task")
    assert not tasks.is_dir() or len(list(tasks.iterdir())) == 1, "a fork has none of the other threads"
    gc.collect()
    gc.freeze()


def main() -> None:
    """Answer commands until standard input ends."""
    assert not any(name.split(".")[0] == "gossamer" for name in sys.modules)
    prepare()
    do_not_wait_for_the_disk()
    replies = os.dup(1)
    for line in iter(sys.stdin.readline, ""):
        command = json.loads(line)
        child = os.fork()
        if not child:
            os.close(replies)
            become(command)
            runpy.run_module(PROGRAM, run_name="__main__", alter_sys=True)
            return
        os.write(replies, f"{child}\n".encode())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(replies, f"{status}\n".encode())


if __name__ == "__main__":
    main()
