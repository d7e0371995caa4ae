"""The time of each operation of compiled networks, on the engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gossamer.errors import InputError
from gossamer.host.shown import Report
from gossamer.runtime.native import Native
from gossamer.runtime.steps import Step, table
from gossamer.targets import target_of


@dataclass(frozen=True)
class NetworkProfile:
    """A compiled file's operations with their times in milliseconds per image, for a number of threads."""

    path: str
    isa: str
    threads: int
    operations: tuple[Step, ...]


@dataclass(frozen=True, repr=False)
class Profile(Report):
    """A profile for each file and each number of threads."""

    networks: tuple[NetworkProfile, ...]

    def text(self) -> str:
        """A table for each."""
        return "\n\n".join(
            f"{network.path}: {table(network.operations, network.isa, network.threads)}" for network in self.networks
        )

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values."""
        return [dataclasses.asdict(network) for network in self.networks]


def profile(targets: Sequence[str], threads: Sequence[int] = (1,)) -> Profile:
    """Time each operation of compiled files with each number of threads.

    Raises InputError for another target, ModelFileError, MissingPackageError.
    """
    networks = []
    for target in targets:
        if target_of(target).kind != "compiled file":
            raise InputError(f"{target} with --profile", "a compiled network", "compile it first: gossamer compile")
        for count in threads:
            engine = Native(target, count)
            networks.append(NetworkProfile(target, engine.isa, count, tuple(engine.profile())))
    return Profile(tuple(networks))
