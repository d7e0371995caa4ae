"""The choice of precision, memory format and threads: bounded in time, remembered, and right where it is remembered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gossamer
from gossamer.host import machine
from gossamer.settings import Settings
from gossamer.settings.rates import resolve_optimizer
from gossamer.training import precision, precision_cache
from gossamer.training.optim import build_optimizer
from gossamer.training.precision import PrecisionCandidate
from tests.test_trainer import Messages, small

CPU = torch.device("cpu")
AUTO = {"precision": "auto", "memory_format": "auto", "threads": 0}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of kept choices, in a folder of this test; two threads, whatever the machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield tmp_path / "cache" / "gossamer" / "precision.json"
    torch.set_num_threads(threads)


def spin(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


class Slow(nn.Module):
    """Ten layers, each of which sleeps, or waits otherwise, where `slow` says so."""

    def __init__(
        self, slow: Callable[[Tensor], bool], seconds: float, wait: Callable[[float], None] = time.sleep
    ) -> None:
        super().__init__()

        class Layer(nn.Conv2d):
            def forward(self, input: Tensor) -> Tensor:
                if slow(input):
                    wait(seconds)
                return super().forward(input)

        self.layers = nn.Sequential(*(Layer(4, 4, 1) for _ in range(10)))

    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = self.layers(input).mean((2, 3))
        return result


def choose(
    model: nn.Module, images: int = 8, settings: Settings | None = None, **options: Any
) -> precision.PrecisionChoice:
    return precision.choose_precision(
        settings or Settings(**AUTO),
        model,
        torch.randn(images, 4, 8, 8),
        torch.zeros(images, dtype=torch.long),
        lambda outputs, targets, _: nn.functional.cross_entropy(outputs, targets, reduction="none"),
        lambda trial: build_optimizer(trial, resolve_optimizer(Settings())),
        **options,
    )


def two_threads(_: Tensor) -> bool:
    return torch.get_num_threads() == 2


def channels_last(images: Tensor) -> bool:
    return not images.is_contiguous() and images.shape[2] > 1


@pytest.mark.parametrize("seconds", [0.02, 0.5])
def test_one_thread_is_chosen_where_threads_stall(seconds: float) -> None:
    """As on a busy machine; half a second a layer is a step that would not end in time, so it is given up."""
    begun = time.monotonic()
    choice = choose(Slow(two_threads, seconds), limit=1.0)
    assert choice.candidate.threads == 1
    assert time.monotonic() - begun < 4  # a step of the ten layers takes 5 s
    assert torch.get_num_threads() == 2  # as it was


@pytest.mark.parametrize(("busy", "threads"), [(False, 2), (True, 1)])
def test_a_network_too_slow_to_time_gets_the_usual_choice_in_time(
    busy: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All threads, but where the machine is busy with other work: threads that wait for one another would stall."""
    monkeypatch.setattr(precision, "_others_work", lambda wall, used: busy)
    begun = time.monotonic()
    choice = choose(Slow(lambda _: True, 0.5), limit=0.3)
    assert choice.candidate == PrecisionCandidate("float32", "channels_last", threads)
    assert time.monotonic() - begun < 4
    assert "no time to try" in str(choice) and not choice.complete


def test_other_work_is_told_by_the_processor_time_of_a_step() -> None:
    assert precision._others_work(4.0, 1.0) and not precision._others_work(4.0, 3.9)


@pytest.mark.parametrize(
    "slow, expected", [(channels_last, "channels_first"), (lambda x: not channels_last(x), "channels_last")]
)
def test_the_faster_memory_format_is_chosen(slow: Callable[[Tensor], bool], expected: str) -> None:
    settings = Settings(precision="float32", memory_format="auto", threads=1)
    torch.set_num_threads(1)
    # a limit that a busy machine does not reach
    assert choose(Slow(slow, 0.02, spin), settings=settings, limit=60.0).candidate.memory_format == expected


class Costs(nn.Module):
    """A layer that takes seconds by its number of images and by whether they are channels last; `wait` is how they pass."""

    def __init__(self, seconds: Callable[[int, bool], float], wait: Callable[[float], None] = time.sleep) -> None:
        super().__init__()

        class Layer(nn.Conv2d):
            def forward(self, input: Tensor) -> Tensor:
                wait(seconds(len(input), channels_last(input)))
                return super().forward(input)

        self.layer = Layer(4, 4, 1)

    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = self.layer(input).mean((2, 3))
        return result


def test_a_step_of_all_images_is_compared_and_not_one_of_few() -> None:
    """channels_last costs 50 ms a step and 1 ms an image here, channels_first 8 ms an image: less below eight images."""
    settings = Settings(precision="float32", memory_format="auto", threads=1)
    torch.set_num_threads(1)
    costs = Costs(lambda images, last: 0.05 + 0.001 * images if last else 0.008 * images, spin)
    choice = choose(costs, images=64, settings=settings, limit=60.0)
    assert choice.candidate.memory_format == "channels_last"
    assert len(choice.timed) == 2 and choice.timed[1] < 64
    assert "a step of 64 images takes about" in str(choice) and f"by steps of 2 and {choice.timed[1]}" in str(choice)


def test_other_work_does_not_count_where_one_thread_computes() -> None:
    """As long as the core is another process's, here asleep, the step takes no time of it."""
    settings = Settings(precision="float32", memory_format="auto", threads=1)
    torch.set_num_threads(1)
    choice = choose(Costs(lambda images, last: 0.2 if last else 0.3), settings=settings, limit=60.0)
    assert len(choice.seconds) == 2 and max(choice.seconds.values()) < 0.1


def test_one_thread_is_compared_by_its_processor_time() -> None:
    settings = Settings(precision="float32", memory_format="auto", threads=1)
    torch.set_num_threads(1)
    choice = choose(Costs(lambda images, last: 0.06 if last else 0.02, spin), settings=settings, limit=60.0)
    assert choice.candidate.memory_format == "channels_first"


@pytest.mark.parametrize(
    "counts, seconds, every, expected",
    [
        ((2, 8), (0.05, 0.08), 64, 0.36),
        ((2, 8), (0.08, 0.05), 64, 0.05),
        ((2,), (0.5,), 8, 2.0),
        ((8,), (0.5,), 8, 0.5),
    ],
)
def test_a_step_of_all_images_is_on_the_line_through_two(
    counts: tuple[int, ...], seconds: tuple[float, ...], every: int, expected: float
) -> None:
    assert precision.on_line(counts, seconds, every) == pytest.approx(expected)


def test_only_a_choice_that_other_work_did_not_cut_short_is_kept() -> None:
    best = PrecisionCandidate("float32", "channels_last", 1)
    assert precision.PrecisionChoice(best, {}, untried=(best._replace(threads=2),)).complete
    assert not precision.PrecisionChoice(best, {}, untried=(best._replace(memory_format="channels_first"),)).complete
    assert not precision.PrecisionChoice(best, {}, untried=(best._replace(precision="bf16"),)).complete


def test_what_is_set_is_not_tried() -> None:
    settings = Settings(precision="auto", memory_format="channels_first", threads=2)
    choice = choose(Slow(lambda _: False, 0), settings=settings, known=None)
    assert choice.candidate.memory_format == "channels_first"
    assert not [name for name in choice.seconds if "channels_last" in name]


def test_what_is_known_is_not_timed_but_the_threads_are() -> None:
    choice = choose(Slow(two_threads, 0.02), known=("float32", "channels_first"), limit=60.0)
    assert choice.candidate == PrecisionCandidate("float32", "channels_first", 1)
    assert len(choice.seconds) == 2


def test_the_network_is_not_touched() -> None:
    model = Slow(lambda _: False, 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    choose(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


def test_bf16_is_tried_only_where_the_processor_has_instructions_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "computes_bf16", lambda device: True)
    for isa, expected in ((["avx2", "avx512f"], False), (["avx512f", "avx512_bf16"], True), (["amx_bf16"], True)):
        monkeypatch.setattr(machine, "describe_machine", lambda isa=isa: {"isa": isa})
        assert precision.pays_bf16(CPU) == expected
    monkeypatch.setattr(precision, "computes_bf16", lambda device: False)
    assert not precision.pays_bf16(CPU)


def key(model: nn.Module | None = None, images: int = 8, **settings: Any) -> str:
    torch.manual_seed(0)
    return precision_cache.key(
        Settings(**{**AUTO, **settings}), model or nn.Conv2d(3, 4, 3), torch.zeros(images, 3, 8, 8)
    )


def test_the_key_changes_with_all_that_decides_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [
        key(),
        key(nn.Conv2d(3, 4, 3, stride=2)),
        key(nn.Conv2d(3, 5, 3)),
        key(images=4),
        key(memory_format="channels_first"),
        key(optimizer="adamw"),
    ]
    torch.set_num_threads(1)
    keys.append(key())
    torch.set_num_threads(2)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    keys.append(key())
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    here = machine.describe_machine()
    for change in (
        {"cpu": "another"},
        {"isa": ["sse4_2"]},
        {"cores": 64},
        {"versions": {**here["versions"], "torch": "9.9"}},
        {"versions": {**here["versions"], "gossamer": "9.9"}},
    ):
        monkeypatch.setattr(machine, "describe_machine", lambda change=change: {**here, **change})
        keys.append(key())
    monkeypatch.setattr(machine, "describe_machine", lambda: here)
    assert key() == keys[0]
    assert len(set(keys)) == len(keys)


def test_a_choice_is_kept_under_xdg_cache_home_and_recalled(cache: Path) -> None:
    settings, images = Settings(**AUTO), torch.zeros(2, 3, 8, 8)
    assert precision_cache.recall("a", settings, images) == (None, "")
    assert precision_cache.keep("a", "float32", "channels_first") == ""
    assert cache.is_file()
    assert precision_cache.recall("a", settings, images) == (("float32", "channels_first"), "")
    assert precision_cache.recall("b", settings, images) == (None, "")


def test_the_file_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(precision_cache, "MOST", 3)
    for name in "abcda":
        precision_cache.keep(name, "float32", "channels_last")
    assert list(json.loads(cache.read_text())["entries"]) == ["c", "d", "a"]


DAMAGED = {
    "empty": "",
    "not JSON": "{",
    "a list": "[]",
    "deep": "[" * 100_000,
    "another format": '{"format": 9, "entries": {}}',
    "no entries": '{"format": 1}',
    "entries as a list": '{"format": 1, "entries": ["a"]}',
    "a number for a precision": '{"format": 1, "entries": {"a": [1, "channels_last"]}}',
    "one word": '{"format": 1, "entries": {"a": ["float32"]}}',
    "an unknown precision": '{"format": 1, "entries": {"a": ["fp8", "channels_last"]}}',
    "an unknown format": '{"format": 1, "entries": {"a": ["float32", "upside_down"]}}',
    "not UTF-8": b"\xff\xfe",
    "large": " " * ((1 << 20) + 1),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_ignored_reported_and_replaced(what: str, cache: Path) -> None:
    content = DAMAGED[what]
    cache.parent.mkdir(parents=True)
    cache.write_bytes(content if isinstance(content, bytes) else content.encode())
    known, line = precision_cache.recall("a", Settings(**AUTO), torch.zeros(2, 3, 8, 8))
    assert known is None and "ignored" in line and str(cache) in line and "\n" not in line
    assert precision_cache.keep("a", "float32", "channels_last") == ""
    assert precision_cache.recall("a", Settings(**AUTO), torch.zeros(2, 3, 8, 8))[0] == ("float32", "channels_last")


def test_an_entry_that_the_settings_do_not_leave_open_is_not_used(cache: Path) -> None:
    precision_cache.keep("a", "float32", "channels_last")
    settings = Settings(**{**AUTO, "memory_format": "channels_first"})
    known, line = precision_cache.recall("a", settings, torch.zeros(2, 3, 8, 8))
    assert known is None and line


def test_a_folder_that_cannot_be_written_is_reported(cache: Path) -> None:
    cache.parent.parent.write_text("a file where the folder should be")
    line = precision_cache.keep("a", "float32", "channels_last")
    assert "again next time" in line and "\n" not in line
    assert precision_cache.recall("a", Settings(**AUTO), torch.zeros(2, 3, 8, 8))[0] is None


def test_a_training_says_what_it_chose_and_the_next_one_does_not_time_it_again(
    image_folder: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "LIMIT", 60.0)  # so that all is compared, on a busy machine too
    first, second = Messages(), Messages()
    options = {**AUTO, "epochs": 0.3, "width": 0.1}
    run = gossamer.train(small(image_folder, tmp_path / "a", **options), progress=first)
    assert cache.is_file()
    gossamer.train(small(image_folder, tmp_path / "b", **options), progress=second)
    assert any(line.startswith("timing a few steps") for line in first.lines + second.lines)
    (chosen,) = [line for line in first.lines if line.startswith("precision ")]
    assert "earlier run" not in chosen
    (chosen,) = [line for line in second.lines if line.startswith("precision ")]
    assert "earlier run" in chosen
    assert run.settings.precision == "float32" or precision.pays_bf16(CPU)
    assert "auto" not in (run.settings.precision, run.settings.memory_format) and run.settings.threads in (1, 2)


def test_a_home_that_is_not_there_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(precision_cache, "user_cache", none)
    assert precision_cache.recall("a", Settings(**AUTO), torch.zeros(2, 3, 8, 8))[0] is None
    assert "again next time" in precision_cache.keep("a", "float32", "channels_last")
