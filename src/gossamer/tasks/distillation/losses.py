"""Losses of distillation: what a student's outputs differ from a teacher's by, one value an image.

Gradients go into the student's outputs alone. Logits are divided by the temperature T before the softmax, and a loss is
multiplied by T^2, so that its gradients keep their size (Hinton et al. 2015, arXiv 1503.02531, section 2.1).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ANGLES = 64  # images at most among which angles are compared: their number grows with the third power
DISTANCE_WEIGHT, ANGLE_WEIGHT = 1.0, 2.0  # of relations: Park et al. 2019, section 4.1


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * sum_k p_k (log p_k - log q_k), p of the teacher and q of the student: (..., K), (..., K) -> (...) float32.

    Hinton et al. 2015 (arXiv 1503.02531, section 2).
    """
    log_p = F.log_softmax(teacher.detach().float() / temperature, -1)
    log_q = F.log_softmax(student.float() / temperature, -1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1)


def binary_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * sum_k KL(p_k || q_k) of one sigmoid a label: (..., K), (..., K) -> (...) float32.

    The divergence of Bernoulli variables, p log(p / q) + (1 - p) log((1 - p) / (1 - q)), summed as the labels' own loss is.
    """
    p, q = teacher.detach().float() / temperature, student.float() / temperature
    true = p.sigmoid() * (F.logsigmoid(p) - F.logsigmoid(q))
    false = (-p).sigmoid() * (F.logsigmoid(-p) - F.logsigmoid(-q))
    return temperature**2 * (true + false).sum(-1)


def dkd(
    student: Tensor, teacher: Tensor, targets: Tensor, temperature: float, beta: float, alpha: float = 1.0
) -> Tensor:
    """Decoupled distillation: (N, K), (N, K), (N,) int64 -> (N,) float32.

    T^2 * (alpha * TCKD + beta * NCKD) of Zhao et al. 2022 (arXiv 2203.08679, equation 7): TCKD is the divergence of
    (p_t, 1 - p_t), target against all others; NCKD that of the softmax over the classes that are not the target. Their
    code has alpha 1 and beta 2 to 8 for CIFAR-100, 0.5 for ImageNet. A network of one class has nothing to tell: 0.
    """
    classes = student.shape[1]
    if classes < 2:
        return student.float().sum(1) * 0
    student, teacher = student.float() / temperature, teacher.detach().float() / temperature
    others = torch.ones_like(student, dtype=torch.bool).scatter_(1, targets[:, None], False)

    def split(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log p of the target, log(1 - p) without cancellation, and the logits of the other classes."""
        rest = logits[others].view(len(logits), classes - 1)
        total = logits.logsumexp(1)
        return logits.gather(1, targets[:, None]).squeeze(1) - total, rest.logsumexp(1) - total, rest

    target_p, other_p, rest_p = split(teacher)
    target_q, other_q, rest_q = split(student)
    tckd = target_p.exp() * (target_p - target_q) + other_p.exp() * (other_p - other_q)
    return temperature**2 * (alpha * tckd + beta * kl(rest_q, rest_p, 1.0))


def channel_wise(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Channel-wise distillation of maps: (N, C, h, w), (N, C, h, w) -> (N,) float32.

    T^2 / C * sum over channels of KL(phi_t || phi_s), phi the softmax of a channel over all places: Shu et al. 2021
    (arXiv 2011.13256, equations 3 and 4), for the logits of masks and for the maps of a pyramid.
    """
    return kl(student.flatten(2), teacher.flatten(2), temperature).mean(1)


def pixel_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The mean over places of the divergence of the classes: (N, K, h, w), (N, K, h, w) -> (N,) float32.

    Liu et al. 2019 (arXiv 1903.04197, equation 2).
    """
    return kl(student.flatten(2).mT, teacher.flatten(2).mT, temperature).mean(1)


def boxes(student: dict[str, Tensor], teacher: dict[str, Tensor], temperature: float, *, background: bool) -> Tensor:
    """{"deltas": (N, A, 4), "logits": (N, A, K)} of both, for the same anchors -> (N,) float32.

    For each anchor the divergence of the classes plus smooth L1 of the deltas, weighed by the largest probability that the
    teacher gives a class, over the sum of these weights, at least 1: most anchors are background and would drown the
    rest. The weights are those of Du et al. 2021 (arXiv 2111.00674, equation 3). background: whether logits are a softmax
    whose class 0 is background, else sigmoids.
    """
    logits, their_logits = student["logits"], teacher["logits"].detach().float()
    if background:
        weights = their_logits.softmax(-1)[..., 1:].amax(-1)
        classes = kl(logits, their_logits, temperature)
    else:
        weights = their_logits.sigmoid().amax(-1)
        classes = binary_kl(logits, their_logits, temperature)
    places = F.smooth_l1_loss(student["deltas"].float(), teacher["deltas"].detach().float(), reduction="none").sum(-1)
    return (weights * (classes + places)).sum(1) / weights.sum(1).clamp_min(1)


def relations(student: Tensor, teacher: Tensor) -> Tensor:
    """Relational distillation of embeddings: (N, D), (N, E) -> (N,) float32.

    Huber's loss of the distances of pairs, each over the mean distance (weight 1), and of the cosines of the angles of
    triplets (weight 2), among ANGLES images at most: Park et al. 2019, RKD (arXiv 1904.05068, equations 4 to 9). Embeddings
    are brought to length 1, as they are compared. A single image has no relations: 0.
    """
    if len(student) < 2:
        return student.float().sum(1) * 0
    student, teacher = F.normalize(student.float(), dim=1), F.normalize(teacher.detach().float(), dim=1)
    far = F.smooth_l1_loss(_distances(student), _distances(teacher), reduction="none").mean(1)
    parts = -(-len(student) // ANGLES)
    angles = [
        F.smooth_l1_loss(_angles(ours), _angles(theirs), reduction="none").mean((1, 2))
        for ours, theirs in zip(student.tensor_split(parts), teacher.tensor_split(parts), strict=True)
    ]
    return DISTANCE_WEIGHT * far + ANGLE_WEIGHT * torch.cat(angles)


def _distances(points: Tensor) -> Tensor:
    """Distances of all pairs over the mean of those of different images: (N, D) -> (N, N)."""
    squared = (points[:, None] - points[None]).square().sum(-1)
    # the lower bound keeps the gradient of equal points finite
    distances = squared.clamp_min(1e-12).sqrt() * (1 - torch.eye(len(points), device=points.device))
    count = len(points) * (len(points) - 1)
    return distances / (distances.sum() / count).clamp_min(1e-6)


def _angles(points: Tensor) -> Tensor:
    """Cosine of the angle at each point between the directions to two others: (N, D) -> (N, N, N)."""
    directions = F.normalize(points[None] - points[:, None], dim=2)
    return directions @ directions.mT
