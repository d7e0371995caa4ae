"""The state of a training: saved in one step, restored bit for bit.

The times that a run has taken are no state: two equal trainings have equal states. They stand in clock.json beside it, which
is written just before: a kill between the two leaves a clock that is ahead by what was done since the last state.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from torch import Tensor

from gossamer.errors import RunError
from gossamer.training import optim
from gossamer.training.state import Counters, Session

FORMAT = 3
TIMES = ("seconds", "data_seconds", "step_seconds")  # of the counters; in a state up to format 2 they stand with them
MOST = 10**12  # of any count: a larger one is damaged, and floats would no longer hold it exactly


def weights(session: Session, prefix: str = "model.") -> dict[str, Tensor]:
    """The weights that are evaluated and shipped: the average where there is one."""
    values = session.average.values if session.average else session.model.state_dict()
    return {prefix + name: value for name, value in values.items()}


def save_state(session: Session) -> None:
    """Replace the state to resume from, in one step; the first process's business."""
    if not session.processes.first:
        return
    slots, values = optim.pack_optimizer(session.optimizer)
    tensors = {f"model.{name}": value for name, value in session.model.state_dict().items()}
    tensors.update({f"optimizer.{name}": value for name, value in slots.items()})
    if session.average:
        tensors.update({f"ema.{name}": value for name, value in session.average.values.items()})
    counters = dataclasses.asdict(session.counters)
    session.run.save_clock({name: counters.pop(name) for name in TIMES})
    facts = {
        "format": FORMAT,
        "counters": counters,
        "schedule": session.schedule.state,
        "optimizer": values,
        "rows": len(session.rows),
        "unreadable": session.unreadable,
    }
    session.run.save_state("last", tensors, facts)


def restore_state(session: Session) -> None:
    """Restore the saved state; without one the run starts anew, with the same seed and so the same weights."""
    if not session.run.has("last"):
        return
    tensors, facts = session.run.load_state("last")

    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    try:
        number = _format(facts)
        session.model.load_state_dict(under("model."))
        optim.unpack_optimizer(session.optimizer, under("optimizer."), facts["optimizer"])
        if session.average:
            session.average.values = {name: value.to(session.device) for name, value in under("ema.").items()}
        session.counters = _counters(facts["counters"])
        if number >= 3:
            _set_clock(session)
        session.schedule.state = _schedule(facts["schedule"])
        session.unreadable = dict(_object(facts["unreadable"], "unreadable"))
        saved = _row_count(facts["rows"])
        session.rows = session.run.metrics()[:saved]
        if len(session.rows) < saved:
            session.say(
                f"{session.run.path}: {saved - len(session.rows)} of {saved} rows of metrics are gone or damaged"
            )
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{session.run.weights('last')}: does not fit this run: {error}",
            "the state that this run saved",
            "restore settings.yaml and last.safetensors from the same copy",
        ) from error
    counters = session.counters
    session.say(f"resuming at epoch {counters.epoch + 1}, step {counters.step_in_epoch} of it")


def _format(facts: dict[str, Any]) -> int:
    """The format of a state, 1 to FORMAT. Raises ValueError."""
    number = facts.get("format", 1)
    if type(number) is not int or not 1 <= number <= FORMAT:
        raise ValueError(f"format is {str(number)[:40]!r}, this gossamer reads 1 to {FORMAT}")
    return number


def _set_clock(session: Session) -> None:
    """Put the times of clock.json into the counters; without a sound one they count from 0, with a note."""
    times, line = session.run.clock(), ""
    for name in TIMES:
        value: Any = times.get(name)
        if _is_number(value) and 0 <= value <= MOST:
            setattr(session.counters, name, float(value))
        else:
            line = "clock.json is missing or damaged: the time of this run counts from now on"
    if line:
        session.say(line)


def _counters(values: Any) -> Counters:
    """The counters of a state of format 1, which calls the input scale `share`, or 2. Raises ValueError, TypeError."""
    values = {"input_scale" if name == "share" else name: value for name, value in _object(values, "counters").items()}
    counters = Counters(**values)
    if isinstance(counters.best, float) and math.isnan(
        counters.best
    ):  # as versions before wrote a score that nothing defines
        counters.best = None
    for field in dataclasses.fields(counters):
        value = getattr(counters, field.name)
        if field.name == "finished":
            sound = isinstance(value, str)
        elif field.name == "best":
            sound = value is None or _is_number(value)
        elif isinstance(field.default, int):
            sound = _count(value)
        else:
            sound = _is_number(value) and value >= 0
        if not sound:
            raise ValueError(f"{field.name} is {str(value)[:40]!r}")
    return counters


def _schedule(values: Any) -> dict[str, Any]:
    """What the plateau schedule remembers. Raises ValueError."""
    state = _object(values, "schedule")
    best = state.get("best")
    if set(state) != {"factor", "best", "bad"} or not _is_number(state["factor"]) or not _count(state["bad"]):
        raise ValueError(f"schedule is {str(state)[:80]!r}")
    if best is not None and not _is_number(best):
        raise ValueError(f"best of the schedule is {str(best)[:40]!r}")
    return state


def _row_count(value: Any) -> int:
    if not _count(value):
        raise ValueError(f"rows is {str(value)[:40]!r}")
    return int(value)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {str(value)[:40]!r}")
    return value
