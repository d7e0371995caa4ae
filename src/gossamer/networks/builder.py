"""What a family's function builds a network with: the arguments that all have, and the layers so far."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from torch import nn

from gossamer.blocks.activation import Activation, replace_activations
from gossamer.blocks.drop import set_drop_path
from gossamer.blocks.head import ClassifierHead
from gossamer.blocks.initialise import initialise, initialise_classifier
from gossamer.blocks.norm import replace_norms, set_norm_eps
from gossamer.errors import SettingsError
from gossamer.networks.base import FeatureInfo, FeatureList, KeyMapping, Network, check_count
from gossamer.networks.dilate import dilate
from gossamer.networks.options import Options, add_options


class Builder:
    """A network being built: arguments that every family has, and what has been built of it.

    A family's function asks `stride` for the stride of every strided layer, in order, adds the layers with `stem` and
    `stage`, and ends with `network`. So one place knows where strides are kept and which maps are features.

    small_input: the first two strided layers keep stride 1, for images of about 32x32: their sizes then are
    reduced by 8 in all where it was 32. All weights keep their shapes; a pool that keeps stride 1 is left out.
    act, norm: the activation and the norm in the place of the family's own; gates of attention keep theirs.
    norm_eps: what batch norms add to the variance, in the place of the family's own.
    options: blocks that are added at the end. output_stride: see `gossamer.networks.dilate`. drop_path_rate: of the last residual branch; see `DropPath`.
    channels: of the last layer added. reduction: product of the strides so far.
    Raises SettingsError on a value outside its range.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_chans: int,
        small_input: bool,
        drop_rate: float,
        drop_path_rate: float,
        output_stride: int | None,
        act: Activation | None,
        norm: str | None,
        norm_eps: float | None,
        options: Options,
    ) -> None:
        check_count("num_classes", num_classes, 0)
        check_count("in_chans", in_chans, 1)
        for name, rate in (("drop_rate", drop_rate), ("drop_path_rate", drop_path_rate)):
            if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
                raise SettingsError(f"{name}: {rate!r}", "0 or more, below 1", "fix the argument")
        if norm_eps is not None and (not isinstance(norm_eps, (int, float)) or not 0 < norm_eps < 1):
            raise SettingsError(f"norm_eps: {norm_eps!r}", "a number above 0, below 1", "fix the argument")
        self.drop_path_rate = drop_path_rate
        self.output_stride = output_stride
        self.act = act
        self.norm = norm
        self.norm_eps = norm_eps
        self.options = options
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.channels = in_chans
        self.reduction = 1
        self._kept = 2 if small_input else 0
        self._stem: nn.Module = nn.Identity()
        self._stages: list[nn.Sequential] = []
        self._channels: list[int] = []  # of each stage's output
        self._aux: dict[str, ClassifierHead] = {}
        self._features = FeatureList()

    def stride(self, stride: int) -> int:
        """The stride to give to the next layer, where the paper has `stride`."""
        if stride > 1 and self._kept:
            self._kept -= 1
            return 1
        self.reduction *= stride
        return stride

    def made_for_small_input(self) -> None:
        """This family is made for images of about 32x32: its strides are as they should be, whatever `small_input`."""
        self._kept = 0

    def max_pool(self, *, kernel: int = 3, padding: int = 1, ceil_mode: bool = False) -> nn.Module:
        """Max pooling of stride 2, or the identity where the stride is kept at 1."""
        if self.stride(2) == 1:
            return nn.Identity()
        return nn.MaxPool2d(kernel, 2, padding=padding, ceil_mode=ceil_mode)

    def stem(self, module: nn.Module, channels: int) -> None:
        """The first layers, with `channels` output channels."""
        self._stem = module
        self._tap("stem", channels)

    def stage(self, blocks: Iterable[nn.Module], channels: int, *, pool: nn.Module | None = None) -> None:
        """The next stage: `blocks`, after a `pool` where there is one, with `channels` output channels."""
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if pool is not None:
            parts["pool"] = pool
        parts.update((str(index), block) for index, block in enumerate(blocks))
        self._tap(f"stages.{len(self._stages)}", channels)
        self._stages.append(nn.Sequential(parts))
        self._channels.append(channels)

    def aux(self, head: ClassifierHead) -> None:
        """An auxiliary classifier on the map of the last stage, which only training uses."""
        self._aux[str(len(self._stages) - 1)] = head

    def network(
        self,
        head: ClassifierHead,
        *,
        conv_head: nn.Module | None = None,
        key_mappings: tuple[KeyMapping, ...] = (),
        norm_eps: float | None = None,
    ) -> Network:
        """The finished network with fresh weights. `norm_eps` is the family's own, where it is not torch's 1e-5."""
        network = Network(
            self._stem, self._stages, conv_head or nn.Identity(), head, self._features, key_mappings, aux=self._aux
        )
        eps = self.norm_eps or norm_eps
        if eps is not None:
            set_norm_eps(network, eps)
        if self.act is not None:
            replace_activations(network, self.act)
        if self.norm not in (None, "batch"):
            replace_norms(network, str(self.norm))
        if self.drop_path_rate:
            set_drop_path(network, self.drop_path_rate)
        if self.output_stride is not None:
            dilate(network, self.output_stride, self.in_chans)
            network.feature_info = FeatureList(
                info._replace(reduction=min(info.reduction, self.output_stride)) for info in self._features
            )
        add_options(network.stages, self.options, self._channels)
        initialise(network)
        for each in (head, *self._aux.values()):
            initialise_classifier(each.classifier)
        return network

    def _tap(self, module: str, channels: int) -> None:
        """A feature map is the last one at its reduction."""
        if self._features and self._features[-1].reduction == self.reduction:
            self._features.pop()
        self._features.append(FeatureInfo(module, channels, self.reduction))
        self.channels = channels
