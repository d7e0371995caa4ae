"""What a training is about to do, in lines for the person, and how long its evaluations take."""

from __future__ import annotations

from gossamer.host.text import counted, minutes_text
from gossamer.training import distributed
from gossamer.training.state import Session

EVALUATION_COST = 0.4  # of an image, beside that of a training step on it: forwards only, which is a third of a step
EVALUATION_SHARE = 0.2  # of the time, at most, where minutes are set and how often is not
SAMPLE = 3  # steps after which the steps that fit into the minutes are told


def say_plan(session: Session) -> None:
    """Say how long the run is, where its schedule ends and how long it warms up."""
    settings, counters = session.settings, session.counters
    batches = session.batches(counters.epoch)
    steps = max(1, len(batches) // settings.accumulate)
    batch = batches.batch * min(settings.accumulate, len(batches))  # of few images a step has fewer parts
    parts = [f"{counted(steps, 'step')} of {counted(batch, 'image')} per epoch"]
    if settings.epochs is not None:
        total = max(1, round(settings.epochs * steps))
        parts.insert(0, f"{counted(settings.epochs, 'epoch')}, {counted(total, 'step')}")
    if settings.minutes is not None:
        past = f", of which {counters.seconds / 60:.1f} are used" if counters.seconds > 0 else ""
        parts.insert(0, f"{minutes_text(settings.minutes)}{past}, evaluations and this preparation included")
    if settings.schedule == "constant":
        parts.append("constant learning rate")
    else:
        parts.append(_schedule(session))
    parts.append(_warmup(session, steps))
    session.say("plan: " + "; ".join(part for part in parts if part))


def _schedule(session: Session) -> str:
    """The schedule, and whether it ends with the run, as those that go by the fraction of it do."""
    settings = session.settings
    rises = settings.schedule in ("one_cycle", "cyclic")
    ends = settings.schedule in ("cosine", "one_cycle") or (settings.schedule == "step" and not settings.step_epochs)
    rate = f"schedule {settings.schedule} {'up to' if rises else 'from'} a learning rate of {settings.lr:g}"
    return f"{rate}, ends with the run" if ends else rate


def _warmup(session: Session, steps: int) -> str:
    warmup = session.schedule.warmup
    if session.settings.schedule == "one_cycle" or warmup <= 0:
        return ""
    if session.settings.epochs is None:
        return f"warm-up of {counted(warmup, 'epoch')}, a tenth of the time at most"
    count = round(warmup * steps)
    return (
        f"warm-up of {counted(count, 'step')}, {100 * warmup / session.settings.epochs:.2g} % of the run"
        if count
        else ""
    )


def say_forecast(session: Session, steps: int) -> None:
    """Once, after the first few steps of a run with a time budget: how many steps the budget is for."""
    counters, settings = session.counters, session.settings
    session.steps_since_start += 1
    if settings.minutes is None or session.steps_since_start != SAMPLE or not counters.images:
        return
    step = (counters.data_seconds + counters.step_seconds) * settings.batch / counters.images
    left = max(0.0, settings.minutes * 60 - counters.seconds - evaluation_seconds(session))
    if settings.eval_every is None:
        left *= 1 - EVALUATION_SHARE / 2
    total = counters.step + round(left / max(step, 1e-9))
    session.say(
        f"a step takes {step:.2g} s: about {counted(total, 'step')}, {total / steps:.2g} epochs, fit into "
        f"{minutes_text(settings.minutes)}"
    )


def evaluation_seconds(session: Session) -> float:
    """What the next evaluation will take: as long as the last one, before the first an estimate from the steps."""
    counters = session.counters
    if session.evaluation_seconds or not counters.images:
        return session.evaluation_seconds
    images = len(session.data.val) / session.processes.world
    return EVALUATION_COST * counters.step_seconds / counters.images * session.processes.world * images


def evaluation_is_due(session: Session) -> bool:
    """Whether the epoch that has just ended is one to evaluate after."""
    settings, counters = session.settings, session.counters
    if settings.eval_every is not None:
        return (counters.epoch + 1) % settings.eval_every == 0
    training = counters.data_seconds + counters.step_seconds  # since the last evaluation
    due = training * EVALUATION_SHARE >= evaluation_seconds(session) * (1 - EVALUATION_SHARE)
    return bool(
        distributed.broadcast(due)
    )  # by one clock: all processes evaluate together, or would wait for one another
