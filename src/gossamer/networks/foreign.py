"""Networks of timm as backbones, "timm:NAME" or "timm:NAME.SET": the interface of our own around timm's modules.

timm (Wightman 2019, https://github.com/huggingface/pytorch-image-models) is the optional extra `timm`.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.errors import GossamerError, MissingPackageError, SettingsError, UnknownNameError, WeightsError
from gossamer.networks.base import FeatureInfo, FeatureList, Features, Network, Outputs, check_count
from gossamer.networks.pretrained import WeightSet
from gossamer.networks.registry import PEER

# torchvision registers gradients for these when it is imported
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[Any] = []  # an operator lives as long as its library


class Foreign(Network):
    """A network of timm: (N, in_chans, H, W) -> (N, num_classes). It has no stem, stages or head of ours.

    `forward_features` answers what timm's does: a map (N, C, h, w) of convolutional networks, of transformers often
    another layout; ask for `features_only=True` where a map is needed.
    """

    def __init__(self, body: Any) -> None:
        nn.Module.__init__(self)  # the parts of Network are inside the body
        self.body = body
        self.aux = nn.ModuleDict()
        self.namings = ()
        self.feature_info = _feature_list(getattr(body, "feature_info", ()))
        self.classifier_path = f"body.{_classifier(body.pretrained_cfg)}."

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


class ForeignFeatures(Features):
    """The feature maps of a network of timm: (N, in_chans, H, W) -> list of (N, channels, h, w), finest first."""

    def __init__(self, body: Any) -> None:
        nn.Module.__init__(self)
        self.body = body
        self.namings = ()
        self.feature_info = _feature_list(body.feature_info.get_dicts())
        self._channels_last = str(getattr(body, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.body(x)
        return [each.permute(0, 3, 1, 2) if self._channels_last else each for each in maps]


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
    source: str = "",
    options: dict[str, Any] | None = None,
) -> Foreign | ForeignFeatures:
    """The network of timm called `name`; the arguments are those of `create_model`, `options` those of timm.

    source: weights, as `gossamer.networks.fetch` takes them, in timm's names.

    Raises UnknownNameError, SettingsError where timm refuses, WeightsError, MissingPackageError, StorageError.
    """
    check_count("num_classes", num_classes, 0)
    check_count("in_chans", in_chans, 1)
    _config(name)
    arguments = {**(options or {}), "in_chans": in_chans}
    given = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate, "output_stride": output_stride}
    arguments.update((key, value) for key, value in given.items() if value)
    weights = _weights(name, source) if source else {}
    if not features_only or source:
        # with a file, a classifier of the file's classes first, so that every one of its tensors must fit
        classes = weights.get("num_classes", num_classes)
        network = Foreign(_build(name, num_classes=classes, weights=weights, **arguments))
    if features_only:
        every = _maps(name)
        wanted = list(range(every)) if out_indices is None else list(out_indices)
        if not wanted or any(not -every <= index < every for index in wanted):
            raise SettingsError(
                f"out_indices {wanted}", f"0 to {every - 1}, at least one", "choose among the feature maps"
            )
        indices = tuple(sorted({index % every for index in wanted}))
        return ForeignFeatures(_build(name, weights=weights, features_only=True, out_indices=indices, **arguments))
    if network.num_classes != num_classes:
        network.reset_classifier(num_classes)
    return network


def list_names(pattern: str) -> list[str]:
    """The networks of timm that match "timm:PATTERN", in the shell's style. Raises MissingPackageError."""
    names = (PEER + each for each in import_timm().list_models())
    return sorted(each for each in names if fnmatch.fnmatchcase(each, pattern))


def weight_sets(name: str) -> tuple[WeightSet, ...]:
    """The published sets of a network of timm: that of its name, or timm's default, first.

    Raises UnknownNameError, MissingPackageError.
    """
    first = _config(name)
    arch = name.removeprefix(PEER).partition(".")[0]
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
            del sys.modules[module]  # what was imported in part would be taken for whole
        library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for operator in OPERATORS:
            library.define(operator)
        _libraries.append(library)
        return importlib.import_module("timm")


def _config(name: str) -> Any:
    """timm's configuration of a network, of the set in its name or the default one. Raises UnknownNameError."""
    timm = import_timm()
    arch, _, tag = name.removeprefix(PEER).partition(".")
    if not timm.is_model(arch):
        raise UnknownNameError("network", name, [PEER + each for each in timm.list_models()])
    sets = timm.models.get_arch_pretrained_cfgs(arch)
    if tag and f"{arch}.{tag}" not in sets:
        raise UnknownNameError("network", name, [PEER + each for each in sets])
    return timm.models.get_pretrained_cfg(f"{arch}.{tag}" if tag else arch)


def _build(name: str, *, weights: dict[str, Any] | None = None, **arguments: Any) -> nn.Module:
    """timm's module. Raises SettingsError, or WeightsError where there are weights, if timm refuses."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: nn.Module = import_timm().create_model(
                name.removeprefix(PEER), pretrained=bool(weights), pretrained_cfg_overlay=weights or None, **arguments
            )
    except GossamerError:
        raise
    except Exception as error:  # a builder of timm may raise anything
        reason = f"{name}: timm refuses: {type(error).__name__}: {str(error)[:200]}"
        if weights:
            raise WeightsError(reason, "weights of this network", "give those") from error
        raise SettingsError(reason, "what timm takes for this network", "leave out what it has not") from error
    return module


def _maps(name: str) -> int:
    """How many feature maps a network of timm offers. Raises SettingsError for none."""
    with torch.device("meta"):
        count = len(getattr(_build(name), "feature_info", ()))
    if not count:
        raise SettingsError(
            f"{name}: timm gives no feature maps of it", "a network with feature maps", "choose another"
        )
    return count


def _weights(name: str, source: str) -> dict[str, Any]:
    """What timm is to know of a weights file: its tensors, and of how many classes they are."""
    from gossamer.networks.checkpoint import read_tensors
    from gossamer.networks.fetch import fetch

    tensors = {key.removeprefix("body."): value for key, value in read_tensors(fetch(source)).items()}
    config = _config(name)
    weight = tensors.get(f"{_classifier(config.to_dict())}.weight")
    classes = config.num_classes if weight is None else weight.shape[0]
    return {"state_dict": tensors, "num_classes": int(classes)}


def _classifier(config: dict[str, Any]) -> str:
    """The path of the classifier in timm's module; the first one where there are several."""
    path = config.get("classifier") or "head"
    return str(path if isinstance(path, str) else path[0])


def _feature_list(infos: Any) -> FeatureList:
    return FeatureList(
        FeatureInfo(str(info.get("module", "")), int(info["num_chs"]), int(info["reduction"])) for info in infos
    )
