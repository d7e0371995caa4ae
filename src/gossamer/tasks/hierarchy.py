"""A tree of classes: the names above its leaves, which are the classes of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import DataError

Path = tuple[str, ...]


@dataclass(frozen=True)
class ClassTree:
    """paths: the names from the top to each leaf, in the order of the network's outputs.

    A leaf higher up than the deepest stands for itself at the levels below it. Names need to differ among the
    children of one parent only. Raises DataError: no leaf, an empty path, a leaf twice, a leaf below another leaf.
    """

    paths: tuple[Path, ...]

    def __post_init__(self) -> None:
        if not self.paths or not all(self.paths):
            raise DataError("a class tree with an empty path, or none", "one or more names per leaf", "fix the tree")
        leaves = set(self.paths)
        if len(leaves) < len(self.paths):
            twice = next(path for path in self.paths if self.paths.count(path) > 1)
            raise DataError(f"class tree: {'/'.join(twice)} is there twice", "each leaf once", "take one out")
        for path in self.paths:
            above = next((path[:end] for end in range(1, len(path)) if path[:end] in leaves), None)
            if above:
                raise DataError(
                    f"class tree: {'/'.join(path)} is below the leaf {'/'.join(above)}",
                    "a leaf has nothing below it",
                    f"give its own images a leaf, such as {'/'.join(above)}/other",
                )

    @cached_property
    def levels(self) -> tuple[tuple[Path, ...], ...]:
        """The classes of each level, coarsest first, in the order in which the leaves name them; the last level has
        the leaves."""
        depth = max(map(len, self.paths))
        return tuple(tuple(dict.fromkeys(path[:level] for path in self.paths)) for level in range(1, depth + 1))

    @cached_property
    def groups(self) -> tuple[NDArray[np.int64], ...]:
        """For each level the class of each leaf: (K,) per level."""
        numbers = [{path: number for number, path in enumerate(level)} for level in self.levels]
        return tuple(
            np.array([number[path[: level + 1]] for path in self.paths], np.int64)
            for level, number in enumerate(numbers)
        )

    def target(self, path: Sequence[str]) -> NDArray[np.int64]:
        """The class at each level of an image labelled with a leaf or with a class above: (L,), -1 where not known.

        Raises DataError where the tree has no such class.
        """
        wanted = tuple(path)
        below = [leaf for leaf in range(len(self.paths)) if self.paths[leaf][: len(wanted)] == wanted]
        if not wanted or not below:
            tops = ", ".join("/".join(each) for each in self.levels[0][:5])
            raise DataError(f"class tree: no class {'/'.join(wanted)!r}", f"paths from {tops} down", "fix the label")
        known = len(self.levels) if self.paths[below[0]] == wanted else len(wanted)
        classes = [group[below[0]] if level < known else -1 for level, group in enumerate(self.groups)]
        return np.array(classes, np.int64)

    def targets(self, leaves: NDArray[np.int64]) -> NDArray[np.int64]:
        """The class at each level of images of these leaves: (n,) -> (n, L); -1 stays -1."""
        known = np.where(leaves < 0, 0, leaves)
        return np.where(leaves[:, None] < 0, -1, np.stack([group[known] for group in self.groups], axis=1))

    def probabilities(self, leaves: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """The probabilities of the classes of each level from those of the leaves: (n, K) -> (n, K_level) per level."""
        return [
            leaves @ (group[:, None] == np.arange(len(level))).astype(np.float64)
            for level, group in zip(self.levels, self.groups, strict=True)
        ]
