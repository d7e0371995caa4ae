"""How far a training is: which fraction is done, the learning rate there, and when to save, to pause and to stop."""

from __future__ import annotations

from gossamer.host.text import counted, minutes_text
from gossamer.settings import Settings
from gossamer.training import distributed, plan
from gossamer.training.state import Session


def steps_per_epoch(session: Session) -> int:
    """Updates in an epoch of the data as it is now, at least one."""
    return max(1, len(session.batches(session.counters.epoch)) // session.settings.accumulate)


def position(session: Session, steps: int) -> int:
    """The steps of the run that are done, if each epoch had as many as this one.

    This is the one count of progress. A run that resumes on other data has other steps per epoch: `counters.step`, all
    steps ever taken, then says nothing about how many epochs are left.
    """
    counters = session.counters
    return counters.epoch * steps + min(counters.step_in_epoch, steps)


def steps_of_run(settings: Settings, steps: int) -> int | None:
    """The steps of the whole run, at least one; None where the time alone ends it."""
    return None if settings.epochs is None else max(1, round(settings.epochs * steps))


def fraction(session: Session, steps: int) -> float:
    """The fraction of the run that is done, by steps or by time, whichever is further; the same in every process."""
    counters, settings = session.counters, session.settings
    done, total = 0.0, steps_of_run(settings, steps)
    if total is not None:
        done = position(session, steps) / total
    if settings.minutes is not None:
        # what the evaluation at the end will take belongs to the budget
        seconds = counters.seconds + plan.evaluation_seconds(session)
        done = max(done, float(distributed.broadcast(seconds)) / (settings.minutes * 60))
    return done


def rate(session: Session, steps: int) -> float:
    """The learning rate of the next step."""
    return session.schedule.rate(position(session, steps) / steps, fraction(session, steps), 1 / steps)


def is_at_pause(session: Session, steps: int) -> bool:
    """Whether the run has come to the fraction at which it is left; a run to its end has none."""
    return session.until < 1 and session.counters.step > 0 and fraction(session, steps) >= session.until


def reason_to_stop(session: Session, steps: int) -> str:
    """Why the run ends here, in words for its last line; empty where it goes on."""
    counters, settings = session.counters, session.settings
    total = steps_of_run(settings, steps)
    if total is not None and position(session, steps) >= total:
        done = counted(position(session, steps) / steps, "epoch")
        return f"{done} {'is' if done == '1 epoch' else 'are'} done"
    # one clock for all processes: they must end together
    seconds = (
        0.0 if settings.minutes is None else distributed.broadcast(counters.seconds + plan.evaluation_seconds(session))
    )
    if settings.minutes is not None and seconds >= settings.minutes * 60:
        return f"the {minutes_text(settings.minutes, 'minutes are')} used up"
    if settings.early_stop and counters.bad_epochs >= settings.early_stop:
        return f"no better score in {counted(counters.bad_epochs, 'epoch')}"
    return ""


def save_is_due(session: Session, seconds: float) -> bool:
    """Whether the state is to be saved within the epoch, `seconds` after it was last."""
    settings = session.settings
    if settings.save_steps:
        return session.counters.step % settings.save_steps == 0
    return seconds >= settings.save_every > 0
