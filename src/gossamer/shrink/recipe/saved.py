"""What finished steps have left, checked as it is read: a damaged file is told before a number of it decides anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gossamer.errors import RunError
from gossamer.shrink.recipe.latency import NATIVE, ORT

Check = Callable[[Any], bool]
DO = "remove it: its step is done again"


def damaged(path: Path, problem: object, do: str = DO) -> RunError:
    """The error of a file that is not as it was written."""
    return RunError(f"{path}: is damaged: {problem}", "what gossamer shrink wrote", do)


def check_step(values: Mapping[str, Any], name: str, path: Path) -> None:
    """Raises RunError where the step `name` cannot have left these values in the file `path`."""
    wrong = _wrong(values, {"seconds": _duration, **({} if name == "float" else {"what": _text})})
    if not wrong and "error" in values:
        # the first one is kept only where it succeeded
        wrong = "error" if name == "float" else _wrong(values, {"error": _text})
    elif not wrong:
        wrong = _wrong(values, _expected(name))
        if "quantised" in values:
            wrong = wrong or _wrong(values, {"quantised": _object(QUANTISED)})
    if wrong:
        raise damaged(path, f"{wrong} is missing or of another type")


def check_file(values: Mapping[str, Any], digest: str, path: Path, step: Path) -> None:
    """Raises RunError where the file of a candidate is no longer the one that was measured. digest: its SHA-256.

    step: the file of its step; those of versions that did not keep the digest are taken as they are.
    """
    if values.get("sha256", digest) != digest:
        raise damaged(path, "not the file that was measured", f"restore it, or remove {step}: its step is done again")


def _expected(name: str) -> dict[str, Check]:
    """What the values of a step hold, by the last word of its name."""
    scores = _values(_number_or_none)
    kinds: dict[str, dict[str, Check]] = {
        "choose": {"changes": _text, "widths": _list(_width), "dropped": _list(_text), "staircase": _list(_stairs)},
        "width": {"width": _positive},
        "train": {"run": _text},
        "decompose": {"run": _text_or_none, "accepted": _count, "tried": _list(_object(TRIED)), "before": _duration},
        "measure": {"ms": scores},
        "test": {"before": scores, "after": scores, "drop": _drop},
        "layers": {"quantised": _object(QUANTISED)},
    }
    kind = name.rpartition("-")[2]
    if kind in kinds:
        return kinds[kind]
    own: dict[str, Check] = {"candidate": _candidate, "outcome": _outcome}
    return {**own, "runtime": _runtime, "note": _text} if name == "float" else own


def _wrong(values: Mapping[str, Any], checks: Mapping[str, Check]) -> str:
    """The first entry that is not as it should be, "" where all are."""
    for name, check in checks.items():
        if name not in values and name in LATER:
            continue
        if name not in values or not check(values[name]):
            return name
    return ""


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _text_or_none(value: Any) -> bool:
    return value is None or _text(value)


def _whole(value: Any) -> bool:
    return type(value) is int


def _count(value: Any) -> bool:
    return _whole(value) and 0 <= value < 1 << 60


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300


def _number_or_none(value: Any) -> bool:
    return value is None or _number(value)  # JSON has no NaN and no infinity: they come back as null


def _duration(value: Any) -> bool:
    return _number(value) and value >= 0


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _positive_or_none(value: Any) -> bool:
    return value is None or _positive(value)


def _runtime(value: Any) -> bool:
    return value in (NATIVE, ORT)


def _list(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _values(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _object(checks: Mapping[str, Check]) -> Check:
    return lambda value: isinstance(value, dict) and not _wrong(value, checks)


def _three(value: Any) -> bool:
    return _list(_positive)(value) and len(value) == 3


def _width(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and _text(value[0]) and all(map(_count, value[1:]))


def _stairs(value: Any) -> bool:
    return _object(STAIRS)(value) and len(value["channels"]) == len(value["ms"]) > 0


def _two_times(value: Any) -> bool:
    return value is None or (_list(_positive)(value) and len(value) == 2)


def _drop(value: Any) -> bool:
    return _list(_number_or_none)(value) and len(value) == 3


def _candidate(value: Any) -> bool:
    # a name of the file that is not the candidate's own could lead anywhere
    return _object(CANDIDATE)(value) and value["file"] == f"{value['name']}.onnx" and "/" not in value["name"]


def _outcome(value: Any) -> bool:
    if not _object(OUTCOME)(value) or set(value) != set(OUTCOME) or value["score"] not in value["metrics"]:
        return False
    return len(value["names"]) == len(value["predicted"]) == len(value["targets"])


# the fields of Candidate, Outcome, LayerNoise and ChannelRanges; a test holds them equal
CANDIDATE: dict[str, Check] = {
    **dict.fromkeys(("name", "file", "step", "precision", "run"), _text),
    "runtime": _runtime,
    "ms": _positive_or_none,
    "bytes": _count,
    **dict.fromkeys(("score", "drop", "drop_low", "drop_high"), _number_or_none),
    "notes": _list(_text),
}
OUTCOME: dict[str, Check] = {
    "score": _text,
    "images": _count,
    "metrics": _values(_number_or_none),
    "names": _list(_text),
    "predicted": _list(_count),
    "targets": _list(_count),
    "replicates": _list(_number_or_none),
}
LAYER: dict[str, Check] = {
    **dict.fromkeys(("name", "op", "precision"), _text),
    **dict.fromkeys(("alone", "share", "float_ms", "int8_ms", "regained", "extra_ms"), _number_or_none),
}
LATER = ("regained", "extra_ms", "dropped")  # fields that folders of earlier versions lack
RANGES: dict[str, Check] = {"name": _text, "channels": _count, "before": _three, "after": _three}
QUANTISED: dict[str, Check] = {
    "decibels": _number_or_none,
    "float_layers": _list(_text),
    "layers": _list(_object(LAYER)),
    "ranges": _list(_object(RANGES)),
    "steps": _list(_text),
}
TRIED: dict[str, Check] = {
    **dict.fromkeys(("layer", "method", "verdict"), _text),
    "ranks": _list(_count),
    "ms": _two_times,
}
STAIRS: dict[str, Check] = {
    "layer": _text,
    "channels": _list(_count),
    "ms": _list(_number),
    "chosen": _count,
}
