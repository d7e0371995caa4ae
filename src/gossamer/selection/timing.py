"""Milliseconds of networks of fresh weights on this machine: measured once, then kept in the user's cache by machine."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gossamer.compile.write import compile_bytes
from gossamer.errors import GossamerError
from gossamer.export.convert import to_onnx
from gossamer.export.traced import traced_onnx
from gossamer.host import machine, text
from gossamer.host.progress import SILENT
from gossamer.modelfile.metadata import parse_model_file
from gossamer.runtime import native
from gossamer.runtime.model import open_model
from gossamer.runtime.table import RUNTIMES
from gossamer.selection.choices import NetworkChoice
from gossamer.selection.counting import Builder, Counted
from gossamer.shrink.graph import OnnxGraph
from gossamer.shrink.qdq import QuantisationChoice, quantised_model
from gossamer.shrink.ranges import measure_ranges
from gossamer.shrink.times import in_turns, keep_times, machine_key, read_times

NAME = "networks.json"  # below `host.storage.user_cache`
NATIVE = "native"
BUSY = "other programs were at work while networks were timed"
ROUNDS, SECONDS = 4, 0.05  # of each file; they are timed again at the end, for longer
GAIN = 1.5  # times the fastest rate measured here that no network exceeds
# channels, kernel, layers, side: dense layers, which compute the most of all in a millisecond
DENSE = ((64, 3, 4, 28), (256, 1, 4, 28), (256, 3, 2, 14))


class NetworkTimes:
    """Milliseconds and bytes by network and precision, those of this machine kept. notes: what went wrong with keeping.

    keep: whether earlier times are taken and new ones kept in the user's cache; a table of one day takes none of another.
    """

    def __init__(self, runtime: str, threads: int, keep: bool = True) -> None:
        self.runtime, self.threads, self.keep = runtime, threads, keep
        self._machine = machine_key(threads)
        known, line = read_times(NAME) if keep else ({}, "")
        self.notes = [line] if line else []
        self._known: dict[str, float] = dict(known.get(self._machine, {}))
        self._version = ""
        self._unmeasured: set[str] = set()  # dense layers that the runtime does not take
        self.measured = 0  # networks in this process

    def get(self, counted: Counted, precisions: Sequence[str]) -> dict[str, tuple[float, int]] | None:
        """precision -> (ms, bytes) where all are known, else None."""
        result = {}
        for precision in precisions:
            key = self._key(counted.signature, precision)
            if f"{key}:ms" not in self._known or f"{key}:MB" not in self._known:
                return None
            result[precision] = self._known[f"{key}:ms"], round(self._known[f"{key}:MB"] * 1e6)
        return result

    def measure(
        self, builder: Builder, choice: NetworkChoice, counted: Counted, precisions: Sequence[str]
    ) -> tuple[dict[str, tuple[float, int]], dict[str, str]]:
        """precision -> (ms, bytes of the file), and precision -> why it could not be measured. Raises InputError."""
        if (known := self.get(counted, precisions)) is not None:
            return known, {}
        self._note_load()
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
            torch.manual_seed(0)
            model, shape, outputs = builder.build(choice, shapes_only=False)
        result, reasons = self._measure(model.eval(), shape, outputs, precisions, choice.name)
        self._keep(counted.signature, result)
        self.measured += 1
        return result, reasons

    def _note_load(self) -> None:
        """Say once where the machine is busy: what is timed then takes longer than it does alone."""
        load = machine.busy_load(self.threads)
        if load is not None and not any(line.startswith(BUSY) for line in self.notes):
            self.notes.append(
                f"{BUSY} (a load of {load:.1f} on {text.counted(machine.usable_cores(), 'core')}): milliseconds are of a busy machine, and kept; on a "
                f"quiet one remove {NAME} from the user's cache and run the command again"
            )

    def most_macs(self, precision: str, ms: float) -> float:
        """Multiply-adds beyond which no network takes `ms` or less: GAIN times what the fastest of the DENSE layers compute."""
        return GAIN * ms * self._rate(precision)

    def _rate(self, precision: str) -> float:
        key = f"dense:{self._key('', precision)}"
        if key in self._unmeasured:
            return float("inf")
        if key not in self._known:
            rates = []
            for channels, kernel, layers, side in DENSE:
                parts = [nn.Conv2d(channels, channels, kernel, padding=kernel // 2) for _ in range(layers)]
                macs = layers * (channels * side * kernel) ** 2
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    network = nn.Sequential(*parts).eval()
                found, _ = self._measure(network, (1, channels, side, side), ("logits",), [precision], "dense layers")
                rates += [macs / ms for ms, _ in found.values()]
            if not rates:  # tried once, not for every network
                self._unmeasured.add(key)
                return float("inf")
            self._known[key] = min(999_999.0, max(rates) / 1e6)  # millions of multiply-adds in a millisecond
            self._write()
        return self._known[key] * 1e6

    def _measure(
        self, model: nn.Module, shape: tuple[int, ...], outputs: tuple[str, ...], precisions: Sequence[str], name: str
    ) -> tuple[dict[str, tuple[float, int]], dict[str, str]]:
        """The times of a network; where its recorded form is none that the runtime takes, of the form that a run is exported in."""
        result, reasons = self._measure_file(
            traced_onnx(model, (shape[2], shape[3]), shape[1], outputs), shape, outputs, precisions, name
        )
        if not result:
            file = to_onnx(model, (shape[2], shape[3]), shape[1], outputs)
            result, reasons = self._measure_file(file, shape, outputs, precisions, name)
        return result, reasons

    def _measure_file(
        self, data: bytes, shape: tuple[int, ...], outputs: tuple[str, ...], precisions: Sequence[str], name: str
    ) -> tuple[dict[str, tuple[float, int]], dict[str, str]]:
        calls: list[Any] = []
        sizes: dict[str, int] = {}
        reasons: dict[str, str] = {}
        image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        with tempfile.TemporaryDirectory(prefix="gossamer-pick-") as folder:
            for precision in precisions:
                try:
                    call, size = self._opened(data, outputs, shape, precision, Path(folder) / f"{precision}.goss", name)
                    call(image)
                except GossamerError as error:
                    reasons[precision] = str(error)
                    continue
                calls.append(partial(call, image))
                sizes[precision] = size
            times = in_turns(calls, SILENT, "", ROUNDS, SECONDS) if calls else []
        return {name: (ms, size) for (name, size), ms in zip(sizes.items(), times, strict=True)}, reasons

    def _opened(
        self, data: bytes, outputs: tuple[str, ...], shape: tuple[int, ...], precision: str, path: Path, name: str
    ) -> tuple[Any, int]:
        """What runs the network in a precision, and the bytes of its file."""
        if precision == "int8":
            data = _int8(data, outputs, shape, name)
        file = parse_model_file(data, name)
        if self.runtime != NATIVE:
            return open_model(file, self.runtime, self.threads).run, len(data)
        compiled = compile_bytes(file, "bfloat16" if precision == "bf16" else "float32")[0]
        path.write_bytes(compiled)
        return native.Native(path, self.threads), len(compiled) if precision == "bf16" else len(data)

    def _key(self, signature: str, precision: str) -> str:
        if not self._version:  # gossamer's: it fuses and quantises; of the engine the machine's key says it
            package = "gossamer" if self.runtime == NATIVE else RUNTIMES[self.runtime].package
            found = machine.versions({"gossamer", package})
            self._version = "-".join(found[one] or "" for one in dict.fromkeys([package, "gossamer"]))
        return f"{signature}:{precision}:{self.runtime}{self._version}"

    def _keep(self, signature: str, result: dict[str, tuple[float, int]]) -> None:
        for precision, (ms, size) in result.items():
            key = self._key(signature, precision)
            self._known[f"{key}:ms"], self._known[f"{key}:MB"] = float(ms), max(1e-6, size / 1e6)
        if result:
            self._write()

    def _write(self) -> None:
        if not self.keep:
            return
        known, _ = read_times(NAME)  # another process may have added to it
        line = keep_times(known, self._machine, {**known.get(self._machine, {}), **self._known}, NAME)
        if line and line not in self.notes:
            self.notes.append(line)


def _int8(data: bytes, outputs: tuple[str, ...], shape: tuple[int, ...], name: str) -> bytes:
    """The network in int8 (QDQ) with the ranges of noise: as fast as with those of images, but of no use."""
    graph = OnnxGraph(data, outputs, name)
    noise = np.random.default_rng(0).standard_normal((2, *shape[1:])).astype(np.float32)
    values = measure_ranges(graph, [noise])
    ranges = {key: (min(0.0, one.low), max(one.high, 1e-6)) for key, one in values.items()}
    return quantised_model(graph, QuantisationChoice(ranges))


def title_of(runtime: str) -> str:
    """What people call a runtime."""
    return RUNTIMES[runtime].title
