"""What finished steps have left, checked as it is read: a damaged file is told before a number of it decides anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gossamer.networks.registry import NETWORKS
from gossamer.selection.budget import PRECISIONS, Use, is_finite
from gossamer.selection.finalists import SUFFIXES, FinalFile
from gossamer.selection.search import Dropped, Fit, dropped_of, fit_of


def wrong_with(values: Mapping[str, Any], step: str, first: str) -> str:
    """What a step cannot have left, "" where it may be its result. first: the name of the first step."""
    try:
        _check(is_finite(values["seconds"]) and values["seconds"] >= 0, "seconds")
        if step != first:
            _check(isinstance(values["what"], str), "what")
        if "error" in values and step != first:  # the first one is kept only where it succeeded
            _check(isinstance(values["error"], str), "error")
            return ""
        kind = step.partition("-")[0]
        KINDS.get(kind, _nothing)(values)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        what = error.args[0] if error.args else type(error).__name__
        return f"{what} is missing or of another type"
    return ""


def _check(sound: bool, name: str) -> None:
    if not sound:
        raise ValueError(name)


def _nothing(values: Mapping[str, Any]) -> None:
    raise ValueError("a step of this name")


def _networks(values: Mapping[str, Any]) -> None:
    fits = [fit_of(one) for one in values["fits"]]
    _check(bool(fits) and all(map(_is_fit, fits)), "fits")
    _check(all(_is_dropped(dropped_of(one)) for one in values["dropped"]), "dropped")
    _check(_texts(values["notes"]), "notes")


def _rungs(values: Mapping[str, Any]) -> None:
    counts, fractions = values["counts"], values["fractions"]
    _check(bool(counts) and all(type(one) is int and one > 0 for one in counts) and counts[-1] == 1, "counts")
    sound = len(fractions) == len(counts) and all(is_finite(one) and 0 < one <= 1 for one in fractions)
    _check(sound and list(fractions) == sorted(fractions), "fractions")
    _check(is_finite(values["schedule"]) and values["schedule"] > 0, "schedule")


def _rung(values: Mapping[str, Any]) -> None:
    _check(values["score"] is None or is_finite(values["score"]), "score")


def _files(values: Mapping[str, Any]) -> None:
    _check(all(map(is_final, values["files"])), "files")
    _check(isinstance(values["reasons"], dict) and _texts([*values["reasons"], *values["reasons"].values()]), "reasons")


def _test(values: Mapping[str, Any]) -> None:
    _check(type(values["images"]) is int, "images")
    _check(all(one is None or is_finite(one) for one in values["metrics"].values()), "metrics")


# the first word of a step's name -> what its values hold
KINDS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "networks": _networks, "rungs": _rungs, "rung": _rung, "files": _files, "test": _test,
}  # fmt: skip


def is_final(values: Mapping[str, Any]) -> bool:
    """Whether these are the values of a `FinalFile` with its digest."""
    own = {name: value for name, value in values.items() if name != "sha256"}
    one = FinalFile(**{**own, "use": Use(**own["use"])})
    named = _texts([one.network, one.precision, one.run, one.over, values["sha256"]]) and one.precision in SUFFIXES
    # a name of the file that is not the network's own could lead anywhere
    own_name = f"{one.network}-{one.precision}{SUFFIXES.get(one.precision, '')}"
    sound = named and one.file == own_name and "/" not in own_name and _is_use(one.use) and type(one.images) is int
    return sound and (one.score is None or is_finite(one.score)) and isinstance(one.metrics, dict)


def _is_fit(one: Fit) -> bool:
    choice = one.choice
    sized = len(choice.size) == 2 and all(type(side) is int and side > 0 for side in choice.size)
    named = isinstance(choice.net, str) and choice.net in NETWORKS and type(choice.channels) is int
    sound = sized and named and (choice.width is None or (is_finite(choice.width) and choice.width > 0))
    uses = bool(one.uses) and set(one.uses) <= set(PRECISIONS) and all(map(_is_use, one.uses.values()))
    return sound and uses and is_finite(one.expected) and type(one.macs) is int and type(one.params) is int


def _is_dropped(one: Dropped) -> bool:
    return _texts([one.name, one.precision, one.reason]) and (one.use is None or _is_use(one.use))


def _is_use(one: Use) -> bool:
    return all(is_finite(value) and value >= 0 for value in (one.ms, one.bytes, one.memory))


def _texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(one, str) for one in values)
