"""Grad-CAM: where in an image the evidence for a class is."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

LEAST = 7  # sides of a map that shows a place: those of the usual last map, of an image of 224x224 at stride 32


class SplitClassifier(Protocol):
    """A network split at its last feature map, as ours and timm's are."""

    def forward_features(self, x: Tensor) -> Tensor: ...

    def forward_head(self, features: Tensor) -> Tensor: ...


def grad_cam(model: SplitClassifier, images: Tensor, classes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Evidence at each place of a feature map: (n, h, w), 0 or more, not normalised.

    model: in evaluation mode. images: (n, C, H, W). classes: (n,) the class to explain, one per image.
    Selvaraju et al. 2017, arXiv 1610.02391, section 3: a_k is the mean over places of d score / d A_k (equation 1),
    the map is ReLU(sum over k of a_k A_k) (equation 2); the score is the output before the softmax.

    A is the last feature map. Where its sides are below LEAST, as for inputs of 32x32, it is the last output of a block
    of `model.stages` whose sides are not, or else the largest of them: a map of 1x1 or 4x4 shows no place.
    """
    maps: list[Tensor] = []

    def keep(layer: nn.Module, inputs: Any, output: Any) -> Any:
        if not isinstance(output, Tensor) or output.ndim != 4:
            return None
        maps.append(output)
        return output.clone()  # what follows may be an activation in place

    blocks = [block for stage in getattr(model, "stages", ()) for block in _blocks(stage)]
    hooks = [block.register_forward_hook(keep) for block in blocks]
    try:
        with torch.enable_grad():
            features = model.forward_features(images.clone().requires_grad_(True))
            last, earlier = features.clone(), len(maps)
            scores = model.forward_head(last)
            del maps[earlier:]
            wanted = torch.from_numpy(np.asarray(classes, np.int64)).to(scores.device)
            place = _with_resolution([*maps, features])
            (gradient,) = torch.autograd.grad(scores.gather(1, wanted[:, None]).sum(), place)
    finally:
        for hook in hooks:
            hook.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    cam: NDArray[np.float32] = (weights * place).sum(dim=1).relu().detach().float().cpu().numpy()
    return cam


def _blocks(stage: nn.Module) -> list[nn.Module]:
    """The blocks of a stage, which is a sequence of them, or else is one."""
    return list(stage.children()) if isinstance(stage, nn.Sequential) else [stage]


def _with_resolution(maps: list[Tensor]) -> Tensor:
    """The last map, in the order of computation, that shows places; else the last of the largest."""
    sides = [min(each.shape[2:]) for each in maps]
    wanted = min(LEAST, max(sides))
    return next(each for each, side in zip(reversed(maps), reversed(sides), strict=True) if side >= wanted)
