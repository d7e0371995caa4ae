"""Ray: joining a cluster, or starting one on this machine, with an end to waiting; functions done by its workers.

Nothing is reported: RAY_USAGE_STATS_ENABLED is 0 before Ray is imported. The processes of a cluster have gossamer installed
and see the same paths as this one: folders of results lie on a disk that they share.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gossamer.errors import InputError, MissingPackageError, StorageError
from gossamer.host.machine import usable_cores
from gossamer.host.progress import Progress
from gossamer.host.steprunner import WorkerLost, called, result_of
from gossamer.host.text import counted

AUTO, LOCAL = "auto", "local"
SCHEME = "ray://"
ANSWER_LIMIT = 10.0  # seconds for the first answer of an address
JOIN_LIMIT = 30.0  # seconds for Ray to join a cluster
STARTS = 3  # of Ray here: it gives itself 30 seconds, which are few on a machine at full load
ALLOWED = "auto (a running cluster, or one on this machine), local, ray://HOST:PORT or HOST:PORT"
TRIES = 4  # of a function whose worker is lost: killed, or its machine
_PLACE = re.compile(r"(ray://)?(\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{1,5})", re.ASCII)


def check_address(address: str) -> None:
    """Raises InputError where this is none; "" is no Ray at all."""
    if address in ("", AUTO, LOCAL):
        return
    if not isinstance(address, str) or not _PLACE.fullmatch(address) or not 0 < int(address.rpartition(":")[2]) < 65536:
        raise InputError(f"ray {str(address)[:80]!r}", ALLOWED, "check --ray")


def import_ray() -> Any:
    """Ray, which reports nothing. Raises MissingPackageError."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # `ray start --head` wants a token where there is one (2.60 on), and a process that joins gives none unless told to
    is_there = "RAY_AUTH_TOKEN" in os.environ
    with contextlib.suppress(OSError, RuntimeError):  # a user without a home, or with one that may not be read
        named = os.environ.get("RAY_AUTH_TOKEN_PATH")
        is_there |= (Path(named) if named else Path.home() / ".ray" / "auth_token").is_file()
    if is_there:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    # a change of Ray's to come, of which it would warn: it hides GPUs from tasks that ask for none
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError("ray", "ray", "--ray") from error
    return ray


def _check_there(address: str) -> None:
    """Raises InputError where nothing answers at an address within ANSWER_LIMIT."""
    match = _PLACE.fullmatch(address)
    assert match is not None, "checked"
    try:
        socket.create_connection((match[2].strip("[]"), int(match[3])), timeout=ANSWER_LIMIT).close()
    except OSError as error:
        what = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise InputError(
            f"ray {address}: {what} within {ANSWER_LIMIT:g} seconds", "a running cluster",
            "start it (ray start --head), or use --ray local",
        ) from error  # fmt: skip


@contextlib.contextmanager
def connected(address: str, progress: Progress) -> Iterator[Any]:
    """Ray, joined to the cluster at an address; left at the end. Raises InputError, MissingPackageError."""
    check_address(address)
    ray = import_ray()
    if ray.is_initialized():  # the caller's own, which stays
        yield ray
        return
    wanted = os.environ.get("RAY_ADDRESS", "") if address == AUTO else address
    if wanted not in ("", AUTO, LOCAL):
        check_address(wanted)
        _check_there(wanted)
    progress.say("joining Ray; its usage reports are off (RAY_USAGE_STATS_ENABLED=0)")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    home = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    mine = {"runtime_env": {"env_vars": {"PYTHONPATH": home}}} if wanted in ("", AUTO, LOCAL) else {}

    joins = wanted != LOCAL
    if wanted in ("", AUTO):
        try:
            _within(lambda: ray.init(address=AUTO, **common, **mine), address)
        except ConnectionError:  # none runs here
            joins = False
    elif joins:
        _within(lambda: ray.init(address=wanted, **common), wanted)
    if not joins:
        _start(ray, address, num_cpus=usable_cores(), include_dashboard=False, **common, **mine)
    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, address: str, **options: Any) -> None:
    """Start Ray on this machine; not in a thread: its processes end with the thread that has started them."""
    for last in (*[False] * (STARTS - 1), True):
        try:
            ray.init(address=LOCAL, **options)
            return
        except Exception as error:  # Ray's own errors are of many types
            ray.shutdown()
            if last or "timed out during startup" not in str(error):
                raise _failed(address, error) from error


def _within(join: Callable[[], object], address: str) -> None:
    """Call a function that may wait for ever. Raises ConnectionError as it does, InputError where it fails or takes JOIN_LIMIT."""
    problem: list[BaseException] = []

    def run() -> None:
        try:
            join()
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(JOIN_LIMIT)
    if thread.is_alive():
        do = "look at: ray status; where a cluster was killed, `ray stop` removes what is left of it, and --ray local needs none"
        raise InputError(f"ray {address}: not joined in {JOIN_LIMIT:g} seconds", ALLOWED, do)
    if problem and isinstance(problem[0], ConnectionError) and address == AUTO:
        raise problem[0]
    if problem:
        raise _failed(address, problem[0]) from problem[0]


def _failed(address: str, error: BaseException) -> InputError:
    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    do = "look at: ray status; where the cluster asks for a token, it must be in ~/.ray/auth_token here, too"
    return InputError(f"ray {address}: {what}", ALLOWED, do)


class RayWorkers:
    """Functions done by the workers of a cluster, one at a time each. See `host.steprunner.Workers`."""

    tries = TRIES

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        self.count = max(1, gpus or int(resources.get("CPU", 1)))
        self._call = ray.remote(called_in).options(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=0)

    def start(self, function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> Any:
        """Begin a function, in the current folder of this process; the reference of its result."""
        return self._call.remote(str(Path.cwd()), function, arguments)

    def first(self, running: Sequence[Any], seconds: float) -> tuple[Any, Callable[[], dict[str, Any]]] | None:
        """One that has ended, and what gives its result or raises; None where none has within so many seconds."""
        ended, _ = self._ray.wait(list(running), num_returns=1, timeout=seconds)
        if not ended:
            return None
        return ended[0], lambda: result_of(self._get(ended[0]))

    def _get(self, reference: Any) -> dict[str, Any]:
        try:
            values: dict[str, Any] = self._ray.get(reference)
            return values
        except self._ray.exceptions.RayError as error:
            raise WorkerLost(f"its worker was lost: {lost(error)}") from error


def called_in(folder: str, function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> dict[str, Any]:
    """As `called`, in a folder: paths may be relative to it, and a worker begins where Ray was started."""
    try:
        os.chdir(folder)
    except OSError as error:
        what = f"{folder}: {error.strerror} on a machine of the cluster; start it in a folder that all of them share"
        return {"error": what, "exit_code": StorageError.exit_code, "storage": True}
    return called(function, arguments)


def lost(error: BaseException) -> str:
    """The first line of what Ray says of a worker that is gone."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]


@contextlib.contextmanager
def joined(address: str, progress: Progress) -> Iterator[RayWorkers | None]:
    """The workers of a cluster; None where none is asked for. Raises InputError, MissingPackageError."""
    if not address:
        yield None
        return
    with connected(address, progress) as ray:
        workers = RayWorkers(ray)
        progress.say(
            f"Ray: {counted(workers.count, 'worker')} (Python {sys.version_info.major}.{sys.version_info.minor})"
        )
        yield workers
