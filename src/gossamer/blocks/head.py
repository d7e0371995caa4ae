"""Classifier heads: from the last feature map to one number per class, or to an embedding."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.blocks.activation import Activation, activation
from gossamer.blocks.initialise import initialise_classifier
from gossamer.blocks.pool import average_to


class ClassifierHead(nn.Module):
    """Base of the heads: dropout, then the layer called `classifier`.

    With `num_classes=0` there is no classifier and the head returns the pooled features (N, num_features).
    """

    def __init__(self, num_features: int, num_classes: int, *, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.num_features = num_features
        self.drop = nn.Dropout(drop_rate)
        self.num_classes = num_classes
        self.classifier = self._classifier(num_classes)

    def _classifier(self, num_classes: int) -> nn.Module:
        raise NotImplementedError

    def reset(self, num_classes: int) -> None:
        """Take a new classifier with fresh weights."""
        self.num_classes = num_classes
        self.classifier = self._classifier(num_classes)
        initialise_classifier(self.classifier)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, C, h, w) -> (N, num_classes); (N, num_features) if `pre_logits` or without classes."""
        raise NotImplementedError


class LinearHead(ClassifierHead):
    """Global average, dropout, linear layer: (N, C, h, w) -> (N, num_classes). MACs: C * num_classes."""

    def __init__(self, num_features: int, num_classes: int, *, drop_rate: float = 0.0, bias: bool = True) -> None:
        self.bias = bias
        super().__init__(num_features, num_classes, drop_rate=drop_rate)

    def _classifier(self, num_classes: int) -> nn.Module:
        return nn.Linear(self.num_features, num_classes, bias=self.bias) if num_classes else nn.Identity()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(_pooled(x))
        out: Tensor = x if pre_logits else self.classifier(x)
        return out


class ConvHead(ClassifierHead):
    """Dropout, 1x1 convolution, ReLU, global average: (N, C, h, w) -> (N, num_classes).

    act: False leaves the ReLU out; without padding and norm this is `LinearHead`, see `conv_head_of`. norm: batch norm
    in the place of the bias. MACs: C * num_classes * (h + 2 * padding) * (w + 2 * padding).
    Source: SqueezeNet (1602.07360), table 1, after Network in Network (1312.4400), section 3.2.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        drop_rate: float = 0.0,
        padding: int = 0,
        act: bool = True,
        norm: bool = False,
    ) -> None:
        self.padding, self.norm = padding, norm
        super().__init__(num_features, num_classes, drop_rate=drop_rate)
        self.act = nn.ReLU() if act else nn.Identity()

    def _classifier(self, num_classes: int) -> nn.Module:
        if not num_classes:
            return nn.Identity()
        conv = nn.Conv2d(self.num_features, num_classes, 1, padding=self.padding, bias=not self.norm)
        return nn.Sequential(conv, nn.BatchNorm2d(num_classes)) if self.norm else conv

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(x)
        return _pooled(x) if pre_logits or not self.num_classes else _pooled(self.act(self.classifier(x)))


def conv_head_of(head: LinearHead) -> ConvHead:
    """The 1x1 convolution and global average that compute the same as a linear head, with its weights.

    The average is linear, so it may come before or after the classifier; after it the classifier also classifies each
    position of a larger image. MACs: those of the linear head times h * w. Source: Network in Network (1312.4400).
    """
    conv_head = ConvHead(head.num_features, head.num_classes, drop_rate=head.drop.p, act=False)
    linear = head.classifier
    if isinstance(linear, nn.Linear) and isinstance(conv_head.classifier, nn.Conv2d):
        weight = nn.Parameter(linear.weight.detach()[:, :, None, None].clone())
        conv_head.classifier.weight = weight
        bias = linear.bias.detach().clone() if linear.bias is not None else weight.new_zeros(linear.out_features)
        conv_head.classifier.bias = nn.Parameter(bias)
    return conv_head.train(head.training)


class HiddenHead(ClassifierHead):
    """Global average, linear layer, activation, dropout, classifier: (N, C, h, w) -> (N, num_classes).

    The embedding is the hidden layer's. MACs: C * hidden + hidden * num_classes.
    Source: MobileNetV3 (1905.02244), section 5.1: the last layer moved after the pool.
    """

    def __init__(
        self, channels: int, num_classes: int, *, hidden: int, act: Activation = "hard_swish", drop_rate: float = 0.0
    ) -> None:
        super().__init__(hidden, num_classes, drop_rate=drop_rate)
        self.hidden = nn.Linear(channels, hidden)
        self.act = activation(act)

    def _classifier(self, num_classes: int) -> nn.Module:
        return nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.act(self.hidden(_pooled(x))))
        out: Tensor = x if pre_logits else self.classifier(x)
        return out


class MlpHead(ClassifierHead):
    """Average to side x side, then linear layers: dropout, linear, activation for each of `hidden`, and a classifier.

    (N, C, h, w) -> (N, num_classes); the embedding is the last hidden layer's. MACs: C * side * side * hidden[0] +
    hidden[0] * hidden[1] + ... + hidden[-1] * num_classes.
    Source: AlexNet (Krizhevsky et al. 2012), section 3.5; VGG (1409.1556), table 1.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        side: int,
        hidden: tuple[int, ...],
        act: Activation = "relu",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(hidden[-1], num_classes, drop_rate=drop_rate)
        self.side = side
        self.hidden = nn.Sequential()
        c_in = channels * side * side
        for index, c in enumerate(hidden):
            parts: OrderedDict[str, nn.Module] = OrderedDict()
            parts["drop"] = nn.Dropout(drop_rate if index else 0.0)
            parts["linear"] = nn.Linear(c_in, c)
            parts["act"] = activation(act)
            self.hidden.append(nn.Sequential(parts))
            c_in = c

    def _classifier(self, num_classes: int) -> nn.Module:
        return nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.hidden(average_to(x, self.side).flatten(1)))
        out: Tensor = x if pre_logits else self.classifier(x)
        return out


class BodyHead(ClassifierHead):
    """Layers, then dropout and a linear classifier: (N, C, h, w) -> (N, num_classes).

    body: makes (N, num_features) of the map. MACs: the body's and num_features * num_classes.
    The shape of auxiliary classifiers (GoogLeNet, 1409.4842, section 5).
    """

    def __init__(self, body: nn.Module, num_features: int, num_classes: int, *, drop_rate: float = 0.0) -> None:
        super().__init__(num_features, num_classes, drop_rate=drop_rate)
        self.body = body

    def _classifier(self, num_classes: int) -> nn.Module:
        return nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.body(x))
        out: Tensor = x if pre_logits else self.classifier(x)
        return out


def _pooled(x: Tensor) -> Tensor:
    """The mean over all positions: (N, C, h, w) -> (N, C)."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)
