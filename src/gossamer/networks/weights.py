"""Weights into a network, by our names, torchvision's or timm's."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gossamer.blocks.norm import set_norm_eps
from gossamer.errors import WeightsError
from gossamer.host.text import counted
from gossamer.networks.base import Backbone, KeyMapping
from gossamer.networks.checkpoint import read_tensors

Shape = tuple[int, ...]

CLASSIFIER = "head.classifier."
OURS = KeyMapping("gossamer", ())


@dataclass(frozen=True)
class Difference:
    """Which tensors a weights file and a network do not share; `str` lists it, `+` for the file, `-` for the network.

    key_mapping: whose names the file uses. loaded: count of tensors loaded. missing: (name, shape) that the network
    has and the file has not. unexpected: the reverse, by the file's names. mismatched: (name, shape in the file,
    shape in the network). classifier: classes in the file and in the network, where the classifier was left as
    it was; 0 where there is none. adapted: input channels in the file and in the network, where they differ.
    left_out: count of the file's tensors of parts that the network was built without: those after the last
    feature map requested, auxiliary classifiers. norm_eps: what the batch norms now add to the variance, where the
    file's library has its own value for this network. fresh: count of the network's tensors of offsets, gates and
    attention that options added and the file lacks: they keep the values that they begin with.
    """

    path: str
    key_mapping: str
    loaded: int
    missing: tuple[tuple[str, Shape], ...]
    unexpected: tuple[tuple[str, Shape], ...]
    mismatched: tuple[tuple[str, Shape, Shape], ...]
    classifier: tuple[int, int] | None
    adapted: tuple[int, int] | None
    left_out: int
    norm_eps: float | None = None
    fresh: int = 0

    @property
    def fits(self) -> bool:
        """Every tensor has its counterpart, but for the classifier."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f"{self.path}: {counted(self.loaded, 'tensor')} loaded, by the names of {self.key_mapping}"]
        if self.classifier is not None:
            lines.append(
                f"classifier not loaded: {counted(self.classifier[0], 'class')} in the file, {self.classifier[1]} here"
            )
        if self.adapted is not None:
            lines.append(f"first layer adapted from {self.adapted[0]} to {self.adapted[1]} input channels")
        if self.left_out:
            lines.append(
                f"{counted(self.left_out, 'tensor')} not loaded: {'its part is' if self.left_out == 1 else 'their parts are'} left out here"
            )
        if self.fresh:
            lines.append(
                f"{counted(self.fresh, 'tensor of blocks that were added is', 'tensors of blocks that were added are')} "
                f"not in the file and {'keeps its' if self.fresh == 1 else 'keep their'} initial values"
            )
        if self.norm_eps is not None:
            lines.append(f"batch norms add {self.norm_eps:g} to the variance, as where the file comes from")
        lines += [f"+ {name} {_shown(shape)}" for name, shape in self.unexpected]
        lines += [f"- {name} {_shown(shape)}" for name, shape in self.missing]
        for name, theirs, ours in self.mismatched:
            lines += [f"+ {name} {_shown(theirs)}", f"- {name} {_shown(ours)}"]
        return "\n".join(lines)


class FileTensor(NamedTuple):
    """A tensor of the file and its name in the file."""

    name: str
    value: Tensor


def load_weights(model: nn.Module, path: str | os.PathLike[str], *, strict: bool = True) -> Difference:
    """Load the weights of the file `path` into `model`, and return the difference.

    A classifier of another number of classes is left as it is. Where the network has other input channels than
    the file, the first layer's weights are repeated or summed over them, and scaled: a grey image in all channels
    gives the same outputs. Where the names are another library's, the batch norms take its eps for this network.
    `read_tensors` says which files are read.
    strict: raise WeightsError where anything else differs; otherwise take what fits.
    Raises WeightsError where the file is unreadable, unsafe, of another network, or holds values that are not
    finite, and then leaves the network as it was; MissingPackageError where safetensors is not installed.
    """
    return load_tensors(model, read_tensors(path), path, strict=strict)


def load_tensors(
    model: nn.Module, tensors: dict[str, Tensor], path: str | os.PathLike[str], *, strict: bool = True
) -> Difference:
    """`load_weights` of tensors that were read already; `path` is what errors call them by."""
    own = model.state_dict()
    key_mapping, renamed_tensors = _in_our_names(tensors, model, own)
    difference, fitting = _compare(os.fspath(path), key_mapping, renamed_tensors, model, own)
    if not fitting:
        raise WeightsError(
            f"{path}: none of its {counted(len(tensors), 'tensor')} ({_some(tensors)}, ...) is of this network",
            f"tensors such as {_some(own)}",
            "give the weights of this network",
        )
    if strict and not difference.fits:
        raise WeightsError(
            f"{path}: does not fit this network: {_summary(difference)}",
            "weights of the same network, width and in_chans",
            "give those, or load what fits with strict=False",
        )
    for name, value in fitting.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise WeightsError(f"{path}: {name} holds NaN or infinity", "finite numbers", "give other weights")
    with torch.no_grad():
        for name, value in fitting.items():
            own[name].copy_(value)  # the tensors of a state dict are those of the network
    if key_mapping.norm_eps is not None:
        set_norm_eps(model, key_mapping.norm_eps)
    return difference


def _in_our_names(
    tensors: dict[str, Tensor], model: nn.Module, own: dict[str, Tensor]
) -> tuple[KeyMapping, dict[str, FileTensor]]:
    """Whose names the file uses, and its tensors by ours: of all key_mappings, the one that gives most of our names."""
    blocks = _block_paths(model)
    best, most, renamed_tensors = OURS, -1, dict[str, FileTensor]()
    for key_mapping in (OURS, *getattr(model, "key_mappings", ())):
        renamed = {_rename(name, key_mapping, blocks): FileTensor(name, value) for name, value in tensors.items()}
        count = sum(name in own for name in renamed)
        if count > most:
            best, most, renamed_tensors = key_mapping, count, renamed
    return best, renamed_tensors


def _block_paths(model: nn.Module) -> list[str]:
    """The paths of all blocks, in order: stages.0.0, stages.0.1, ..."""
    stages = getattr(model, "stages", ())
    return [
        f"stages.{index}.{name}"
        for index, stage in enumerate(stages)
        for name, _ in stage.named_children()
        if name not in ("pool", "attention")
    ]


def _rename(name: str, key_mapping: KeyMapping, blocks: list[str]) -> str:
    """Our name of their tensor `name`."""
    numbered = re.match(r"features\.(\d{1,4})\.", name)
    if numbered and int(numbered[1]) in key_mapping.blocks:
        place = key_mapping.blocks.index(int(numbered[1]))
        # after the last stage of a network that gives features only there is no path; `stages.9999` says so
        path = blocks[place] if place < len(blocks) else "stages.9999.0"
        name = f"{path}.{name[numbered.end() :]}"
    for pattern, replacement in key_mapping.rules:
        name = re.sub(pattern, replacement, name, count=1)
    return name


def _compare(
    path: str, key_mapping: KeyMapping, renamed_tensors: dict[str, FileTensor], model: nn.Module, own: dict[str, Tensor]
) -> tuple[Difference, dict[str, Tensor]]:
    """The difference, and the values to take by our names, in the network's shapes."""
    classifier = _other_classes(renamed_tensors, own)
    skipped = CLASSIFIER if classifier else "\0"
    fitting: dict[str, Tensor] = {}
    unexpected: list[tuple[str, Shape]] = []
    mismatched: list[tuple[str, Shape, Shape]] = []
    adapted: tuple[int, int] | None = None
    left_out = 0
    for name, (theirs, value) in renamed_tensors.items():
        if not name or name.startswith(skipped):
            continue
        if name not in own:
            if isinstance(model, Backbone) and model.omits(name):
                left_out += 1
            elif not _counts_batches(name):
                unexpected.append((theirs, tuple(value.shape)))
            continue
        fitted = _fitted(name, value, own[name])
        if fitted is None:
            mismatched.append((name, tuple(value.shape), tuple(own[name].shape)))
            continue
        if fitted.ndim == value.ndim and fitted.shape != value.shape:
            adapted = (value.shape[1], fitted.shape[1])
        fitting[name] = fitted
    absent = [
        name
        for name in own
        if name not in renamed_tensors and not name.startswith(skipped) and not _counts_batches(name)
    ]
    added = tuple(f"{name}." for name, module in model.named_modules() if getattr(module, "added", False))
    missing = tuple((name, tuple(own[name].shape)) for name in absent if not name.startswith(added))
    difference = Difference(
        path=path,
        key_mapping=key_mapping.library,
        loaded=len(fitting),
        missing=missing,
        unexpected=tuple(unexpected),
        mismatched=tuple(mismatched),
        classifier=classifier,
        adapted=adapted,
        left_out=left_out,
        norm_eps=key_mapping.norm_eps,
        fresh=len(absent) - len(missing),
    )
    return difference, fitting


def _other_classes(renamed_tensors: dict[str, FileTensor], own: dict[str, Tensor]) -> tuple[int, int] | None:
    """Classes of the file and of the network where its classifier does not fit because of their number, else None."""
    key = CLASSIFIER + "weight"
    theirs = renamed_tensors[key].value.shape if key in renamed_tensors else None
    ours = own[key].shape if key in own else None
    if theirs == ours or (theirs and ours and theirs[1:] != ours[1:]):
        return None
    return (theirs[0] if theirs else 0, ours[0] if ours else 0)


def _fitted(name: str, value: Tensor, target: Tensor) -> Tensor | None:
    """`value` in the shape of `target`, with the input channels adapted, or None where shape or kind differ."""
    if value.is_floating_point() != target.is_floating_point() or value.is_complex():
        return None
    if value.shape == target.shape:
        return value
    if value.ndim != target.ndim and value.shape[:1] == target.shape[:1] and value.numel() == target.numel():
        return value.reshape(target.shape)  # a linear layer and the convolution over the whole map are one thing
    if name.startswith("stem.") and value.ndim == target.ndim == 4 and value.shape[2:] == target.shape[2:]:
        theirs, ours = value.shape[1], target.shape[1]
        if value.shape[0] == target.shape[0] and theirs in (1, 3):
            if ours == 1:
                return value.sum(1, keepdim=True)
            repeated = value.repeat(1, -(-ours // theirs), 1, 1)[:, :ours]
            return repeated * (theirs / ours) if ours % theirs == 0 else _rescaled(repeated, value)
    return None


def _rescaled(repeated: Tensor, value: Tensor) -> Tensor:
    """`repeated`, whose channels do not hold each of `value` equally often, with the same sum per kernel position."""
    return repeated - repeated.mean(1, keepdim=True) + value.sum(1, keepdim=True) / repeated.shape[1]


def _counts_batches(name: str) -> bool:
    """The counter of a batch norm: no weight, and absent in files of old versions."""
    return name.endswith(".num_batches_tracked")


def _summary(difference: Difference) -> str:
    parts = []
    if difference.mismatched:
        name, theirs, ours = difference.mismatched[0]
        count = len(difference.mismatched)
        parts.append(f"{count} of another shape or type, as {name}: {_shown(theirs)} for {_shown(ours)}")
    if difference.missing:
        parts.append(f"{len(difference.missing)} missing, as {difference.missing[0][0]}")
    if difference.unexpected:
        parts.append(f"{len(difference.unexpected)} unknown, as {difference.unexpected[0][0]}")
    return "; ".join(parts)


def _shown(shape: Shape) -> str:
    return "x".join(str(size) for size in shape) or "scalar"


def _some(names: dict[str, Tensor]) -> str:
    return ", ".join(list(names)[:2])
