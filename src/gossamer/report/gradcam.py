"""Grad-CAM: where in an image a network found the evidence for a class."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class SplitClassifier(Protocol):
    """A network split at its last feature map, as ours and timm's are."""

    def forward_features(self, x: Tensor) -> Tensor: ...

    def forward_head(self, features: Tensor) -> Tensor: ...


def grad_cam(model: SplitClassifier, images: Tensor, classes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Evidence at each place of the last feature map: (n, h, w), 0 or more, not normalised.

    model: in evaluation mode. images: (n, C, H, W). classes: (n,) the class to explain, one per image.
    Selvaraju et al. 2017, arXiv 1610.02391, section 3: a_k is the mean over places of d score / d A_k (equation 1),
    the map is ReLU(sum over k of a_k A_k) (equation 2); the score is the output before the softmax.
    """
    with torch.no_grad():
        features = model.forward_features(images)
    features = features.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        # a copy goes into the head: an in-place activation there may not overwrite a leaf
        scores = model.forward_head(features.clone())
        wanted = torch.from_numpy(np.asarray(classes, np.int64)).to(scores.device)
        chosen = scores.gather(1, wanted[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, features)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    cam: NDArray[np.float32] = (weights * features).sum(dim=1).relu().detach().float().cpu().numpy()
    return cam
