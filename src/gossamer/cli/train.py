"""`gossamer train`: the positional data, --config and --resume, and one flag a setting."""

from __future__ import annotations

import argparse
import dataclasses
import os
import typing
from typing import TYPE_CHECKING, Any

from gossamer import settings as settings_module
from gossamer.cli.arguments import number, whole_number
from gossamer.cli.loading import say_loading
from gossamer.cli.result import Result
from gossamer.errors import SettingsError
from gossamer.host.progress import Progress
from gossamer.host.text import counted, metric_name
from gossamer.settings import Settings

if TYPE_CHECKING:
    from gossamer.run import Run

EXAMPLES = (
    "gossamer train photos/ --minutes 10",
    "gossamer train photos/ --net mobilenet_v2 --width 0.5 --epochs 20 --out runs/flowers",
    "gossamer train signs/ --task detect --net mobilenet_v2 --weights default --epochs 100",
    "gossamer train --resume runs/flowers",
)


USUAL = ("task", "net", "weights", "input", "epochs", "minutes", "batch", "lr", "out", "val")
"""The settings that matter first; the help shows the others with --help-all."""


def arguments(parser: argparse.ArgumentParser) -> None:
    everything = getattr(parser, "show_all", True)
    fields = {field.name: field for field in dataclasses.fields(Settings) if field.name != "data"}
    more = "" if everything else f"; {len(fields) - len(USUAL)} more settings: gossamer train --help-all"
    parser.usage = "%(prog)s [DATA] [flags]"
    parser.add_argument("data", nargs="?", help="images: a folder, a CSV file, or tar shards")
    usual = parser.add_argument_group("settings that matter first" + more)
    hints = settings_module.type_hints()
    for name in USUAL:
        _add_setting(usual, fields[name], hints[name], shown=True)
    start = parser.add_argument_group("from another run")
    start.add_argument("--config", default="", metavar="FILE", help="settings.yaml of another run; flags override it")
    start.add_argument("--resume", default="", metavar="RUN", help="resume an interrupted run")
    groups: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in USUAL:
            group = field.metadata["group"]
            groups.setdefault(group, parser.add_argument_group(group))
            _add_setting(groups[group], field, hints[name], shown=everything)


def _add_setting(group: Any, field: dataclasses.Field[Any], hint: Any, *, shown: bool) -> None:
    """The flag of a setting; what is not shown is known all the same."""
    flag = _flag(field, hint)
    if not shown:
        flag["help"] = argparse.SUPPRESS
    group.add_argument("--" + field.name.replace("_", "-"), dest=field.name, default=None, **flag)


def _check_at_once(settings: Settings) -> None:
    """What a training would refuse after the seconds that loading torch takes: the name of the network, data that are not
    there or are of another task. Raises DataError, UnknownNameError."""
    from gossamer.networks.registry import is_network_name, resolve

    if not is_network_name(settings.net):
        resolve(settings.net)
    if settings.data and settings.task in ("classify", "embed"):
        from gossamer.data.layouts import check_task_named

        check_task_named(settings.data)
    named = settings.data and not any(mark in settings.data for mark in "*?[{\0")
    if named and not os.path.exists(settings.data):  # noqa: PTH110 (Path's raises where a name is too long)
        from gossamer.data.tasks import reader_of

        reader_of(settings.task, settings)(settings.data)  # it says what a task can read


def run(options: argparse.Namespace, progress: Progress) -> Result:
    wait_passively()
    changes = {
        name: value for name, value in vars(options).items() if name in settings_module.names() and value is not None
    }
    if options.resume:
        if changes or options.config:
            raise SettingsError(
                f"--resume with {'--config' if options.config else '--' + next(iter(changes)).replace('_', '-')}",
                "--resume alone: a run resumes with its own settings",
                "leave the rest out, or start a new run with --config",
            )
        from gossamer.targets import target_of

        target_of(options.resume, ("run",))
        say_loading(progress)
        from gossamer.training.loop import resume

        return trained(resume(options.resume, progress=progress))
    settings = Settings(**changes)
    if not options.config:
        _check_at_once(settings)
    from gossamer.run import settings_from

    settings = settings_from(options.config, changes) if options.config else Settings(**changes)
    say_loading(progress)
    from gossamer.training.loop import train

    if not options.config:
        return trained(train(settings, progress=progress))
    from gossamer.training.network import changes_of_config

    edits = changes_of_config(options.config)
    if edits and {"net", "net_options"} & changes.keys():
        progress.say(
            f"dropped, as they belong to the network of {options.config}: {counted(len(edits), 'edit')} (changes.json)"
        )
        edits = ()
    return trained(train(settings, changes=edits, progress=progress))


def wait_passively() -> None:
    """Have the threads of a step sleep while they wait for one another; OpenMP reads it when torch is loaded.

    By GCC's default each spins for up to 300,000 rounds. On a machine that other processes use too, a step of MobileNetV2
    at 32x32 on two threads then took ten times as long (measured on two cores with a load of 6). 1,000 is GCC's own
    number where there are more threads than cores.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def trained(run: Run, **values: Any) -> Result:
    """A run that has just been trained: its folder and its best epoch; values: more of them for a program."""
    from gossamer.tasks.registry import task_of

    score = task_of(run.settings.task).score
    name = f"val_{score}"
    rows, best = run.metrics(), run.best(name)
    last = rows[-1] if rows else {}
    # not their number: an evaluation may be of several epochs, or of a part of one
    plain: dict[str, Any] = {"run": str(run.path), "epochs": last.get("epoch", 0), "best": best, "last": last}
    plain["notes"] = run.data.get("notes", [])
    reached = f": val {metric_name(score)} {best[name]:.4f} after epoch {best['epoch']:g}" if best else ""
    return Result(f"{run.path}{reached}", {**plain, **values})


def _flag(field: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    """How argparse reads one setting; Settings checks the value."""
    default = "" if field.default in (None, "", ()) else f" (default {_default_text(field.default)})"
    options: dict[str, Any] = {"help": (field.metadata["help"] + default).replace("%", "%%")}
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
    if bool in kinds:
        return {**options, "action": argparse.BooleanOptionalAction}
    if tuple in (typing.get_origin(hint), *map(typing.get_origin, kinds)):
        return {**options, "type": number, "nargs": "+", "metavar": "X"}
    if choices := settings_module.choices(field.name):
        return {**options, "metavar": "|".join(choices)}
    kind = int if int in kinds else float if float in kinds else str
    read = {int: whole_number, float: number, str: str}[kind]
    return {**options, "type": read, "metavar": {int: "N", float: "X", str: "TEXT"}[kind]}


def _default_text(value: Any) -> str:
    return " ".join(f"{item:.4g}" for item in value) if isinstance(value, tuple) else str(value)
