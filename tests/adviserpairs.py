"""For every rule of the adviser two small networks: one that it names, one that it leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Pair(NamedTuple):
    """Builders of a network with the fault and of its partner without, and the rows of their input."""

    fault: Callable[[], nn.Module]
    partner: Callable[[], nn.Module]
    side: int = 64


def conv(
    a: int,
    b: int,
    kernel: int | tuple[int, int] = 3,
    stride: int = 1,
    *,
    groups: int = 1,
    act: type[nn.Module] | None = nn.ReLU,
    norm: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
    bias: bool = False,
) -> nn.Sequential:
    """A convolution that keeps the size but for its stride, with norm and activation."""
    rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
    layers: list[nn.Module] = [
        nn.Conv2d(a, b, (rows, columns), stride, (rows // 2, columns // 2), groups=groups, bias=bias)
    ]
    if norm is not None:
        layers.append(norm(b))
    if act is not None:
        layers.append(act())
    return nn.Sequential(*layers)


class Net(nn.Module):
    """A strided 3x3 to 32 channels, a body, a global pool, a classifier."""

    def __init__(
        self,
        *body: nn.Module,
        c: int = 32,
        classes: int = 10,
        stem: nn.Module | None = None,
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.stem = stem or conv(3, 32, stride=2)
        self.body = nn.Sequential(*body)
        self.head = head or nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(self.stem(x)))
        return out


class Inverted(nn.Module):
    """Expansion, depthwise convolution, projection."""

    def __init__(
        self,
        a: int,
        b: int,
        middle: int,
        *,
        stride: int = 1,
        act: type[nn.Module] | None = None,
        shortcut: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.expand = conv(a, middle, 1)
        self.depthwise = conv(middle, middle, 3, stride, groups=middle)
        self.project = conv(middle, b, 1, act=act)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return out if self.shortcut is None else out + self.shortcut(x)


class Parallel(nn.Module):
    """Branches side by side, concatenated."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Additions(nn.Module):
    """A convolution whose output is added again and again."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.conv, self.count = conv(32, 32), count

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        for _ in range(self.count):
            x = x + y
        return x if self.count else y


class Gate(nn.Module):
    """Squeeze-and-excitation."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c // 4, 1), nn.ReLU(), nn.Conv2d(c // 4, c, 1), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


def flat(c: int, side: int) -> nn.Sequential:
    """A fully connected head."""
    return nn.Sequential(nn.Flatten(), nn.Linear(c * side * side, 64), nn.ReLU(), nn.Linear(64, 10))


def pools(count: int) -> Sequence[nn.Module]:
    return [nn.MaxPool2d(2) for _ in range(count)]


def late() -> list[nn.Module]:
    """Many layers on small maps: 64 channels on an eighth of the rows."""
    return [conv(32, 64, stride=2), conv(64, 64, stride=2), *(conv(64, 64) for _ in range(9))]


def edited(edit: Callable[[nn.Conv2d, nn.BatchNorm2d], None], kernel: int = 3) -> nn.Module:
    """A network whose body is one convolution of 64 channels; `edit` changes its weights or its norm's."""
    torch.manual_seed(0)
    block = conv(32, 64, kernel)
    first, norm = block[0], block[1]
    assert isinstance(first, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        edit(first, norm)
    return Net(block, c=64)


def _zeroed(layer: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    layer.weight[::2] = 0


def _closed(layer: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    norm.weight[::4], norm.bias[::4] = 0.1, -1.0


def _small(layer: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    norm.weight[:16] = 5e-3


def _uneven(factor: float) -> Callable[[nn.Conv2d, nn.BatchNorm2d], None]:
    def edit(layer: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        layer.weight[0] *= factor

    return edit


def _of_rank_2(layer: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    out, inner = layer.weight.shape[0], layer.weight[0].numel()
    layer.weight.copy_((torch.randn(out, 2) @ torch.randn(2, inner)).view_as(layer.weight))


def untouched(layer: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """As initialised."""


PAIRS: dict[str, Pair] = {
    "representational-bottleneck": Pair(
        lambda: Net(conv(32, 64), conv(64, 4, 1), conv(4, 64), c=64),
        lambda: Net(conv(32, 64), conv(64, 16, 1), conv(16, 64), c=64),
    ),
    "grid-too-small": Pair(
        lambda: Net(*pools(5), conv(32, 128), conv(128, 128), conv(128, 128), c=128),
        lambda: Net(*pools(2), conv(32, 128), conv(128, 128), conv(128, 128), c=128),
    ),
    "pool-before-widening": Pair(
        lambda: Net(*pools(1), conv(32, 32), *pools(1), conv(32, 64), c=64),
        lambda: Net(*pools(1), conv(32, 64), *pools(1), conv(64, 64), c=64),
    ),
    "narrow-late-stages": Pair(
        lambda: Net(conv(32, 128, stride=2), conv(128, 64, stride=2), c=64),
        lambda: Net(conv(32, 128, stride=2), conv(128, 128, stride=2), c=128),
    ),
    "aggregation-without-reduction": Pair(
        lambda: Net(conv(32, 512, stride=2), conv(512, 512), c=512),
        lambda: Net(conv(32, 512, stride=2), conv(512, 128, 1), conv(128, 512), c=512),
    ),
    "unbalanced-stages": Pair(
        lambda: Net(*(conv(32, 32) for _ in range(10)), conv(32, 64, stride=2), conv(64, 64, stride=2), c=64),
        lambda: Net(conv(32, 32), conv(32, 64, stride=2), conv(64, 64), conv(64, 64, stride=2), c=64),
    ),
    "large-kernel": Pair(lambda: Net(conv(32, 32, 5)), lambda: Net(conv(32, 32), conv(32, 32))),
    "unsplit-kernel": Pair(
        lambda: Net(conv(32, 64, stride=2), conv(64, 64, 7), c=64),
        lambda: Net(conv(32, 64, stride=2), conv(64, 64, (1, 7)), conv(64, 64, (7, 1)), c=64),
    ),
    "split-kernel-early": Pair(lambda: Net(conv(32, 32, (1, 7)), conv(32, 32, (7, 1))), lambda: Net(conv(32, 32)), 96),
    "large-first-kernel": Pair(
        lambda: Net(conv(32, 32, stride=2), stem=conv(3, 32, 7, 2)), lambda: Net(conv(32, 32, stride=2))
    ),
    "activation-after-projection": Pair(
        lambda: Net(Inverted(32, 32, 192, act=nn.ReLU6, shortcut=nn.Identity())),
        lambda: Net(Inverted(32, 32, 192, shortcut=nn.Identity())),
    ),
    "small-expansion": Pair(
        lambda: Net(Inverted(32, 32, 48, shortcut=nn.Identity())),
        lambda: Net(Inverted(32, 32, 128, shortcut=nn.Identity())),
    ),
    "missing-shortcut": Pair(
        lambda: Net(Inverted(32, 32, 128)), lambda: Net(Inverted(32, 32, 128, shortcut=nn.Identity()))
    ),
    "strided-block-with-shortcut": Pair(
        lambda: Net(Inverted(32, 64, 128, stride=2, shortcut=conv(32, 64, 1, 2, act=None)), c=64),
        lambda: Net(Inverted(32, 64, 128, stride=2), c=64),
    ),
    "unequal-channels": Pair(
        lambda: Net(conv(32, 512, 1), conv(512, 32, 1)), lambda: Net(conv(32, 128, 1), conv(128, 128, 1), c=128)
    ),
    "many-groups": Pair(
        lambda: Net(conv(32, 128, 1), conv(128, 128, 1, groups=4), conv(128, 128, 1, groups=4), c=128),
        lambda: Net(conv(32, 128, 1), conv(128, 128, 1), conv(128, 128, 1), c=128),
    ),
    "fragmented": Pair(
        lambda: Net(Parallel(*(conv(32, 16) for _ in range(6))), c=96),
        lambda: Net(Parallel(conv(32, 48), conv(32, 48)), c=96),
    ),
    "elementwise-operations": Pair(lambda: Net(Additions(6)), lambda: Net(Additions(0))),
    "ragged-channels": Pair(lambda: Net(conv(32, 9), c=9), lambda: Net(conv(32, 16), c=16)),
    "depthwise-traffic": Pair(
        lambda: Net(conv(32, 64), conv(64, 64, groups=64), conv(64, 64, groups=64), c=64),
        lambda: Net(conv(32, 32), conv(32, 32)),
    ),
    "attention-on-large-maps": Pair(lambda: Net(conv(32, 32), Gate(32)), lambda: Net(conv(32, 32, stride=2), Gate(32))),
    "expensive-activation": Pair(
        lambda: Net(conv(32, 32, 1), stem=conv(3, 32, stride=2, act=nn.SiLU)),
        lambda: Net(conv(32, 32, 1), stem=conv(3, 32, stride=2, act=nn.Hardswish)),
    ),
    "no-int8-form": Pair(lambda: Net(conv(32, 32, act=nn.PReLU)), lambda: Net(conv(32, 32, act=nn.LeakyReLU))),
    "bias-before-norm": Pair(lambda: Net(conv(32, 32, bias=True)), lambda: Net(conv(32, 32, bias=True, norm=None))),
    "unfused-norm": Pair(
        lambda: Net(nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)), lambda: Net(conv(32, 32))
    ),
    "memory-peak": Pair(
        lambda: Net(conv(32, 32, stride=2), *late(), c=64, stem=conv(3, 32)),
        lambda: Net(conv(32, 32), *late(), c=64),
    ),
    "fully-connected-head": Pair(
        lambda: Net(conv(32, 32, stride=2), head=flat(32, 16)), lambda: Net(conv(32, 32, stride=2))
    ),
    "heavy-head": Pair(
        lambda: Net(
            conv(32, 32),
            head=nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 512), nn.ReLU(), nn.Linear(512, 100)
            ),
        ),
        lambda: Net(conv(32, 32)),
    ),
    "few-features": Pair(lambda: Net(conv(32, 32), classes=200), lambda: Net(conv(32, 32), classes=100)),
    "dead-channels": Pair(lambda: edited(_zeroed), lambda: edited(untouched)),
    "tiny-gammas": Pair(lambda: edited(_small), lambda: edited(untouched)),
    "uneven-ranges": Pair(lambda: edited(_uneven(200)), lambda: edited(_uneven(4))),
    "low-rank": Pair(lambda: edited(_of_rank_2), lambda: edited(untouched)),
}
# further forms of a fault that the same rule has to name
FORMS: list[tuple[str, Callable[[], nn.Module], int]] = [
    ("dead-channels", lambda: edited(_closed), 64),
    ("representational-bottleneck", lambda: Net(conv(32, 1, 1), conv(1, 32)), 64),
    ("unfused-norm", lambda: Net(conv(32, 32, norm=lambda c: nn.GroupNorm(4, c))), 64),
    ("no-int8-form", lambda: Net(conv(32, 32, norm=lambda c: nn.GroupNorm(4, c))), 64),
    ("no-int8-form", lambda: Net(conv(32, 32, act=nn.GELU)), 64),
    ("missing-shortcut", lambda: Net(conv(32, 32, groups=32), conv(32, 32, 1)), 64),
    ("activation-after-projection", lambda: Net(Inverted(32, 16, 192, act=nn.ReLU), c=16), 64),
    ("fully-connected-head", lambda: Net(*pools(3), conv(32, 32), head=flat(32, 4)), 64),
    ("bias-before-norm", lambda: Net(conv(32, 64, 1, bias=True), c=64), 64),
    ("unsplit-kernel", lambda: Net(conv(32, 64, stride=2), conv(64, 64, 5), c=64), 64),
    ("large-kernel", lambda: Net(conv(32, 32, 7)), 64),
]
