"""The native engine: a compiled network (.goss) run by the library that `make engine` builds, called with ctypes.

ctypes releases the GIL while the engine runs. A session is for one caller at a time, so callers on
several threads take turns, each with a session of its own; the weights are in memory once.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import InputError, MissingPackageError, ModelFileError
from gossamer.host.machine import usable_cores
from gossamer.modelfile.metadata import ModelFile, ModelMetadata, rule_error
from gossamer.predictions.head import Raw, raw_of
from gossamer.runtime.interface import Batch, Shape, noise
from gossamer.runtime.steps import Step, read_steps

NATIVE_BFLOAT16 = ("avx512_bf16", "amx")  # instruction sets whose products are of bfloat16; the others convert
LIBRARY = Path(__file__).with_name("libgossamer.so")
FIRST, LAST = 3, 15  # the engine's code of rule N1, less one, and of the last rule
NAN = 17  # of an input with NaN for a network that computes in uint8
INPUT, INPUT_RULE = 18, 13  # the code and the number of the rule on inputs
RULES = {
    1: "a compiled network",
    2: "version 3, 4 or 5",
    3: "a complete file",
    4: "an undamaged file",
}

_library: Any = None
_lock = threading.Lock()


def _after_fork() -> None:
    """In a child: another thread of the parent may have held the lock, and does not exist here to release it."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def library() -> Any:
    """The engine, loaded once. Raises MissingPackageError where it was not built."""
    global _library
    with _lock:
        if _library is None:
            if not LIBRARY.is_file():
                raise _missing("the native engine")
            try:
                loaded = ctypes.CDLL(str(LIBRARY))
            except OSError as error:
                raise _missing(f"the native engine ({error})") from error
            pointer, pointer_to = ctypes.c_void_p, ctypes.POINTER
            loaded.gossamer_error_text.restype = ctypes.c_char_p
            loaded.gossamer_open.argtypes = [ctypes.c_char_p, pointer_to(pointer)]
            for part in ("input", "output"):
                getattr(loaded, f"gossamer_{part}_count").argtypes = [pointer, pointer_to(ctypes.c_int32)]
                getattr(loaded, f"gossamer_{part}").argtypes = [
                    pointer,
                    ctypes.c_int32,
                    pointer_to(ctypes.c_char_p),
                    pointer_to(ctypes.c_int32),
                    pointer_to(ctypes.c_int32),
                    pointer_to(ctypes.c_int64),
                ]
            loaded.gossamer_metadata.argtypes = [pointer, pointer_to(pointer), pointer_to(ctypes.c_size_t)]
            loaded.gossamer_records.argtypes = [pointer, pointer_to(pointer), pointer_to(ctypes.c_size_t)]
            loaded.gossamer_session_open.argtypes = [pointer, ctypes.c_int, pointer_to(pointer)]
            loaded.gossamer_session_isa.argtypes = [pointer]
            loaded.gossamer_session_isa.restype = ctypes.c_char_p
            loaded.gossamer_run.argtypes = [pointer, pointer, ctypes.c_int64, pointer]
            loaded.gossamer_profile.argtypes = [pointer, pointer, ctypes.c_int64, pointer, pointer]
            loaded.gossamer_winograd_tile.argtypes = [pointer, ctypes.c_int32, pointer_to(ctypes.c_int32)]
            loaded.gossamer_kernels.argtypes = [pointer, ctypes.c_int32, ctypes.c_char_p, ctypes.c_size_t]
            loaded.gossamer_session_close.argtypes = [pointer]
            loaded.gossamer_session_close.restype = None
            loaded.gossamer_close.argtypes = [pointer]
            loaded.gossamer_close.restype = None
            _library = loaded
    return _library


def _missing(what: str) -> MissingPackageError:
    do = "install a C++17 compiler, then run `make engine` in a clone, or install gossamer again from its source"
    return MissingPackageError(what, "", "running a compiled network", do)


@dataclass(frozen=True)
class EngineArray:
    """An input or output of a compiled network: its name, its shape behind the batch, where among an image's numbers it begins."""

    name: str
    shape: tuple[int, ...]
    first: int

    @property
    def end(self) -> int:
        """Behind its last number."""
        return self.first + math.prod(self.shape)

    def of(self, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
        """The output (N, ...) among all numbers (N, total)."""
        part = numbers[:, self.first : self.end]
        return np.ascontiguousarray(part).reshape(len(numbers), *self.shape)


class Native:
    """A compiled network, open: batch float32 (N, ...) -> (N, ...), or a dict of such by name where there are several.

    input_shape: (None, C, H, W), or what the ONNX file has in its place, such as (None, H, W, C); () where there are several inputs.
    input_shapes: of each input by its name, which is "" for an only one.
    metadata: what belongs to it, or None. isa: the instruction set in use: portable, avx2 or avx512. outputs: in order.
    The file is read once: what it becomes afterwards changes nothing. NaN in the input is NaN in the outputs that depend on
    it; a network that computes in uint8, which has no NaN, raises InputError for it. A child of a fork may use it.
    Raises ModelFileError for a file that breaks a rule, MissingPackageError.
    """

    version = "1"

    def __init__(self, path: str | os.PathLike[str], threads: int = 0) -> None:
        self.path, self.threads = os.fspath(path), threads or usable_cores()
        self._engine = library()
        self._model = ctypes.c_void_p()
        self._free: list[ctypes.c_void_p] = []
        self._lock, self._process = threading.Lock(), os.getpid()
        self._check(self._engine.gossamer_open(os.fsencode(self.path), ctypes.byref(self._model)))
        self._inputs, self.outputs = self._arrays("input"), self._arrays("output")
        several = len(self._inputs) > 1
        self.input_shape: tuple[Any, ...] = () if several else (None, *self._inputs[0].shape)
        self.numbers = self.outputs[-1].end  # of all outputs of an image
        self.metadata = self._metadata()
        alone = {"": self.input_shape}
        self.input_shapes: dict[str, Shape] = (
            {one.name: (None, *one.shape) for one in self._inputs} if several else alone
        )
        with self._session() as session:
            self.isa = self._engine.gossamer_session_isa(session).decode()

    def __call__(self, batch: NDArray[np.float32]) -> Raw:
        return self._run(self._checked(batch, "", self.input_shape[1:]))

    def run_inputs(self, batch: Mapping[str, NDArray[np.float32]]) -> Raw:
        """As a call, with each of several inputs by its name."""
        if len(self._inputs) == 1:
            return self(next(iter(batch.values())))
        rows = [self._checked(batch[one.name], f" {one.name!r}", one.shape) for one in self._inputs]
        return self._run(np.concatenate([row.reshape(len(row), -1) for row in rows], axis=1))

    def run(self, batch: Batch) -> Raw:
        """A call, or `run_inputs` of several."""
        return self.run_inputs(batch) if isinstance(batch, Mapping) else self(batch)

    def _checked(self, array: NDArray[np.float32], name: str, shape: tuple[Any, ...]) -> NDArray[np.float32]:
        if array.dtype != np.float32 or array.shape[1:] != shape or len(self._inputs) > 1 > len(name):
            shown = ", ".join(f"{one.name!r} {one.shape}" for one in self._inputs) if len(self._inputs) > 1 else shape
            raise InputError(
                f"{self.path}: an input{name} of {array.dtype} {array.shape}", f"float32 (any, {shown})", "convert"
            )
        return array

    def _run(self, batch: NDArray[np.float32]) -> Raw:
        batch = np.ascontiguousarray(batch)
        out = np.empty((len(batch), self.numbers), np.float32)
        with self._session() as session:
            self._check(self._engine.gossamer_run(session, batch.ctypes.data, len(batch), out.ctypes.data))
        return raw_of([output.name for output in self.outputs], [output.of(out) for output in self.outputs])

    def steps(self) -> list[Step]:
        """Each operation, with the Winograd tile by which the engine computes it."""
        records, size, tile = ctypes.c_void_p(), ctypes.c_size_t(), (ctypes.c_int32 * 2)()
        self._check(self._engine.gossamer_records(self._model, ctypes.byref(records), ctypes.byref(size)))
        steps = read_steps(memoryview((ctypes.c_uint8 * size.value).from_address(records.value or 0)))
        for number, step in enumerate(steps):
            self._check(self._engine.gossamer_winograd_tile(self._model, number, tile))
            step.winograd_tile = (tile[0], tile[1])
        return steps

    def kernels(self, operation: int | None = None) -> list[str]:
        """The names of the kernels that run an operation, or of all that the instruction set has; "reference" for plain loops.

        They are the rows of the engine's table, from which it chooses: what the tests must cover.
        """
        names = ctypes.create_string_buffer(4096)
        number = -1 if operation is None else operation
        self._check(self._engine.gossamer_kernels(self._model, number, names, len(names)))
        return names.value.decode().splitlines()

    def profile(self, runs: int = 50) -> list[Step]:
        """Each operation with the milliseconds that it takes, the mean of `runs` images of noise behind ten to warm up.

        Raises InputError for fewer than one run.
        """
        if runs < 1:
            raise InputError(f"{runs} runs", "at least 1", "give such a number")
        steps = self.steps()
        given = noise(self.input_shapes, 1)
        arrays = list(given.values()) if isinstance(given, Mapping) else [given]
        image = np.concatenate([array.reshape(-1) for array in arrays])
        out, times = np.empty((1, self.numbers), np.float32), np.zeros(len(steps), np.int64)
        with self._session() as session:
            for run in range(-10, runs):
                if run == 0:
                    times[:] = 0
                call = (session, image.ctypes.data, 1, out.ctypes.data, times.ctypes.data)
                self._check(self._engine.gossamer_profile(*call))
        for step, spent in zip(steps, times):
            step.ms = float(spent) / runs / 1e6
        return steps

    def close(self) -> None:
        """Give back memory and threads."""
        while self._free:
            self._engine.gossamer_session_close(self._free.pop())
        if self._model:
            self._engine.gossamer_close(self._model)
            self._model = ctypes.c_void_p()

    def __del__(self) -> None:
        if getattr(self, "_engine", None) is not None:
            self.close()

    @contextmanager
    def _session(self) -> Iterator[ctypes.c_void_p]:
        """A session that no other caller uses."""
        if self._process != os.getpid():  # a child of a fork: see _after_fork
            self._lock, self._process = threading.Lock(), os.getpid()
        with self._lock:
            session = self._free.pop() if self._free else None
        if session is None:
            session = ctypes.c_void_p()
            self._check(self._engine.gossamer_session_open(self._model, self.threads, ctypes.byref(session)))
        try:
            yield session
        finally:
            with self._lock:
                self._free.append(session)

    def _arrays(self, part: str) -> tuple[EngineArray, ...]:
        """The inputs or the outputs."""
        count, name, rank = ctypes.c_int32(), ctypes.c_char_p(), ctypes.c_int32()
        sides, first, arrays = (ctypes.c_int32 * 4)(), ctypes.c_int64(), []
        self._check(getattr(self._engine, f"gossamer_{part}_count")(self._model, ctypes.byref(count)))
        for index in range(count.value):
            to = (ctypes.byref(name), ctypes.byref(rank), sides, ctypes.byref(first))
            self._check(getattr(self._engine, f"gossamer_{part}")(self._model, index, *to))
            shown = (name.value or b"").decode("utf-8", "replace")
            arrays.append(EngineArray(shown, tuple(sides[: rank.value]), first.value))
        if len({one.name for one in arrays}) < len(arrays):
            rule = INPUT_RULE if part == "input" else 11
            raise ModelFileError(rule, f"{self.path}: two {part}s of one name", "different names", "compile it again")
        return tuple(arrays)

    def _metadata(self) -> ModelMetadata | None:
        text, size = ctypes.c_void_p(), ctypes.c_size_t()
        self._check(self._engine.gossamer_metadata(self._model, ctypes.byref(text), ctypes.byref(size)))
        try:
            values = json.loads(ctypes.string_at(text, size.value).decode("utf-8")) if size.value else None
            if isinstance(values, dict) and values.keys() == {"input"}:
                self.input_shape = (None, *self._stated_shape(values["input"]))
                return None
            if values is not None and len(self._inputs) > 1:
                raise ValueError(f"of images, for {len(self._inputs)} inputs")
            return None if values is None else ModelMetadata.from_json(values)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ModelFileError(
                11, f"{self.path}: its metadata: {error}", "the metadata of an ONNX file", "compile it again"
            ) from error

    def _stated_shape(self, sides: Any) -> tuple[int, ...]:
        """The shape of an input that is not channels, height, width. Raises ValueError for one of other numbers."""
        fits = (
            len(self._inputs) == 1
            and isinstance(sides, list)
            and 1 <= len(sides) <= 3
            and all(type(one) is int and one > 0 for one in sides)
        )
        if not fits or math.prod(sides) != math.prod(one for one in self.input_shape if one is not None):
            raise ValueError(f"an input of {str(sides)[:60]} for a map of {self.input_shape[1:]}")
        return tuple(sides)

    def _check(self, code: int) -> None:
        if code == 0:
            return
        message, rule = self._engine.gossamer_error_text(code).decode(), max(0, code - FIRST)
        if code == NAN:
            do = "leave out or repair what the input was computed from, or compile the network in float32 or bfloat16"
            raise InputError(f"{self.path}: {message}", "numbers and infinities", do)
        if code == INPUT:
            rule = INPUT_RULE
        elif code > LAST:  # nothing is wrong with the file
            allowed = "an instruction set that this machine has"
            raise InputError(message, allowed, "unset GOSSAMER_ISA, or name another")
        raise ModelFileError(
            rule, f"{self.path}: {message}", RULES.get(rule, "a file made by `gossamer compile`"), "compile it again"
        )


class OnTheFly:
    """An ONNX file on the native engine, compiled as it is loaded."""

    def __init__(self, file: ModelFile, threads: int = 0) -> None:
        """Raises MissingPackageError, ModelFileError (rule 8) where the engine lacks an operator."""
        from gossamer.compile.write import compile_bytes

        library()  # before the work
        try:
            data, _ = compile_bytes(file, "float32")
        except InputError as error:
            raise rule_error(8, f"{file.path}: {error.given}") from error
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.goss"
            path.write_bytes(data)
            self.engine = Native(path, threads)
        self.version, self.isa, self.threads = self.engine.version, self.engine.isa, self.engine.threads

    @staticmethod
    def import_package() -> None:
        """Nothing: the library is loaded with the first file."""

    def __call__(self, batch: NDArray[np.float32]) -> Raw:
        """batch (N, C, H, W) -> (N, ...), or a dict of such by name where there are several outputs."""
        return self.engine(batch)

    def run_inputs(self, batch: Mapping[str, NDArray[np.float32]]) -> Raw:
        """As a call, with each input by its name."""
        return self.engine.run_inputs(batch)
