"""Networks of timm as backbones, "timm:NAME" or "timm:NAME.SET": the interface of our own around timm's modules.

timm (Wightman 2019, https://github.com/huggingface/pytorch-image-models) is the optional extra `timm`.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.errors import GossamerError, MissingPackageError, SettingsError, UnknownNameError, WeightsError
from gossamer.networks.base import FeatureInfo, FeatureList, Features, Network, Outputs, check_count
from gossamer.networks.pretrained import TIMM, WeightSet
from gossamer.networks.weights import Difference

# torchvision registers gradients for these when it is imported
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[Any] = []  # an operator lives as long as its library


class TimmNetwork(Network):
    """A network of timm: (N, in_chans, H, W) -> (N, num_classes). It has no stem, stages or head of ours.

    `forward_features` returns what timm's does: a map (N, C, h, w) of convolutional networks, of transformers often
    another layout; ask for `features_only=True` where a map is needed.
    """

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        nn.Module.__init__(self)  # the parts of Network are inside the body
        body: Any = _build(name, **arguments)
        self.name, self.arguments = name, arguments
        self.body = body
        self.aux = nn.ModuleDict()
        self.key_mappings = ()
        self.feature_info = _feature_list(getattr(body, "feature_info", ()))
        self.classifier_path = f"body.{_classifiers(body.pretrained_cfg)[0]}."

    @property
    def num_classes(self) -> int:
        body: Any = self.body
        return int(body.num_classes)

    @property
    def num_features(self) -> int:
        # timm's num_features is of the last map; layers of the head may follow
        body: Any = self.body
        return int(getattr(body, "head_hidden_size", None) or body.num_features)

    def forward_features(self, x: Tensor) -> Tensor:
        body: Any = self.body
        out: Tensor = body.forward_features(x)
        return out

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        body: Any = self.body
        out: Tensor = body.forward_head(x, pre_logits=pre_logits)
        return out

    def forward_aux(self, x: Tensor) -> Outputs:
        """The logits; no network of timm has auxiliary classifiers here."""
        return Outputs(self(x), [])

    def reset_classifier(self, num_classes: int) -> None:
        check_count("num_classes", num_classes, 0)
        like = next(self.parameters())
        body: Any = self.body
        body.reset_classifier(num_classes)
        self.to(device=like.device, dtype=like.dtype)

    def load(self, tensors: dict[str, Tensor], path: str | os.PathLike[str]) -> Difference:
        """Load tensors of a file of timm's, or of a run; a classifier of another number of classes stays as it is.

        Raises WeightsError where they are not those of this network.
        """
        weights = _overlay(self.name, tensors)
        loaded = _build(self.name, weights, **{**self.arguments, "num_classes": weights["num_classes"]})
        classes = None if weights["num_classes"] == self.num_classes else (weights["num_classes"], self.num_classes)
        return _copy(loaded, self.body, path, _classifiers(loaded.pretrained_cfg) if classes else (), classes)


class TimmFeatures(Features):
    """The feature maps of a network of timm: (N, in_chans, H, W) -> list of (N, channels, h, w), finest first."""

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        nn.Module.__init__(self)
        body: Any = _build(name, **arguments)
        self.name, self.arguments = name, arguments
        self.body = body
        self.key_mappings = ()
        self.feature_info = _feature_list(body.feature_info.get_dicts())
        self._channels_last = str(getattr(body, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.body(x)
        return [each.permute(0, 3, 1, 2) if self._channels_last else each for each in maps]

    def load(self, tensors: dict[str, Tensor], path: str | os.PathLike[str]) -> Difference:
        """Load tensors of a file of timm's, or of a run, whose every tensor must be of the whole network.

        Raises WeightsError where they are not.
        """
        weights = _overlay(self.name, tensors)
        arguments = {key: value for key, value in self.arguments.items() if key not in ("features_only", "out_indices")}
        _build(self.name, weights, **{**arguments, "num_classes": weights["num_classes"]})
        return _copy(_build(self.name, weights, **self.arguments), self.body, path)


def create(
    name: str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    output_stride: int | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    options: dict[str, Any] | None = None,
) -> TimmNetwork | TimmFeatures:
    """The network of timm called `name`; the arguments are those of `create_model`, `options` those of timm.

    Raises UnknownNameError, SettingsError where timm refuses, MissingPackageError.
    """
    check_count("num_classes", num_classes, 0)
    check_count("in_chans", in_chans, 1)
    _config(name)
    arguments = {**(options or {}), "in_chans": in_chans}
    rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate, "output_stride": output_stride}
    arguments.update((key, value) for key, value in rates.items() if value)
    if not features_only:
        return TimmNetwork(name, {**arguments, "num_classes": num_classes})
    count = _count_maps(name)
    wanted = list(range(count)) if out_indices is None else list(out_indices)
    if not wanted or any(not -count <= index < count for index in wanted):
        raise SettingsError(f"out_indices {wanted}", f"0 to {count - 1}, at least one", "choose among the feature maps")
    indices = tuple(sorted({index % count for index in wanted}))
    return TimmFeatures(name, {**arguments, "features_only": True, "out_indices": indices})


def list_names(pattern: str) -> list[str]:
    """The networks of timm that match "timm:PATTERN", in the shell's style. Raises MissingPackageError."""
    names = (TIMM + each for each in import_timm().list_models())
    return sorted(each for each in names if fnmatch.fnmatchcase(each, pattern))


def timm_weight_sets(name: str) -> tuple[WeightSet, ...]:
    """The published sets of a network of timm: that of its name, or timm's default, first.

    Raises UnknownNameError, MissingPackageError.
    """
    first = _config(name)
    arch = name.removeprefix(TIMM).partition(".")[0]
    configs = import_timm().models.get_arch_pretrained_cfgs(arch).values()
    ordered = sorted((c for c in configs if c.hf_hub_id or c.url), key=lambda config: config.tag != first.tag)
    return tuple(_weight_set(arch, config) for config in ordered)


def _weight_set(arch: str, config: Any) -> WeightSet:
    file = f"/{config.hf_hub_filename}" if config.hf_hub_filename else ""
    return WeightSet(
        name=f"timm/{arch}.{config.tag}" if config.tag else f"timm/{arch}",
        source=f"hf://{config.hf_hub_id}{file}" if config.hf_hub_id else str(config.url),
        licence=config.license or "unspecified",
        top1=None,
        top1_from="",
        input=int(config.input_size[-1]),
        crop_pct=float(config.crop_pct),
        interpolation=config.interpolation,
        mean=tuple(map(float, config.mean)),
        std=tuple(map(float, config.std)),
    )


def class_names(count: int) -> tuple[str, ...]:
    """What timm calls the `count` classes of its ImageNet networks: WordNet numbers as n01440764, in the order of the logits.

    Raises SettingsError for a number of classes that it has no names for.
    """
    subsets = {
        1000: "imagenet-1k",
        11221: "imagenet-21k-miil",
        11821: "imagenet-12k",
        21841: "imagenet-22k",
        21842: "imagenet-22k-ms",
        21843: "imagenet-21k-goog",
    }
    if count not in subsets:
        raise SettingsError(
            f"{count} classes of a network of timm", "networks of ImageNet's classes", "choose one, or train a run"
        )
    import_timm()
    info: Any = importlib.import_module("timm.data").ImageNetInfo(subsets[count])
    return tuple(map(str, info.label_names()))


def import_timm() -> Any:
    """The package timm. Raises MissingPackageError.

    timm imports torchvision for its image transforms, none of which is used here. Where torchvision's compiled
    operators were built for another torch, that import ends at the first operator that it registers a gradient for.
    Only then are these operators declared, without an implementation, and the import is tried again.
    """
    if importlib.util.find_spec("timm") is None or importlib.util.find_spec("torchvision") is None:
        raise MissingPackageError("timm", "timm", "a network called timm:NAME")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the packages are not for our users
        try:
            return importlib.import_module("timm")
        except RuntimeError as error:
            if "torchvision::" not in str(error) or _libraries:
                raise
        for module in [each for each in sys.modules if each.split(".")[0] in ("torchvision", "timm")]:
            del sys.modules[module]  # what was imported in part would count as loaded
        library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for operator in OPERATORS:
            library.define(operator)
        _libraries.append(library)
        return importlib.import_module("timm")


def _config(name: str) -> Any:
    """timm's configuration of a network, of the set in its name or the default one. Raises UnknownNameError."""
    timm = import_timm()
    arch, _, tag = name.removeprefix(TIMM).partition(".")
    if not timm.is_model(arch):
        raise UnknownNameError("network", name, [TIMM + each for each in timm.list_models()])
    sets = timm.models.get_arch_pretrained_cfgs(arch)
    if tag and f"{arch}.{tag}" not in sets:
        raise UnknownNameError("network", name, [TIMM + each for each in sets])
    return timm.models.get_pretrained_cfg(f"{arch}.{tag}" if tag else arch)


def _build(name: str, weights: dict[str, Any] | None = None, **arguments: Any) -> Any:
    """timm's module; `weights` of `_overlay`. Raises SettingsError, or WeightsError for weights, if timm refuses."""
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[], enabled=weights is not None):
            warnings.simplefilter("ignore")
            return import_timm().create_model(
                name.removeprefix(TIMM), pretrained=bool(weights), pretrained_cfg_overlay=weights or None, **arguments
            )
    except GossamerError:
        raise
    except Exception as error:  # a model function of timm may raise anything
        reason = f"{name}: timm refuses: {type(error).__name__}: {str(error)[:200]}"
        if weights:
            raise WeightsError(reason, "weights of this network", "give those") from error
        raise SettingsError(reason, "what timm takes for this network", "leave out what it has not") from error


def _count_maps(name: str) -> int:
    """How many feature maps a network of timm offers. Raises SettingsError for none."""
    with torch.device("meta"):
        count = len(getattr(_build(name), "feature_info", ()))
    if not count:
        raise SettingsError(
            f"{name}: timm gives no feature maps of it", "a network with feature maps", "choose another"
        )
    return count


def _overlay(name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """What timm is to know of a weights file: its tensors, and of how many classes they are."""
    named = {key.removeprefix("body."): value for key, value in tensors.items()}
    config = _config(name)
    weight = named.get(f"{_classifiers(config.to_dict())[0]}.weight")
    classes = config.num_classes if weight is None else weight.shape[0]
    return {"state_dict": named, "num_classes": int(classes)}


def _copy(
    source: nn.Module,
    target: nn.Module,
    path: str | os.PathLike[str],
    skipped: Sequence[str] = (),
    classes: tuple[int, int] | None = None,
) -> Difference:
    """Copy the tensors of `source` into `target`, but for the modules at the paths `skipped`.

    classes: of both, where they differ. Raises WeightsError where `target` has others.
    """
    values, own = source.state_dict(), target.state_dict()
    copied = {key: value for key, value in own.items() if not key.startswith(tuple(f"{each}." for each in skipped))}
    for key, value in copied.items():
        if key not in values or values[key].shape != value.shape:
            raise WeightsError(f"{path}: {key} is not of this network", "weights of this network", "give those")
    with torch.no_grad():
        for key, value in copied.items():
            value.copy_(values[key])
    return Difference(
        path=os.fspath(path),
        key_mapping="timm",
        loaded=len(copied),
        missing=(),
        unexpected=(),
        mismatched=(),
        classifier=classes,
        adapted=None,
        left_out=0,
    )


def _classifiers(config: dict[str, Any]) -> tuple[str, ...]:
    """The paths of the classifiers in timm's module: one, or several where it distils."""
    path = config.get("classifier") or "head"
    return (path,) if isinstance(path, str) else tuple(path)


def _feature_list(infos: Any) -> FeatureList:
    return FeatureList(
        FeatureInfo(str(info.get("module", "")), int(info["num_chs"]), int(info["reduction"])) for info in infos
    )
