"""This machine: processor, cores, memory, versions. No names of hosts, users or folders."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path("/")
PACKAGES = ("gossamer", "numpy", "pillow", "torch", "onnx", "onnxruntime", "openvino", "safetensors")

# Instruction sets that decide which kernels run -> how Linux calls them (x86, then ARM)
ISA = {
    "sse4_2": ("sse4_2",),
    "avx2": ("avx2",),
    "avx_vnni": ("avx_vnni",),
    "avx512f": ("avx512f",),
    "avx512_vnni": ("avx512_vnni",),
    "avx512_bf16": ("avx512_bf16",),
    "avx512_fp16": ("avx512_fp16",),
    "amx_tile": ("amx_tile",),
    "amx_bf16": ("amx_bf16",),
    "amx_int8": ("amx_int8",),
    "neon": ("neon", "asimd"),
    "neon_dotprod": ("asimddp",),
    "neon_i8mm": ("i8mm",),
    "neon_bf16": ("bf16",),
    "sve": ("sve",),
}


def describe_machine(root: Path = ROOT) -> dict[str, Any]:
    """Plain values; None where this system does not tell. `root` is the folder that holds proc/ and sys/.

    cpu: model name. isa: instruction sets of `ISA` that it has, None if unknown. cores: what this process may use at
    once. cpu_quota: its limit in cores, memory_limit_bytes: its limit of memory (Linux control groups).
    """
    model, flags = _cpu(root)
    return {
        "cpu": model,
        "architecture": platform.machine(),
        "isa": None if flags is None else [name for name, names in ISA.items() if flags.intersection(names)],
        "cores": usable_cores(root),
        "cores_total": os.cpu_count(),
        "cpu_quota": _cpu_quota(root),
        "memory_bytes": _memory(),
        "memory_limit_bytes": _memory_limit(root),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: number for name, number in versions(PACKAGES).items() if number is not None},
    }


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Installed version of each package, None where it is not; nothing is imported."""
    from importlib.metadata import PackageNotFoundError, version  # costs a process that only runs a network 10 ms

    installed: dict[str, str | None] = {}
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = None
    return installed


def usable_cores(root: Path = ROOT) -> int:
    """Cores that this process can keep busy: its affinity, and at most its quota (rounded down); 1 or more."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(root)
    return max(1, min(cores, math.floor(quota)) if quota is not None else cores)


def busy_load(threads: int) -> float | None:
    """The load of the last minute where more than half of the cores worked for others than this process; None where not.

    threads: that this process computes with.
    """
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # a system that does not tell
        return None
    return load if load - threads > max(1.0, usable_cores() / 2) else None


def _cpu(root: Path) -> tuple[str, set[str] | None]:
    """Model name, and the processor's own names of its features or None."""
    text = _read(root / "proc/cpuinfo") or ""
    fields = [line.partition(":") for line in text.splitlines()]
    facts = {key.strip().lower(): value.strip() for key, _, value in reversed(fields)}  # of the first core
    model = facts.get("model name") or platform.processor() or platform.machine() or "unknown"
    flags = facts.get("flags") or facts.get("features")
    return " ".join(model.split()), set(flags.split()) if flags else None


def _cpu_quota(root: Path) -> float | None:
    """Cores' worth of time a period that the control groups allow, None if unlimited."""
    limits = []
    for text in _group_files(root, "cpu", "cpu.max"):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit():
            limits.append(int(quota) / int(period))
    periods = _group_files(root, "cpu", "cpu.cfs_period_us")  # version 1
    for quota, period in zip(_group_files(root, "cpu", "cpu.cfs_quota_us"), periods, strict=False):
        if quota.isdigit() and period.isdigit():  # -1 is no limit
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _memory_limit(root: Path) -> int | None:
    """Bytes that the control groups allow, None if unlimited."""
    files = _group_files(root, "memory", "memory.max") + _group_files(root, "memory", "memory.limit_in_bytes")
    limits = [int(text) for text in files if text.isdigit()]
    return min((limit for limit in limits if limit < 1 << 60), default=None)  # version 1 says 2^63 for no limit


def _group_files(root: Path, controller: str, name: str) -> list[str]:
    """Contents of file `name` in this process's control group and all above it (version 2, or 1 of `controller`)."""
    texts = []
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not controllers:
            top = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controller
        else:
            continue
        group = top / path.lstrip("/")
        while True:
            texts.append(_read(group / name))
            if group == top or top not in group.parents:
                break
            group = group.parent
    return [text for text in texts if text is not None]


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # another system: unknown
        return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # not on this system, or not for us: unknown
        return None
