"""Which cases of a test over all networks `make test` runs; `make test-full` runs them all."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import pytest

from gossamer.networks.registry import NETWORKS, resolve


def one_per_family(names: Iterable[str]) -> list[Any]:
    """The names as parameters of a test: the first of each module that builds networks, the others marked `full`."""
    return one_case_per_family((name, name, name) for name in names)


def one_case_per_family(cases: Iterable[tuple[str, str, object]]) -> list[Any]:
    """The same for (name of a network, the case's own name, parameter)."""
    seen: set[str] = set()
    parameters = []
    for network, name, value in cases:
        module = NETWORKS[resolve(network)].module
        parameters.append(pytest.param(value, id=name, marks=pytest.mark.full if module in seen else ()))
        seen.add(module)
    return parameters


def quick_ones(values: Iterable[object], quick: Container[object]) -> list[Any]:
    """The values as parameters of a test: those that are not in `quick` are marked `full`."""
    return [pytest.param(value, marks=() if value in quick else pytest.mark.full) for value in values]
