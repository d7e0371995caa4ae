"""A loss of metric learning from its name: a module, because it may have parameters."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gossamer.errors import MissingPackageError, SettingsError, UnknownNameError
from gossamer.settings import Settings
from gossamer.tasks.embedding import losses

# name -> the triplet loss, the quadruplet loss
MINING: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "batch-all": (losses.triplet_batch_all, losses.quadruplet_all),
    "batch-hard": (losses.triplet_batch_hard, losses.quadruplet),
    "semi-hard": (losses.triplet_semi_hard, losses.quadruplet_semi_hard),
}
MINING_OF = {"all": "batch-all", "hard": "batch-hard", "semihard": "semi-hard"}  # by the words of the settings
MINED = ("triplet", "quadruplet")


class Option(NamedTuple):
    """A number of a loss: its default, and what it must be above and at most."""

    default: float
    above: float
    most: float


DISTANCE, SQUARED = 2.0, 4.0  # the largest between vectors of length 1
# name -> its options; those of MINED also take `mining`, a name of MINING
LOSSES: dict[str, dict[str, Option]] = {
    "contrastive": {"margin": Option(0.5, 0, DISTANCE)},
    "triplet": {"margin": Option(0.2, 0, SQUARED)},
    "quadruplet": {"margin": Option(1.0, 0, SQUARED), "second_margin": Option(0.5, 0, SQUARED)},
    # arXiv 1801.07698, section 3.1: an angle of 0.5, logits times 64
    "arcface": {"margin": Option(0.5, 0, math.pi / 2), "scale": Option(64.0, 0, 1000)},
    "supcon": {"temperature": Option(0.1, 0, 100)},  # arXiv 2004.11362, section 4
    "proxy-anchor": {"margin": Option(0.1, 0, 1), "scale": Option(32.0, 0, 1000)},  # arXiv 2003.13911, section 4.2
    "proxy-nca": {"scale": Option(1.0, 0, 1000)},  # arXiv 1703.07464, equation 4
}
DEFAULT_MINING = "batch-hard"


class PairLoss(nn.Module):
    """A loss of `losses.py`, without parameters: {"embedding": (N, D)}, (N,) int64 -> (N,) float32."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        return self.function(outputs["embedding"], targets)


class ReferenceLoss(nn.Module):
    """A loss of pytorch-metric-learning: {"embedding": (N, D)}, (N,) int64 -> (N,) float32, all the batch loss.

    Its parameters, if any, are the weights of the classes or their proxies.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        embeddings = outputs["embedding"]
        # the module casts its parameters to the type of the embeddings, which autocast has reduced
        with torch.autocast(embeddings.device.type, enabled=False):
            loss: Tensor = self.module(embeddings.float(), targets)
        return loss.expand(len(embeddings))


def build_loss(name: str, dim: int, classes: int, options: Mapping[str, Any] | None = None) -> nn.Module:
    """The loss called `name` of LOSSES, for embeddings (N, dim) and that many identities.

    options: those of LOSSES, and `mining` for those of MINED. forward: ({"embedding": (N, dim)}, (N,) int64) -> (N,), whose
    mean is the batch loss. Raises UnknownNameError, SettingsError, MissingPackageError.
    """
    if name not in LOSSES:
        raise UnknownNameError("loss of metric learning", name, LOSSES)
    overrides = dict(options or {})
    mining = overrides.pop("mining", DEFAULT_MINING) if name in MINED else DEFAULT_MINING
    if mining not in MINING:
        raise UnknownNameError("mining", str(mining), MINING)
    values = _values(name, overrides)
    ours: dict[str, Callable[..., Tensor]] = {
        "contrastive": losses.contrastive,
        **dict(zip(MINED, MINING[mining], strict=True)),
    }
    if name in ours:
        return PairLoss(functools.partial(ours[name], **values))
    return ReferenceLoss(_reference_loss(name, dim, classes, values))


def loss_of(settings: Settings, name: str, dim: int, classes: int) -> nn.Module:
    """The loss that the settings call `name`, with their margin and mining. Raises as `build_loss`."""
    options: dict[str, Any] = {} if settings.margin is None else {"margin": settings.margin}
    if name in MINED:
        options["mining"] = MINING_OF[settings.mining]
    return build_loss(name.replace("_", "-"), dim, classes, options)


def _values(name: str, overrides: Mapping[str, Any]) -> dict[str, float]:
    """The value of each option of a loss. Raises SettingsError."""
    allowed = LOSSES[name]
    for key, value in overrides.items():
        if key not in allowed:
            raise SettingsError(f"{name} has no option {key!r}", ", ".join(allowed), "leave it out")
        option = allowed[key]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not option.above < value <= option.most:
            raise SettingsError(
                f"{key} of {name}: {value!r}", f"a number above {option.above:g}, at most {option.most:g}", "fix it"
            )
    return {key: float(overrides.get(key, option.default)) for key, option in allowed.items()}


def _reference_loss(name: str, dim: int, classes: int, values: Mapping[str, float]) -> nn.Module:
    """The module of pytorch-metric-learning. Raises MissingPackageError."""
    try:
        from pytorch_metric_learning import losses as reference_losses
    except ImportError as error:
        raise MissingPackageError("pytorch-metric-learning", "embed", f"the loss {name}") from error
    module: nn.Module
    if name == "arcface":
        module = reference_losses.ArcFaceLoss(
            classes, dim, margin=math.degrees(values["margin"]), scale=values["scale"]
        )
    elif name == "proxy-anchor":
        module = reference_losses.ProxyAnchorLoss(classes, dim, margin=values["margin"], alpha=values["scale"])
    elif name == "proxy-nca":
        module = reference_losses.ProxyNCALoss(classes, dim, softmax_scale=values["scale"])
    else:
        module = reference_losses.SupConLoss(temperature=values["temperature"])
    return module
