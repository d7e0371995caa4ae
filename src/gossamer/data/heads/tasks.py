"""The heads of the tasks that read a table of labels, by their settings and by the columns that there are."""

from __future__ import annotations

from gossamer.data.heads.open import columns_of, named_columns
from gossamer.data.heads.spec import HeadSpec, parse_heads, parse_only
from gossamer.data.table import StrPath
from gossamer.settings import Settings


def heads_of(task: str, settings: Settings, root: StrPath = "", classes: tuple[str, ...] = ()) -> tuple[HeadSpec, ...]:
    """The heads of the task "multi", "multilabel" or "regress".

    root, classes: what a task of one head goes by where the settings have none: of "multilabel" the column `label` where
    there is one, else every column is a label; of "regress" every column is a quantity.
    Raises DataError, SettingsError, MissingPackageError.
    """
    if task == "multi":
        return parse_heads(settings.heads)
    spec = parse_only(settings.heads, task)
    if spec is not None:
        return (spec,)
    if task == "regress":
        return (HeadSpec("", task, classes or named_columns(root)),)
    columns = columns_of(root) if root else ("label",)
    return (HeadSpec("", task, ("label",) if "label" in columns else classes or named_columns(root)),)
