"""Weights of any kind into a network, into its feature maps, or into a task's model around it."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from gossamer.errors import UnknownNameError, WeightsError
from gossamer.host.progress import SILENT, Progress
from gossamer.networks.base import Backbone, backbone_of
from gossamer.networks.checkpoint import read_tensors
from gossamer.networks.fetch import fetch
from gossamer.networks.pretrained import DEFAULT, TIMM, WEIGHTS, WeightSet
from gossamer.networks.registry import resolve
from gossamer.networks.timm_adapter import TimmFeatures, TimmNetwork, timm_weight_sets
from gossamer.networks.weights import Difference, load_tensors


def load_pretrained(
    model: nn.Module, net: str, weights: str, *, strict: bool = True, progress: Progress = SILENT
) -> Difference:
    """Load `weights` into `model`, which is the network called `net` or a model around it; what differed.

    weights: "default", the name of a listed set (`gossamer list --weights`), a local file, URL#sha256=... or
    hf://owner/name/file; its tensors by our names, torchvision's or timm's.
    A file of all of a task's model, as a run writes it, is loaded as far as it fits; any other file goes to
    the backbone alone and must fit it, but for the classifier and the channels of the input.
    strict: whether that is required of a plain network too, in place of loading what fits.
    Raises UnknownNameError, WeightsError, MissingPackageError, StorageError.
    """
    source, listed = select_weights(net, weights)
    path = fetch(source, progress=progress)
    tensors = read_tensors(path)
    backbone = backbone_of(model)
    if backbone is not model and _is_of_whole(tensors, model):
        return load_tensors(model, tensors, path, strict=False)
    if isinstance(backbone, (TimmNetwork, TimmFeatures)):
        difference = backbone.load(tensors, path)
    else:
        difference = load_tensors(backbone, tensors, path, strict=strict or backbone is not model)
    if isinstance(backbone, Backbone):
        backbone.pretrained = listed
    return difference


def weight_sets(net: str) -> tuple[WeightSet, ...]:
    """The listed sets of the network `net`, its default first. Raises UnknownNameError, MissingPackageError."""
    return timm_weight_sets(net) if net.startswith(TIMM) else WEIGHTS.get(resolve(net), ())


def select_weights(net: str, weights: str) -> tuple[str, WeightSet | None]:
    """What to fetch for the network `net`, and the listed set that it is, if it is one; `weights` as `load_pretrained`.

    Raises WeightsError where no set is listed for the network, UnknownNameError for another set's name.
    """
    sets = weight_sets(net)
    for each in sets[:1] if weights == DEFAULT else sets:
        if weights in (DEFAULT, each.name):
            return each.source, each
    if weights == DEFAULT:
        raise WeightsError(
            f"{net}: no weights are listed for it",
            "a file, https://...#sha256=... or hf://...",
            "give one of these, or another network: gossamer list --weights",
        )
    if weights.startswith(("timm/", "torchvision/")) and not Path(weights).exists():
        raise UnknownNameError(f"weight set of {net}", weights, (*(each.name for each in sets), DEFAULT))
    return weights, None


def _is_of_whole(tensors: dict[str, Tensor], model: nn.Module) -> bool:
    """Whether tensors are of all of `model`, not of its backbone alone."""
    own = set(model.state_dict())
    return 2 * len(own & set(tensors)) > len(own)
