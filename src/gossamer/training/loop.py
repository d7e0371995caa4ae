"""The training loop: settings in, run folder out, whatever interrupts it.

Everything drawn at random is drawn from counters (seed, epoch, position, step), never from the state of a generator,
and the state of a run is one file replaced in one step. So a run that was killed resumes with the numbers it
would have had, on any number of processes that divides the batch.
"""

from __future__ import annotations

import copy
import math
import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from gossamer.data.augment import EvalTransform
from gossamer.data.cache import open_cache
from gossamer.data.changed import image_states
from gossamer.data.joint import JointTransform
from gossamer.data.loader import Batch, prefetch
from gossamer.data.mix import mix_plan
from gossamer.data.source import Data, Source, shown
from gossamer.data.split import split_rows
from gossamer.errors import GossamerError, Interrupted, RunError, SettingsError, StorageError
from gossamer.host import machine
from gossamer.host.progress import SILENT, Progress
from gossamer.host.text import counted, metric_name, short_minutes
from gossamer.networks.changes import Change, changes_to_json
from gossamer.run import STOPPED, Run
from gossamer.settings import Settings, differing
from gossamer.settings.parse import parse_bytes
from gossamer.settings.unused import unused
from gossamer.tasks.base import Task, progressive_size
from gossamer.tasks.classify import mixed_loss
from gossamer.tasks.registry import task_of
from gossamer.tasks.scores import Scores
from gossamer.training import conv_gradients, distributed, optim, pace, plan, precision, precision_cache
from gossamer.training.checkpoint import restore_state, save_state, weights
from gossamer.training.distributed import Processes
from gossamer.training.evaluate import evaluate
from gossamer.training.network import changes_of
from gossamer.training.restore import changes_in_data, preprocess_of, run_data, same_data, torch_forward
from gossamer.training.setup import build, resolve_settings, start
from gossamer.training.state import Session
from gossamer.training.teacher import Teacher, open_teacher


def train(
    settings: Settings,
    *,
    split_of: Run | None = None,
    changes: Sequence[Change] = (),
    until: float = 1.0,
    progress: Progress = SILENT,
) -> Run:
    """Train as `settings` say, into a new run folder.

    split_of: a run with the same data, whose classes and split are kept, image for image. changes: edits of the network,
    applied after its first weights are loaded and kept in the run as changes.json. until: the fraction of the run, above 0 and at most 1,
    at which it is scored, saved and left to be resumed. Under torchrun the batch is split over the processes and only the first one writes. Raises InputError for settings, data
    or weights that cannot be used, before anything is written; RunError where the folder exists already or the loss is no
    longer finite; StorageError where a state cannot be written (the one before is kept).
    """
    if not isinstance(settings, Settings):
        raise SettingsError(
            f"train with {type(settings).__name__}", "gossamer.Settings(data=..., net=...)", "make settings of it"
        )
    _check_until(until)
    if not settings.data:
        raise SettingsError("no data", "a folder of images, a CSV file, or tar shards", "name one: gossamer train DATA")
    begun = time.perf_counter()
    with _processes(settings) as (device, processes):
        data = same_data(split_of) if split_of else task_of(settings.task).open_data(settings)
        user_settings = differing(settings)
        settings, chosen = resolve_settings(settings, data, processes)
        chosen += unused(settings, user_settings)
        quiet = progress if processes.first else SILENT
        model, task, notes = build(settings, data, quiet, changes)
        teacher = open_teacher(settings, task, model, data, quiet) if settings.teacher else None
        run = Run.create(settings) if processes.first else Run(Path(settings.out), settings)
        with run:
            if processes.first:
                run.save_data(data.classes, _facts(data), split_rows(data), image_states(data))
                if changes:
                    run.save_changes(changes_to_json(changes))
                if teacher:
                    run.save_teacher(teacher.facts())
                run.save_settings(settings, user_settings)
            distributed.wait()
            session = _session(run, data, device, processes, model, task, progress, teacher)
            session.until = until
            return _run_to_the_end(session, [data.how, *data.notes, *chosen, *notes], begun)


def resume(folder: str | Path, *, until: float = 1.0, progress: Progress = SILENT) -> Run:
    """Resume an interrupted run, to the same weights as if nothing had happened. until: as of `train`.

    Raises RunError where the folder is no run, is locked or damaged; DataError where its data are gone; SettingsError.
    """
    _check_until(until)
    begun = time.perf_counter()
    run = Run.open(folder)
    with _processes(run.settings) as (device, processes), run:
        left: list[str] = []
        if processes.first:
            run.lock()
            left = run.remove_parts()
        data = run_data(run)
        since = changes_in_data(run, data) if processes.first else []
        # a state holds the weights, so those it once started from need not be there any more
        settings = run.settings.replace(weights="") if run.has("last") else run.settings
        model, task, _ = build(settings, data, SILENT, changes_of(run))
        teacher = open_teacher(run.settings, task, model, data) if run.settings.teacher else None
        if teacher:
            teacher.check(run.teacher())
        session = _session(run, data, device, processes, model, task, progress, teacher)
        session.until = until
        return _run_to_the_end(session, [*data.notes, *since, *_unfinished(left)], begun)


def _check_until(until: float) -> None:
    """Refuse what no progress would reach, NaN among it, and what is reached before the first step."""
    if isinstance(until, bool) or not isinstance(until, (int, float)) or not 0 < until <= 1:
        raise SettingsError(f"until {until}", "a fraction of the run, above 0 and at most 1", "give such a number")


def _unfinished(names: list[str]) -> list[str]:
    """A note on unfinished files of a killed process that were removed from the run folder."""
    return [f"removed {counted(len(names), 'unfinished file')} of a killed process: {shown(names)}"] if names else []


@contextmanager
def _processes(settings: Settings) -> Iterator[tuple[torch.device, Processes]]:
    """The device and the group of processes, which is left at the end."""
    try:
        device, processes = start(settings)
        if processes.world == 1:
            yield device, processes
            return
        # before the first epoch too, as where the first process has refused its folder
        with distributed.others_answer("another process of this training is gone", "look at what it said"):
            yield device, processes
    finally:
        distributed.leave_processes()


def _facts(data: Data) -> dict[str, Any]:
    """What the run folder says about the data."""

    def counts(source: Source) -> dict[str, int]:
        return dict(zip(data.classes, np.bincount(source.labels, minlength=len(data.classes)).tolist(), strict=True))

    return {
        "how": data.how,
        "notes": data.notes,
        "left_out": [each.to_json() for each in data.left_out],
        "fingerprint": data.fingerprint,
        "images": {name: len(source) for name, source in data.splits().items()},
        "per_class": {name: counts(source) for name, source in data.splits().items() if source.targets is None},
    }


def _session(
    run: Run,
    data: Data,
    device: torch.device,
    processes: Processes,
    model: nn.Module,
    task: Task,
    progress: Progress,
    teacher: Teacher | None,
) -> Session:
    preprocess = preprocess_of(run.settings)
    model.to(device)
    for module in task.frozen_modules():
        module.to(device).eval().requires_grad_(False)
    if device.type == "cpu":
        conv_gradients.use_own_gradients(model)
    return Session(
        run=run,
        settings=run.settings,
        data=data,
        device=device,
        processes=processes,
        progress=progress,
        task=task,
        model=model,
        runner=model,
        optimizer=optim.build_optimizer(model, run.settings),
        schedule=optim.Schedule(run.settings, run.settings.epochs),
        preprocess=preprocess,
        table=torch.from_numpy(preprocess.table()).to(device),
        transform=task.transform(preprocess, data.train),
        teacher=teacher,
    )


def _run_to_the_end(session: Session, notes: list[str], begun: float) -> Run:
    """Decide what is left to decide, restore a saved state where there is one, and train.

    begun: when the call did, on the clock of perf_counter; what was done since then counts as time of the run.
    """
    run, processes = session.run, session.processes
    if processes.first:
        run.add_environment({**machine.describe_machine(), "processes": processes.world, "seed": session.settings.seed})
    for line in notes:
        session.say(line)
    _open_caches(session)
    if session.settings.precision == "bf16" and not precision.computes_bf16(session.device):
        session.say("warning: precision bf16 is emulated on this processor, far slower than --precision float32")
    _choose_precision(session)
    for module in (session.model, *session.task.frozen_modules()):
        precision.as_format(module, session.settings.memory_format)
    if session.teacher:
        session.teacher.place(session.device, session.settings)
        for line in session.teacher.notes:
            session.say(line)
    if session.settings.ema:
        session.average = optim.Average(session.model, session.settings.ema)
    restore_state(session)
    if session.counters.finished:
        session.say(f"{run.path} is complete: {session.counters.finished}")
        return run
    if processes.world > 1:
        distributed.sync_batch_norm(session.model)
        session.runner = nn.parallel.DistributedDataParallel(session.model, broadcast_buffers=False)
    if session.settings.compile:
        session.runner = torch.compile(session.runner)  # type: ignore[assignment]
    plan.say_plan(session)
    session.counters.seconds += time.perf_counter() - begun
    gone = "another process of this training is gone"
    go_on = f"resume with one process or more: gossamer train --resume {shlex.quote(str(run.path))}"
    with _signals(session), _reason_in_the_log(session), distributed.others_answer(gone, go_on):
        _epochs(session)
    return run


@contextmanager
def _reason_in_the_log(session: Session) -> Iterator[None]:
    """Why a training could not go on, in its log too: the terminal may be gone when someone asks."""
    try:
        yield
    except Interrupted:  # has said so
        raise
    except GossamerError as error:
        if session.processes.first:
            with suppress(StorageError, RunError):  # the disk or the folder may be the reason
                session.run.log(f"{STOPPED}{error}")
        raise


def _open_caches(session: Session) -> None:
    """The caches of training and validation images; the first process builds them. The limit holds for both together."""
    if not session.settings.cache:
        return
    assert not isinstance(session.transform, JointTransform), "such a task has caches = False"
    limit, folder = parse_bytes(session.settings.cache), session.settings.cache_dir
    for build_turn in (True, False):
        if session.processes.first == build_turn:
            quiet = session.progress if build_turn else SILENT
            session.cache = open_cache(session.data.train, session.transform, limit, folder=folder, progress=quiet)
            left = max(1, limit - session.cache.path.stat().st_size)
            scoring = EvalTransform(session.preprocess)
            session.val_cache = open_cache(session.data.val, scoring, left, folder=folder, progress=quiet)
        distributed.wait()
    kept = ((cache.kept, len(cache)) for cache in (session.cache, session.val_cache) if cache)
    session.say("images in the cache: " + ", ".join(f"{part} of {total}" for part, total in kept))


def _choose_precision(session: Session) -> None:
    """Decide precision, memory format and threads by timing, once; the run folder keeps the decision.

    What an earlier run measured for this machine and network is not timed again, but for the threads.
    """
    settings = session.settings
    if "auto" not in (settings.precision, settings.memory_format):
        return
    session.say(
        f"timing a few steps to choose precision, memory format and threads, {precision.LIMIT:g} s at most "
        "(not needed with --precision float32 --memory-format channels_last)"
    )
    with closing(prefetch(session.batches(0))) as parts:
        part = next(parts)
    images = session.images(part.pixels)
    key = precision_cache.key(settings, session.model, images)
    known, line = precision_cache.recall(key, settings, images)
    if line:
        session.say(line)
    choice = precision.choose_precision(
        settings,
        session.model,
        images,
        session.mixed(part, None)[1],
        session.task.loss,
        lambda trial: optim.build_optimizer(trial, settings),
        known=known,
    )
    best = distributed.broadcast(choice.candidate)
    threads = 0 if session.device.type == "cuda" else best.threads
    session.settings = settings.replace(precision=best.precision, memory_format=best.memory_format, threads=threads)
    if threads:
        torch.set_num_threads(threads)
    session.say(str(choice))
    if session.processes.first:
        session.run.save_settings(session.settings, session.run.user_settings() or ())
        new = choice.complete and known is None
        line = precision_cache.keep(key, best.precision, best.memory_format) if new else ""
        if line:
            session.say(line)


# the loop


def _epochs(session: Session) -> None:
    """Epoch after epoch until the epochs, the minutes or the patience are used up, or the fraction `until` is reached."""
    counters = session.counters
    if session.rows and not counters.images and pace.is_at_pause(session, pace.steps_per_epoch(session)):
        return  # scored and saved there already
    while not counters.finished:
        before = counters.step
        steps = _one_epoch(session)
        paused = pace.is_at_pause(session, steps)
        ended = counters.step_in_epoch >= steps
        epoch = counters.epoch + min(counters.step_in_epoch / steps, 1)
        if ended and not paused and not plan.evaluation_is_due(session) and not pace.reason_to_stop(session, steps):
            counters.epoch, counters.step_in_epoch = counters.epoch + 1, 0
            save_state(session)
            continue
        evaluation = _evaluate(session)
        score = evaluation.metrics[session.task.score]
        passed = 0
        # a pause on the way is no epoch: the rate goes by the scores that it has without one
        if not paused or (ended and plan.evaluation_is_due(session)):
            passed = _epochs_since_score(session, epoch)
            session.schedule.epochs_done(score, passed)
        is_defined = not math.isnan(score)
        # where nothing defines the score, the weights of the last epoch are kept
        improved = counters.best is None or score > counters.best
        counters.bad_epochs = 0 if improved and is_defined else counters.bad_epochs + passed
        if improved:
            counters.best, counters.best_epoch = score if is_defined else None, counters.epoch + 1
        row = _row(session, epoch, evaluation)
        session.rows.append(row)
        session.say(_line(row, session))
        counters.finished = pace.reason_to_stop(session, steps)
        if not (counters.finished or ended or paused or counters.step > before):
            counters.finished = "no step is left"  # another round would take none either
        if ended:
            counters.epoch, counters.step_in_epoch = counters.epoch + 1, 0
        counters.loss_sum, counters.images, counters.data_seconds, counters.step_seconds = 0.0, 0, 0.0, 0.0
        if session.teacher:
            session.teacher.seconds = 0.0
            for note in session.teacher.flush():
                session.say(note)
        if session.processes.first:
            # best and metrics first: a kill before the state is saved repeats them to the same content
            if improved:
                session.run.save_state("best", weights(session), {"epoch": epoch, **evaluation.metrics})
            session.run.save_metrics(session.rows)
            session.run.save_unreadable(sorted(session.unreadable.items()))
            save_state(session)
        if paused and not counters.finished:
            session.say(f"left at {session.until:.3g} of the run, to be resumed")
            return
    name = metric_name(session.task.score)
    best = (
        f"no {name} is defined for these validation images: the weights of epoch {counters.best_epoch} are kept"
        if counters.best is None
        else f"best {name} {counters.best:.4f} in epoch {counters.best_epoch}"
    )
    session.say(f"finished: {counters.finished}; {best}")


def _epochs_since_score(session: Session, epoch: float) -> int:
    """Epochs since the last evaluation but those of pauses, one at least."""
    every = session.settings.eval_every or 1
    before = (row["epoch"] for row in session.rows if row["epoch"] % every == 0)
    return max(1, round(epoch - max(before, default=0)))


def _one_epoch(session: Session) -> int:
    """Train to the end of the epoch, or of the budget; the number of steps that the epoch has."""
    counters, settings = session.counters, session.settings
    steps = pace.steps_per_epoch(session)
    if not counters.step_in_epoch:  # an interrupted epoch resumes at its own size
        counters.input_scale = optim.progressive(settings.progressive, pace.fraction(session, steps))
    batches = session.batches(counters.epoch)
    session.runner.train()
    optim.freeze_norms(session.model)
    parts = prefetch(batches, start=counters.step_in_epoch * settings.accumulate, workers=settings.workers or 0)
    saved = mark = time.perf_counter()
    with ExitStack() as stack:
        stack.callback(parts.close)
        todo = session.progress.track(
            range(counters.step_in_epoch, steps), steps - counters.step_in_epoch, f"epoch {counters.epoch + 1}: step"
        )
        for _ in todo if session.processes.first else range(counters.step_in_epoch, steps):
            if (
                counters.step and pace.fraction(session, steps) >= session.until
            ):  # one step is taken, however short the time
                break
            group = list(islice(parts, settings.accumulate))
            fetched = time.perf_counter()
            _step(session, group, steps)
            now = time.perf_counter()
            counters.data_seconds += fetched - mark
            counters.step_seconds += now - fetched
            counters.seconds += now - mark
            mark = now
            plan.say_forecast(session, steps)
            if session.interrupted or pace.save_is_due(session, now - saved):
                _check_weights(session)
                save_state(session)
                saved = time.perf_counter()
            if session.interrupted:
                session.say(f"Interrupted. Resume with: gossamer train --resume {shlex.quote(str(session.run.path))}")
                raise Interrupted(session.interrupted)
    return steps


def _step(session: Session, parts: list[Batch], steps: int) -> None:
    """One update from a batch that comes in `accumulate` parts."""
    counters, settings, optimizer = session.counters, session.settings, session.optimizer
    counters.lr = pace.rate(session, steps)
    optim.set_rate(optimizer, counters.lr)
    # dropout draws from torch's generator: a function of the step, so that a resumed run draws the same
    torch.manual_seed((settings.seed * 1_000_003 + counters.step) * session.processes.world + session.processes.rank)
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), dtype=torch.float64, device=session.device)
    first = counters.step_in_epoch * settings.accumulate
    for index, part in enumerate(parts):
        plan = mix_plan(
            settings.seed, counters.epoch, first + index, settings.mixup, settings.cutmix, part.pixels.shape[1:3]
        )
        images, targets, others, weight = session.mixed(part, plan)
        with ExitStack() as stack:
            if index + 1 < len(parts) and isinstance(session.runner, nn.parallel.DistributedDataParallel):
                stack.enter_context(session.runner.no_sync())
            with precision.autocast(session.device, settings.precision):
                outputs = session.runner(images)
            values = mixed_loss(session.task, outputs, targets, images, others, weight)
            if session.teacher:
                term = session.teacher.term(outputs, targets, images, others, weight)
                values = values + settings.distil_weight * term
            cost = session.task.cost(session.model)
            values = values if cost is None else values + cost
            warning = session.task.watch(outputs)
            torch.autograd.backward(values.mean() / len(parts))
        total += values.detach().double().sum()
        counters.images += len(values) * session.processes.world
        session.unreadable.update(part.unreadable)
        for note in [*part.notes, *([warning] if warning else [])]:
            session.say(note)
    if session.processes.world > 1:
        torch.distributed.all_reduce(total)
    optim.add_l1(optimizer)
    learning = [p for group in optimizer.param_groups for p in group["params"]]
    if settings.clip_value:
        nn.utils.clip_grad_value_(learning, settings.clip_value)
    if settings.clip_norm:
        nn.utils.clip_grad_norm_(learning, settings.clip_norm)
    loss = float(total)
    if not math.isfinite(loss):
        raise _diverged(session, f"the loss is {loss} at step {counters.step + 1}", "a finite loss")
    optimizer.step()
    if session.average:
        session.average.update(session.model, counters.step)
    counters.loss_sum += loss
    counters.step += 1
    counters.step_in_epoch += 1


def _check_weights(session: Session) -> None:
    """Raises RunError where the last step has left weights that are no numbers, before they are scored or saved."""
    if not all(bool(parameter.isfinite().all()) for parameter in session.model.parameters()):
        what = f"the weights are not finite after step {session.counters.step}"
        raise _diverged(session, what, "finite weights")


def _diverged(session: Session, what: str, allowed: str) -> RunError:
    kept = "; the last saved state is still there" if session.run.has("last") else ""
    rate = session.optimizer.param_groups[0]["lr"]
    return RunError(f"{what} (learning rate {rate:g})", allowed, f"lower --lr, or use --clip-norm 1{kept}")


def _evaluate(session: Session) -> Scores:
    """Score the weights that would be saved on the validation images, in float32, split over the processes.

    Raises RunError where they are not finite.
    """
    _check_weights(session)
    started = time.perf_counter()
    model = copy.deepcopy(session.model)
    model.load_state_dict(weights(session, prefix=""))
    processes = session.processes
    mine = evaluate(
        torch_forward(model.eval()),
        session.data.val,
        session.preprocess,
        session.task.scorer(),
        cache=session.val_cache,
        rank=processes.rank,
        world=processes.world,
        max_unreadable=session.settings.max_unreadable,
        progress=session.progress if processes.first else SILENT,
    )
    (scorer, _), *others = distributed.gather((mine, session.unreadable))
    for other, unreadable in others:  # each process has met images of its own, in training too
        scorer.merge(other)
        session.unreadable.update(unreadable)
    scores: Scores = scorer.scores()
    session.unreadable.update(scores.unreadable)
    session.evaluation_seconds = time.perf_counter() - started
    session.counters.seconds += session.evaluation_seconds
    return scores


def _row(session: Session, epoch: float, evaluation: Scores) -> dict[str, Any]:
    counters = session.counters
    busy = counters.data_seconds + counters.step_seconds
    count = max(counters.images, 1)
    return {
        "epoch": epoch,
        "step": counters.step,
        "lr": counters.lr,
        "loss": counters.loss_sum / count,
        "images_per_second": counters.images / busy if busy else 0.0,
        "data_seconds": counters.data_seconds,
        "step_seconds": counters.step_seconds,
        # part of step_seconds; since the start of this process at most
        **({"teacher_seconds": session.teacher.seconds} if session.teacher else {}),
        "val_loss": evaluation.loss,
        **{f"val_{name}": value for name, value in evaluation.metrics.items()},
        "seconds": counters.seconds,
    }


def _line(row: dict[str, Any], session: Session) -> str:
    settings, name = session.settings, session.task.score
    of = f"/{settings.epochs:g}" if settings.epochs is not None else ""
    budget = (
        f", {row['seconds'] / 60:.1f}/{short_minutes(settings.minutes)} min" if settings.minutes is not None else ""
    )
    height, width = progressive_size(session.preprocess.size, session.counters.input_scale)
    at = f" at {height}x{width}" if settings.progressive < 1 else ""
    teacher = f", of them the teacher {row['teacher_seconds']:.1f} s" if session.teacher else ""
    val_loss = "" if math.isnan(row["val_loss"]) else f"val loss {row['val_loss']:.4f}, "
    return (
        f"epoch {round(row['epoch'], 2):g}{of}{budget}: loss {row['loss']:.4f}, {val_loss}"
        f"val {metric_name(name)} {row[f'val_{name}']:.4f}, lr {row['lr']:.3g}, {row['images_per_second']:.0f} images/s{at} "
        f"(waiting for data {row['data_seconds']:.1f} s, steps {row['step_seconds']:.1f} s{teacher}, "
        f"evaluation {session.evaluation_seconds:.1f} s)"
    )


@contextmanager
def _signals(session: Session) -> Iterator[None]:
    """Let Ctrl-C, a polite kill and a terminal that closes finish the step and save first; a second one stops at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        if session.interrupted:
            raise Interrupted(number)
        session.interrupted = number

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # under nohup a hang-up is ignored, and stays so
    numbers = [number for number in numbers if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    try:
        before = {number: signal.signal(number, stop) for number in numbers}
    except ValueError:  # not the main thread: signals are the caller's business
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
