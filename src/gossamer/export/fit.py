"""Whether a network fits into the memory of a chip, where it needs most, and what would fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from gossamer.csource import compiler
from gossamer.csource.device import network_of, preprocess_of
from gossamer.csource.limits import Needs, needs_of, size
from gossamer.csource.network import BYTES, Network, live_numbers
from gossamer.csource.verify import measured_code
from gossamer.errors import GossamerError
from gossamer.export.c import limits_of
from gossamer.host.progress import SILENT, Progress
from gossamer.host.shown import Report
from gossamer.modelfile.metadata import ModelFile, parse_model_file, read_model_file

STEP = 8  # of the sides of an input that are tried, pixels


@dataclass(frozen=True, repr=False)
class Fit(Report):
    """ram, flash: limits in bytes, None for none. problem: what does not fit, "" where all does.

    over: layers of which each alone needs more memory than there is. input: its sides. smaller: the largest input of this
    shape that fits, with its RAM, where there is one. heavy: layers without which the weights would fit.
    """

    path: str
    needs: Needs
    ram: int | None
    flash: int | None
    problem: str
    input: tuple[int, int]
    over: tuple[str, ...] = ()
    smaller: tuple[int, int, int] | None = None
    heavy: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 where it fits."""
        return 1 if self.problem else 0

    def text(self) -> str:
        """Some lines for people."""
        needs = self.needs
        about = "measured at -Os on this machine" if needs.measured else "an estimate: no C compiler here"
        answer = (
            f"does not fit: {self.problem}" if self.problem else "fits" if self.ram or self.flash else "no limit given"
        )
        lines = [
            f"{self.path}: {needs.type}, input {self.input[0]} x {self.input[1]}: {answer}",
            f"RAM {size(needs.ram)}, most of it at:",
            *[f"  {size(one.bytes):>10}  {one.layer}" for one in needs.peaks],
            f"flash {size(needs.flash)}: weights {size(needs.weights)}, tables {size(needs.tables)}, code {size(needs.code)} ({about}); most "
            "weights in:",
            *[f"  {size(one.bytes):>10}  {one.layer}" for one in needs.layers],
        ]
        if self.over:
            count = "1 layer needs" if len(self.over) == 1 else f"{len(self.over)} layers need"
            lines.append(f"{count} more RAM than there is, the first: {self.over[0]}")
        if self.smaller is not None:
            lines.append(f"an input of {self.smaller[0]} x {self.smaller[1]} would fit: RAM {size(self.smaller[2])}")
        if self.heavy:
            lines.append(f"weights would fit without: {'; '.join(self.heavy)}")
        if self.problem and needs.type != BYTES:
            lines.append("in int8 it needs about a quarter of both: gossamer quantize")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "path": self.path,
            "fits": not self.problem,
            "problem": self.problem,
            "ram_limit": self.ram,
            "flash_limit": self.flash,
            "input": list(self.input),
            "needs": self.needs.to_json(),
            "layers_over_ram": list(self.over),
            "input_that_fits": None if self.smaller is None else list(self.smaller[:2]),
            "layers_without_which_flash_fits": list(self.heavy),
        }


def fit(
    target: str | os.PathLike[str],
    *,
    is_run: bool = False,
    which: str = "best",
    ram: str | None = None,
    flash: str | None = None,
    progress: Progress = SILENT,
) -> Fit:
    """What a model file, or a run in float32, needs as C source. ram, flash: limits, as "256K".

    Raises InputError that names an operator without a kernel, SettingsError, RunError, ModelFileError.
    """
    limits = limits_of(ram, flash)
    file = run_graph(target, which, progress) if is_run else read_model_file(target)
    network = network_of(file)
    code = measured_code(file, network, compiler.compiler())
    needs = needs_of(network, code, preprocess_of(file, network) is not None)
    problem = needs.problem(*limits)
    result = Fit(os.fspath(target), needs, *limits, problem, (network.input.h, network.input.w))
    if not problem:
        return result
    over: tuple[str, ...] = ()
    heavy: tuple[str, ...] = ()
    smaller = None
    if limits[0] is not None and needs.ram > limits[0]:
        over = _over(network, limits[0])
        smaller = _smaller(file, network, lambda other: _fits(needs_of(other, needs.code), limits[0], None))
    if limits[1] is not None and needs.flash > limits[1]:
        heavy = _heavy(network, needs.flash - limits[1])
    return replace(result, over=over, heavy=heavy, smaller=smaller)


def run_graph(folder: str | os.PathLike[str], which: str, progress: Progress) -> ModelFile:
    """The ONNX model of a run, in float32, compared with nothing. Raises RunError, InputError."""
    from gossamer.export.convert import to_onnx
    from gossamer.predictions.head import outputs_of
    from gossamer.training.restore import load_run

    source = load_run(os.fspath(folder), which)
    progress.say("converting to ONNX")
    size, channels = source.preprocess.size, source.preprocess.channels
    return parse_model_file(to_onnx(source.model, size, channels, outputs_of(source.task.heads())), os.fspath(folder))


def _fits(needs: Needs, ram: int | None, flash: int | None) -> bool:
    return not needs.problem(ram, flash)


def _over(network: Network, ram: int) -> tuple[str, ...]:
    """The layers of which each alone needs more than all memory."""
    width, outputs = (1, 4 * network.output_count) if network.type == BYTES else (4, 0)
    live = live_numbers(network)
    return tuple(
        f"layer {number + 1} ({network.steps[number].text()}), {size(count * width + outputs)}"
        for number, count in enumerate(live)
        if count * width + outputs > ram
    )


def _heavy(network: Network, excess: int) -> tuple[str, ...]:
    """Layers with most weights, as many as hold the excess."""
    held = [sum(one.nbytes for one in step.constants()) for step in network.steps]
    chosen: list[str] = []
    for number in sorted(range(len(held)), key=lambda place: -held[place]):
        if excess <= 0:
            break
        chosen.append(f"layer {number + 1} ({network.steps[number].text()}), {size(held[number])}")
        excess -= held[number]
    return tuple(chosen) if excess <= 0 else ()


def _smaller(file: ModelFile, network: Network, fits: Callable[[Network], bool]) -> tuple[int, int, int] | None:
    """The largest input of about the same shape, in steps of 8 pixels, at which the network can be built and fits."""
    height, width = network.input.h, network.input.w
    if network.program.shape is not None or min(height, width) <= STEP:
        return None
    low, high, best = 1, (height - 1) // STEP, None
    while low <= high:  # memory grows with the input
        middle = (low + high) // 2
        sides = (middle * STEP, max(STEP, round(width * middle * STEP / height / STEP) * STEP))
        try:
            other = network_of(_resized(file, sides))
        except GossamerError:  # a layer of that file takes no other size, or nothing is left of a map
            low = middle + 1
            continue
        if fits(other):
            best, low = (*sides, needs_of(other, 0).ram), middle + 1
        else:
            high = middle - 1
    return best


def _resized(file: ModelFile, sides: tuple[int, int]) -> ModelFile:
    """The file with another input size."""
    given = file.onnx.input
    shape = given.shape or ()
    return replace(file, metadata=None, onnx=replace(file.onnx, inputs=(replace(given, shape=(*shape[:2], *sides)),)))
