"""What all networks have in common: a stem, stages, a head, and features by stride."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from gossamer.blocks.head import ClassifierHead
from gossamer.errors import SettingsError

if TYPE_CHECKING:
    from gossamer.networks.pretrained import WeightSet


class FeatureInfo(NamedTuple):
    """One feature map: the module that makes it, its channels, and how many input pixels lie between two of its."""

    module: str
    channels: int
    reduction: int


class FeatureList(list[FeatureInfo]):
    """The feature maps of a network, finest first."""

    def channels(self) -> list[int]:
        return [info.channels for info in self]

    def reduction(self) -> list[int]:
        return [info.reduction for info in self]


class KeyMapping(NamedTuple):
    """The mapping from another library's state dict keys to ours.

    rules: pairs of (regular expression, replacement), all applied in order to one of their names to get ours.
    A name that becomes "" has no place in our network and is left out.
    blocks: where they number the blocks straight through, as in `features.7.`: their number of each block, in
    order; before the rules, `features.7.` becomes our `stages.2.1.`.
    norm_eps: what their batch norms add to the variance; their weights are right with that only.
    """

    library: str
    rules: tuple[tuple[str, str], ...]
    blocks: tuple[int, ...] = ()
    norm_eps: float | None = None


class Outputs(NamedTuple):
    """The output of a network with auxiliary classifiers in training mode: its logits, and theirs in order."""

    logits: Tensor
    aux: list[Tensor]


class Backbone(nn.Module):
    """A network, or those of its parts that a model keeps: what the weights of the network are loaded into.

    key_mappings: from other libraries' state dict keys to ours. pretrained: the listed set that its weights were taken from, with
    the preprocessing they expect, else None.
    """

    stem: nn.Module
    stages: nn.ModuleList
    key_mappings: tuple[KeyMapping, ...] = ()
    pretrained: WeightSet | None = None

    def omits(self, name: str) -> bool:
        """Whether the tensor `name` of the network belongs to a part that was left out here."""
        raise NotImplementedError


class NetworkParts(Backbone):
    """Modules of a network by the names that they have in it: its stem, its first stages, and what is given besides."""

    def __init__(
        self,
        stem: nn.Module,
        stages: nn.ModuleList,
        key_mappings: tuple[KeyMapping, ...],
        *,
        conv_head: nn.Module | None = None,
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = stages
        if conv_head is not None:
            self.conv_head = conv_head
        if head is not None:
            self.head = head
        self.key_mappings = key_mappings

    def omits(self, name: str) -> bool:
        part, _, rest = name.partition(".")
        if part == "stages":
            index = re.match(r"\d{1,4}", rest)
            return index is not None and int(index[0]) >= len(self.stages)
        return part in ("conv_head", "head", "aux") and not hasattr(self, part)


class Network(Backbone):
    """A backbone and its classifier: (N, in_chans, H, W) -> (N, num_classes).

    stem: the first layers. stages: one `nn.Sequential` a row of the paper's table, its blocks called 0, 1, ...
    (a pool before them, where there is one, is called `pool`). conv_head: the last 1x1 convolution, part of
    `forward_features` but not of the features by stride, or the identity. head: pooling and classifier.
    aux: auxiliary classifiers by the number of the stage whose map they read. With them, a network in training mode
    returns `Outputs`; in evaluation mode they are idle.
    classifier_path: what the names of the classifier's parameters begin with.
    With `num_classes=0` it returns embeddings (N, num_features).
    """

    classifier_path = "head."

    def __init__(
        self,
        stem: nn.Module,
        stages: Iterable[nn.Sequential],
        conv_head: nn.Module,
        head: ClassifierHead,
        feature_info: FeatureList,
        key_mappings: tuple[KeyMapping, ...] = (),
        aux: Mapping[str, ClassifierHead] | None = None,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.conv_head = conv_head
        self.head = head
        self.aux = nn.ModuleDict(aux or {})
        self.feature_info = feature_info
        self.key_mappings = key_mappings

    @property
    def num_classes(self) -> int:
        return self.head.num_classes

    @property
    def num_features(self) -> int:
        """Width of the embedding, before the classifier."""
        return self.head.num_features

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map: (N, in_chans, H, W) -> (N, C, h, w), with the `conv_head`."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        out: Tensor = self.conv_head(x)
        return out

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, C, h, w) -> (N, num_classes), or (N, num_features) if `pre_logits`."""
        out: Tensor = self.head(x, pre_logits)
        return out

    def forward(self, x: Tensor) -> Tensor | Outputs:
        if self.training and self.aux:
            return self.forward_aux(x)
        return self.forward_head(self.forward_features(x))

    def forward_aux(self, x: Tensor) -> Outputs:
        """The logits, and those of each auxiliary classifier, first to last: all (N, num_classes)."""
        aux_logits: list[Tensor] = []
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if str(index) in self.aux:
                aux_logits.append(self.aux[str(index)](x))
        return Outputs(self.forward_head(self.conv_head(x)), aux_logits)

    def reset_classifier(self, num_classes: int) -> None:
        """A classifier of `num_classes` with fresh weights; 0 leaves it out. Raises SettingsError."""
        check_count("num_classes", num_classes, 0)
        like = next(self.parameters())
        for head in (self.head, *self.aux.values()):
            assert isinstance(head, ClassifierHead)
            head.reset(num_classes)
            head.classifier.to(device=like.device, dtype=like.dtype)

    def omits(self, name: str) -> bool:
        return name.startswith("aux.") and not self.aux


class Features(NetworkParts):
    """The feature maps of a network, at `out_indices` of its `feature_info` (default all), finest first.

    forward: (N, in_chans, H, W) -> list of (N, channels, H / reduction, W / reduction). It shares the modules
    of `network`, under the same names, and leaves out those after the last map requested.
    Raises SettingsError where an index is out of range; negative ones count from the last.
    """

    def __init__(self, network: Network, out_indices: Sequence[int] | None = None) -> None:
        every = network.feature_info
        wanted = range(len(every)) if out_indices is None else out_indices
        if not wanted or any(not -len(every) <= index < len(every) for index in wanted):
            raise SettingsError(
                f"out_indices {list(wanted)}", f"0 to {len(every) - 1}, at least one", "choose among the feature maps"
            )
        chosen = sorted({index % len(every) for index in wanted})
        last = every[chosen[-1]].module
        count = 0 if last == "stem" else int(last.removeprefix("stages.")) + 1
        super().__init__(network.stem, nn.ModuleList(list(network.stages)[:count]), network.key_mappings)
        self.feature_info = FeatureList(every[index] for index in chosen)
        self._tapped = {info.module for info in self.feature_info}

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = [x] if "stem" in self._tapped else []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if f"stages.{index}" in self._tapped:
                maps.append(x)
        return maps


def backbone_of(model: nn.Module) -> nn.Module:
    """Where in `model` the weights of its network belong: what its `backbone_parts` returns, or the module at its
    `backbone_path`, else the model itself."""
    find_parts: Callable[[], nn.Module] | None = getattr(model, "backbone_parts", None)
    if find_parts is not None:
        return find_parts()
    path: str = getattr(model, "backbone_path", "")
    return model.get_submodule(path.removesuffix(".")) if path else model


def check_count(name: str, value: int, low: int) -> None:
    """Raises SettingsError unless `value` is a whole number of `low` or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise SettingsError(f"{name}: {value!r}", f"a whole number of {low} or more", "fix the argument")
