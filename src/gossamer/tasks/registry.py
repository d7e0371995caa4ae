"""The tasks by their names."""

from __future__ import annotations

import importlib

from gossamer.tasks.base import Task

# name -> (module, class)
TASKS: dict[str, tuple[str, str]] = {
    "classify": ("gossamer.tasks.classify", "Classify"),
    "detect": ("gossamer.tasks.detect", "Detect"),
    "segment": ("gossamer.tasks.segment", "Segment"),
    "embed": ("gossamer.tasks.embed", "Embed"),
}


def task_of(name: str) -> type[Task]:
    """The task called `name`, which the settings have checked."""
    module, kind = TASKS[name]
    found: type[Task] = getattr(importlib.import_module(module), kind)
    return found
