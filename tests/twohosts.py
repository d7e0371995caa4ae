"""Two hosts made of network namespaces with a cable between them; skips where they may not be made."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SPACES = ("gossamer-a", "gossamer-b")
DEVICES = ("gossamer-va", "gossamer-vb")
ADDRESSES = ("10.203.77.1", "10.203.77.2")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def on_host(number: int, *words: str) -> list[str]:
    """A command as one of a host."""
    return ["ip", "netns", "exec", SPACES[number], *words]


def _remove() -> None:
    for name in SPACES:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


@contextmanager
def two_hosts() -> Iterator[None]:
    """Within it there are both."""
    try:
        _remove()
        for name in SPACES:
            ip("netns", "add", name)
        ends = [["netns", name, "type", "veth"] for name in SPACES]
        ip("link", "add", DEVICES[0], *ends[0], "peer", "name", DEVICES[1], *ends[1][:2])
        for name, device, address in zip(SPACES, DEVICES, ADDRESSES):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", device)
            ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces may not be made here: {getattr(error, 'stderr', '') or error}")
    try:
        yield
    finally:
        _remove()
