"""The description of this machine."""

from __future__ import annotations

import getpass
import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gossamer.host import machine


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_it_says_what_matters_and_is_plain_json() -> None:
    facts = json.loads(json.dumps(machine.describe_machine()))
    assert facts["cpu"] and facts["cores"] >= 1
    assert facts["python"] == platform.python_version()
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["memory_bytes"] is None or facts["memory_bytes"] > 1 << 20


def test_it_names_no_host_user_or_folder() -> None:
    text = json.dumps(machine.describe_machine())
    for private in (socket.gethostname(), str(Path.home()), str(Path.cwd()), f'"{getpass.getuser()}"'):
        assert private not in text


def test_processor_and_instruction_sets_come_from_cpuinfo(tmp_path: Path) -> None:
    text = "processor\t: 0\nmodel name\t: Fast  CPU @ 3 GHz\nflags\t\t: fpu avx2 avx512f amx_tile\n\nprocessor\t: 1\n"
    facts = machine.describe_machine(lay_out(tmp_path, {"proc/cpuinfo": text}))
    assert (facts["cpu"], facts["isa"]) == ("Fast CPU @ 3 GHz", ["avx2", "avx512f", "amx_tile"])


def test_arm_is_understood(tmp_path: Path) -> None:
    text = "processor : 0\nFeatures : fp asimd asimddp i8mm\nCPU part : 0xd0c\n"
    assert machine.describe_machine(lay_out(tmp_path, {"proc/cpuinfo": text}))["isa"] == [
        "neon",
        "neon_dotprod",
        "neon_i8mm",
    ]


def test_what_the_system_does_not_say_is_none(tmp_path: Path) -> None:
    facts = machine.describe_machine(tmp_path)
    assert facts["isa"] is None and facts["cpu_quota"] is None and facts["memory_limit_bytes"] is None
    assert facts["cpu"]


@pytest.mark.parametrize(
    ("files", "quota", "memory"),
    [
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5, None),
        (
            {
                "proc/self/cgroup": "0::/a/b",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000",
                "sys/fs/cgroup/a/cpu.max": "300000 100000",
                "sys/fs/cgroup/a/b/memory.max": "max",
                "sys/fs/cgroup/a/memory.max": "2147483648",
            },
            3.0,
            1 << 31,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/x",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "1048576",
            },
            0.5,
            1 << 20,
        ),
    ],
)
def test_limits_of_control_groups(tmp_path: Path, files: dict[str, str], quota: float, memory: int | None) -> None:
    facts = machine.describe_machine(lay_out(tmp_path, files))
    assert (facts["cpu_quota"], facts["memory_limit_bytes"]) == (quota, memory)


def test_usable_cores_stay_within_affinity_and_quota(tmp_path: Path) -> None:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert machine.usable_cores(tmp_path) == allowed
    lay_out(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"})
    assert machine.usable_cores(tmp_path) == 1


def test_absent_packages_are_none_and_nothing_is_imported() -> None:
    assert machine.versions(["numpy", "no-such-package-here"]) == {
        "numpy": np.__version__,
        "no-such-package-here": None,
    }
    code = "import sys; from gossamer.host import machine; machine.describe_machine(); assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
