"""The networks by name. A row is all that a published variant needs; its family is imported when it is built.

Names are timm's where timm has the network, else torchvision's; other names in use are aliases.
"""

from __future__ import annotations

import fnmatch
from typing import Any, NamedTuple

from gossamer.errors import UnknownNameError
from gossamer.networks.pretrained import TIMM


class NetworkEntry(NamedTuple):
    """The function that builds a network, with its module in this package, and its arguments for this network.

    input: channels, height and width that its published counts are of.
    """

    module: str
    function: str
    arguments: dict[str, Any]
    input: tuple[int, int, int] = (3, 224, 224)


class Traits(NamedTuple):
    """Properties of a network that are known before it is built.

    input: channels, height and width that it is made for. has_stages: it is a `Network` with stem, stages and
    conv_head; without them only its feature maps and its classifier are there. traceable: it runs on shapes alone,
    and each of its operations has a formula. takes_small_input: `create_model` takes `small_input` for it.
    """

    input: tuple[int, int, int]
    has_stages: bool
    traceable: bool
    takes_small_input: bool


NETWORKS: dict[str, NetworkEntry] = {
    "alexnet": NetworkEntry("alexnet", "alexnet", {"variant": "torchvision"}),
    "alexnet_paper": NetworkEntry("alexnet", "alexnet", {"variant": "paper"}, (3, 227, 227)),
    "alexnet_ungrouped": NetworkEntry("alexnet", "alexnet", {"variant": "ungrouped"}),
    "cbam_resnet50": NetworkEntry("resnet", "resnet", {"depth": 50, "attention": "cbam"}),
    "densenet121": NetworkEntry("densenet", "densenet", {"depth": 121}),
    "densenet161": NetworkEntry("densenet", "densenet", {"depth": 161}),
    "densenet169": NetworkEntry("densenet", "densenet", {"depth": 169}),
    "densenet201": NetworkEntry("densenet", "densenet", {"depth": 201}),
    "efficientnet_b0": NetworkEntry("efficientnet", "efficientnet", {"width": 1.0, "depth": 1.0}),
    "efficientnet_b1": NetworkEntry("efficientnet", "efficientnet", {"width": 1.0, "depth": 1.1}, (3, 240, 240)),
    "efficientnet_b2": NetworkEntry("efficientnet", "efficientnet", {"width": 1.1, "depth": 1.2}, (3, 260, 260)),
    "ghostnet_050": NetworkEntry("ghostnet", "ghostnet", {"width": 0.5}),
    "ghostnet_100": NetworkEntry("ghostnet", "ghostnet", {"width": 1.0}),
    "ghostnet_130": NetworkEntry("ghostnet", "ghostnet", {"width": 1.3}),
    "googlenet": NetworkEntry("googlenet", "googlenet", {"variant": "torchvision"}),
    "googlenet_bn": NetworkEntry("googlenet", "googlenet", {"variant": "bn"}),
    "googlenet_paper": NetworkEntry("googlenet", "googlenet", {"variant": "paper"}),
    "inception_resnet_v1": NetworkEntry("inceptionresnet", "inception_resnet", {"version": 1}, (3, 299, 299)),
    "inception_resnet_v2": NetworkEntry("inceptionresnet", "inception_resnet", {"version": 2}, (3, 299, 299)),
    "inception_v2": NetworkEntry("inceptionv2", "inception_v2", {}),
    "inception_v3": NetworkEntry("inceptionv3", "inception_v3", {}, (3, 299, 299)),
    "inception_v4": NetworkEntry("inceptionv4", "inception_v4", {}, (3, 299, 299)),
    "lenet5": NetworkEntry("lenet", "lenet", {"variant": "modern"}, (1, 32, 32)),
    "lenet5_original": NetworkEntry("lenet", "lenet", {"variant": "original"}, (1, 32, 32)),
    "lenet_caffe": NetworkEntry("lenet", "lenet", {"variant": "caffe"}, (1, 28, 28)),
    "mnasnet_050": NetworkEntry("mnasnet", "mnasnet", {"variant": "b1", "width": 0.5}),
    "mnasnet_075": NetworkEntry("mnasnet", "mnasnet", {"variant": "b1", "width": 0.75}),
    "mnasnet_100": NetworkEntry("mnasnet", "mnasnet", {"variant": "b1", "width": 1.0}),
    "mnasnet_small": NetworkEntry("mnasnet", "mnasnet", {"variant": "small"}),
    "mobilenetv1_025": NetworkEntry("mobilenetv1", "mobilenet_v1", {"width": 0.25}),
    "mobilenetv1_050": NetworkEntry("mobilenetv1", "mobilenet_v1", {"width": 0.5}),
    "mobilenetv1_075": NetworkEntry("mobilenetv1", "mobilenet_v1", {"width": 0.75}),
    "mobilenetv1_100": NetworkEntry("mobilenetv1", "mobilenet_v1", {"width": 1.0}),
    "mobilenetv1_125": NetworkEntry("mobilenetv1", "mobilenet_v1", {"width": 1.25}),
    "mobilenetv2_035": NetworkEntry("mobilenetv2", "mobilenet_v2", {"width": 0.35}),
    "mobilenetv2_050": NetworkEntry("mobilenetv2", "mobilenet_v2", {"width": 0.5}),
    "mobilenetv2_075": NetworkEntry("mobilenetv2", "mobilenet_v2", {"width": 0.75}),
    "mobilenetv2_100": NetworkEntry("mobilenetv2", "mobilenet_v2", {"width": 1.0}),
    "mobilenetv2_130": NetworkEntry("mobilenetv2", "mobilenet_v2", {"width": 1.3}),
    "mobilenetv2_140": NetworkEntry("mobilenetv2", "mobilenet_v2", {"width": 1.4}),
    "mobilenetv3_large_075": NetworkEntry("mobilenetv3", "mobilenet_v3", {"size": "large", "width": 0.75}),
    "mobilenetv3_large_100": NetworkEntry("mobilenetv3", "mobilenet_v3", {"size": "large", "width": 1.0}),
    "mobilenetv3_large_minimal_100": NetworkEntry(
        "mobilenetv3", "mobilenet_v3", {"size": "large", "minimalistic": True}
    ),
    "mobilenetv3_small_050": NetworkEntry("mobilenetv3", "mobilenet_v3", {"size": "small", "width": 0.5}),
    "mobilenetv3_small_075": NetworkEntry("mobilenetv3", "mobilenet_v3", {"size": "small", "width": 0.75}),
    "mobilenetv3_small_100": NetworkEntry("mobilenetv3", "mobilenet_v3", {"size": "small", "width": 1.0}),
    "mobilenetv3_small_minimal_100": NetworkEntry(
        "mobilenetv3", "mobilenet_v3", {"size": "small", "minimalistic": True}
    ),
    "mobilenetv4_conv_large": NetworkEntry("mobilenetv4", "mobilenet_v4", {"size": "large"}, (3, 384, 384)),
    "mobilenetv4_conv_medium": NetworkEntry("mobilenetv4", "mobilenet_v4", {"size": "medium"}, (3, 256, 256)),
    "mobilenetv4_conv_small": NetworkEntry("mobilenetv4", "mobilenet_v4", {"size": "small"}),
    "preresnet20": NetworkEntry("preresnet", "preresnet", {"repeats": 3}, (3, 32, 32)),
    "preresnet56": NetworkEntry("preresnet", "preresnet", {"repeats": 9}, (3, 32, 32)),
    "preresnet110": NetworkEntry("preresnet", "preresnet", {"repeats": 18}, (3, 32, 32)),
    "preresnet164": NetworkEntry("preresnet", "preresnet", {"repeats": 18, "bottleneck": True}, (3, 32, 32)),
    "resnet18": NetworkEntry("resnet", "resnet", {"depth": 18}),
    "resnet34": NetworkEntry("resnet", "resnet", {"depth": 34}),
    "resnet50": NetworkEntry("resnet", "resnet", {"depth": 50}),
    "resnet101": NetworkEntry("resnet", "resnet", {"depth": 101}),
    "resnet152": NetworkEntry("resnet", "resnet", {"depth": 152}),
    "resnext50_32x4d": NetworkEntry("resnet", "resnet", {"depth": 50, "groups": 32, "base_width": 4}),
    "resnext101_32x8d": NetworkEntry("resnet", "resnet", {"depth": 101, "groups": 32, "base_width": 8}),
    "rir18": NetworkEntry("rir", "rir", {}, (3, 32, 32)),
    "seresnet50": NetworkEntry("resnet", "resnet", {"depth": 50, "attention": "se"}),
    "vgg11": NetworkEntry("vgg", "vgg", {"depth": 11}),
    "vgg11_bn": NetworkEntry("vgg", "vgg", {"depth": 11, "batch_norm": True}),
    "vgg13": NetworkEntry("vgg", "vgg", {"depth": 13}),
    "vgg13_bn": NetworkEntry("vgg", "vgg", {"depth": 13, "batch_norm": True}),
    "vgg16": NetworkEntry("vgg", "vgg", {"depth": 16}),
    "vgg16_bn": NetworkEntry("vgg", "vgg", {"depth": 16, "batch_norm": True}),
    "vgg19": NetworkEntry("vgg", "vgg", {"depth": 19}),
    "vgg19_bn": NetworkEntry("vgg", "vgg", {"depth": 19, "batch_norm": True}),
    "wrn16_8": NetworkEntry("preresnet", "preresnet", {"repeats": 2, "width": 8.0}, (3, 32, 32)),
    "wrn28_10": NetworkEntry("preresnet", "preresnet", {"repeats": 4, "width": 10.0}, (3, 32, 32)),
    "wrn40_4": NetworkEntry("preresnet", "preresnet", {"repeats": 6, "width": 4.0}, (3, 32, 32)),
    "wide_resnet50_2": NetworkEntry("resnet", "resnet", {"depth": 50, "base_width": 128}),
    "wide_resnet101_2": NetworkEntry("resnet", "resnet", {"depth": 101, "base_width": 128}),
    "semnasnet_100": NetworkEntry("mnasnet", "mnasnet", {"variant": "a1"}),
    "shufflenet_v1_g1_x1_0": NetworkEntry("shufflenetv1", "shufflenet_v1", {"groups": 1, "width": 1.0}),
    "shufflenet_v1_g2_x1_0": NetworkEntry("shufflenetv1", "shufflenet_v1", {"groups": 2, "width": 1.0}),
    "shufflenet_v1_g3_x0_25": NetworkEntry("shufflenetv1", "shufflenet_v1", {"groups": 3, "width": 0.25}),
    "shufflenet_v1_g3_x0_5": NetworkEntry("shufflenetv1", "shufflenet_v1", {"groups": 3, "width": 0.5}),
    "shufflenet_v1_g3_x1_0": NetworkEntry("shufflenetv1", "shufflenet_v1", {"groups": 3, "width": 1.0}),
    "shufflenet_v1_g3_x1_5": NetworkEntry("shufflenetv1", "shufflenet_v1", {"groups": 3, "width": 1.5}),
    "shufflenet_v1_g3_x2_0": NetworkEntry("shufflenetv1", "shufflenet_v1", {"groups": 3, "width": 2.0}),
    "shufflenet_v1_g4_x1_0": NetworkEntry("shufflenetv1", "shufflenet_v1", {"groups": 4, "width": 1.0}),
    "shufflenet_v1_g8_x0_25": NetworkEntry("shufflenetv1", "shufflenet_v1", {"groups": 8, "width": 0.25}),
    "shufflenet_v1_g8_x0_5": NetworkEntry("shufflenetv1", "shufflenet_v1", {"groups": 8, "width": 0.5}),
    "shufflenet_v1_g8_x1_0": NetworkEntry("shufflenetv1", "shufflenet_v1", {"groups": 8, "width": 1.0}),
    "shufflenet_v1_g8_x1_5": NetworkEntry("shufflenetv1", "shufflenet_v1", {"groups": 8, "width": 1.5}),
    "shufflenet_v1_g8_x2_0": NetworkEntry("shufflenetv1", "shufflenet_v1", {"groups": 8, "width": 2.0}),
    "shufflenet_v2_x0_5": NetworkEntry("shufflenetv2", "shufflenet_v2", {"width": 0.5}),
    "shufflenet_v2_x1_0": NetworkEntry("shufflenetv2", "shufflenet_v2", {"width": 1.0}),
    "shufflenet_v2_x1_5": NetworkEntry("shufflenetv2", "shufflenet_v2", {"width": 1.5}),
    "shufflenet_v2_x2_0": NetworkEntry("shufflenetv2", "shufflenet_v2", {"width": 2.0}),
    "skresnext50_32x4d": NetworkEntry(
        "resnet", "resnet", {"depth": 50, "groups": 32, "base_width": 4, "attention": "sk"}
    ),
    "sqnxt23_w1": NetworkEntry("squeezenext", "squeezenext", {"version": "23", "width": 1.0}, (3, 227, 227)),
    "sqnxt23_w2": NetworkEntry("squeezenext", "squeezenext", {"version": "23", "width": 2.0}, (3, 227, 227)),
    "sqnxt23v5_w1": NetworkEntry("squeezenext", "squeezenext", {"version": "23v5", "width": 1.0}, (3, 227, 227)),
    "sqnxt23v5_w2": NetworkEntry("squeezenext", "squeezenext", {"version": "23v5", "width": 2.0}, (3, 227, 227)),
    "sqnxt23g_w1": NetworkEntry("squeezenext", "squeezenext", {"version": "23", "groups": 2}, (3, 227, 227)),
    "squeezenet1_0": NetworkEntry("squeezenet", "squeezenet", {"version": "1.0"}),
    "squeezenet1_1": NetworkEntry("squeezenet", "squeezenet", {"version": "1.1"}),
}

ALIASES: dict[str, str] = {
    "bn_inception": "inception_v2",
    "inception_v1": "googlenet",
    "mnasnet0_5": "mnasnet_050",  # torchvision's names of B1
    "mnasnet0_75": "mnasnet_075",
    "mnasnet1_0": "mnasnet_100",
    "mnasnet_a1": "semnasnet_100",
    "mnasnet_b1": "mnasnet_100",
    "ghostnet": "ghostnet_100",
    "sknet50": "skresnext50_32x4d",
    "mobilenet_v1": "mobilenetv1_100",
    "mobilenet_v2": "mobilenetv2_100",  # torchvision's name
    "mobilenet_v3_large": "mobilenetv3_large_100",  # torchvision's name
    "mobilenet_v3_small": "mobilenetv3_small_100",  # torchvision's name
    "shufflenet_v1": "shufflenet_v1_g3_x1_0",
    "shufflenet_v2": "shufflenet_v2_x1_0",
}


def list_models(pattern: str = "*") -> list[str]:
    """The networks whose name or alias matches the shell-style `pattern`, sorted, each once by its own name.

    "timm:PATTERN" matches those of timm. Raises MissingPackageError where timm is needed and not installed.
    """
    if pattern.startswith(TIMM):
        from gossamer.networks.timm_adapter import list_names

        return list_names(pattern)
    names = {name: name for name in NETWORKS} | ALIASES
    return sorted({own for name, own in names.items() if fnmatch.fnmatchcase(name, pattern)})


def resolve(name: str) -> str:
    """The canonical name of a network, from its name or an alias. Raises UnknownNameError with the nearest names."""
    own = ALIASES.get(name, name)
    if own not in NETWORKS:
        raise UnknownNameError("network", name, (*ALIASES, *NETWORKS))
    return own


def is_network_name(text: str) -> bool:
    """Whether `text` is the name or an alias of a network, or of one of timm, which checks its names itself."""
    return text.startswith(TIMM) or text in NETWORKS or text in ALIASES


def traits(name: str) -> Traits:
    """What the network called `name` has. Raises UnknownNameError; the names of timm are known to timm alone."""
    if name.startswith(TIMM):
        return Traits((3, 224, 224), has_stages=False, traceable=False, takes_small_input=False)
    return Traits(NETWORKS[resolve(name)].input, has_stages=True, traceable=True, takes_small_input=True)
