"""The published weights of the networks, all trained on ImageNet-1K: where they lie, under which licence, for which input.

The figures are those of timm 1.0.31 and torchvision 0.28. A network's default set comes first: timm's own default,
else torchvision's latest. The licence is that of the file as its publisher gives it; the images that it was trained
on are lent for non-commercial research, and what that means for weights is for their user to judge.
"""

from __future__ import annotations

from typing import NamedTuple

TIMM = "timm:"  # before the name of a network of timm, see `gossamer.networks.timm_adapter`
DEFAULT = "default"  # in the place of a set's name: the first one


class WeightSet(NamedTuple):
    """Weights that were published for a network.

    name: LIBRARY/NETWORK.SET, the network by its publisher's name. source: what `gossamer.networks.fetch` takes.
    top1: published ImageNet-1K accuracy in percent, and where it stands; None and "" where no source at hand says.
    input: side of the training images, pixels. crop_pct, interpolation, mean, std: as `gossamer.Preprocess` has them.
    norm_eps: what the batch norms added to the variance, where it is not what the network here adds.
    """

    name: str
    source: str
    licence: str
    top1: float | None
    top1_from: str
    input: int
    crop_pct: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    norm_eps: float | None = None


class Norm(NamedTuple):
    """Mean and standard deviation per channel, of values in 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Norm((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = Norm((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PLAIN = Norm((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def _timm(
    name: str,
    licence: str,
    crop_pct: float,
    interpolation: str,
    norm: Norm,
    *,
    input: int = 224,
    top1: float | None = None,
    norm_eps: float | None = None,
) -> WeightSet:
    """A set of timm's; each is in a repository of its name on the Hugging Face hub."""
    return WeightSet(
        name=f"timm/{name}",
        source=f"hf://timm/{name}",
        licence=licence,
        top1=top1,
        top1_from="" if top1 is None else "timm's results table",
        input=input,
        crop_pct=crop_pct,
        interpolation=interpolation,
        mean=norm.mean,
        std=norm.std,
        norm_eps=norm_eps,
    )


def _torchvision(
    name: str, file: str, top1: float, crop_pct: float, interpolation: str, norm: Norm, *, input: int = 224
) -> WeightSet:
    """A set of torchvision's; its file name ends in the first digits of its SHA-256.

    GoogLeNet and Inception v3 carry the conversion from ImageNet's mean and deviation to 0.5 in their forward pass
    there; here it is their preprocessing.
    """
    return WeightSet(
        name=f"torchvision/{name}",
        source=f"https://download.pytorch.org/models/{file}",
        licence="bsd-3-clause (torchvision)",
        top1=top1,
        top1_from="torchvision's documentation",
        input=input,
        crop_pct=crop_pct,
        interpolation=interpolation,
        mean=norm.mean,
        std=norm.std,
    )


WEIGHTS: dict[str, tuple[WeightSet, ...]] = {
    "alexnet": (
        _torchvision("alexnet.IMAGENET1K_V1", "alexnet-owt-7be5be79.pth", 56.522, 224 / 256, "bilinear", IMAGENET),
    ),
    "densenet121": (
        _timm("densenet121.ra_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, top1=75.574),
        _timm("densenet121.tv_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, top1=74.75),
        _torchvision("densenet121.IMAGENET1K_V1", "densenet121-a639ec97.pth", 74.434, 224 / 256, "bilinear", IMAGENET),
    ),
    "densenet161": (
        _timm("densenet161.tv_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET),
        _torchvision("densenet161.IMAGENET1K_V1", "densenet161-8d451a50.pth", 77.138, 224 / 256, "bilinear", IMAGENET),
    ),
    "densenet169": (
        _timm("densenet169.tv_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET),
        _torchvision("densenet169.IMAGENET1K_V1", "densenet169-b2777c0a.pth", 75.6, 224 / 256, "bilinear", IMAGENET),
    ),
    "densenet201": (
        _timm("densenet201.tv_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET),
        _torchvision("densenet201.IMAGENET1K_V1", "densenet201-c1103571.pth", 76.896, 224 / 256, "bilinear", IMAGENET),
    ),
    "efficientnet_b0": (
        _timm("efficientnet_b0.ra_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, top1=77.698),
        _timm("efficientnet_b0.ra4_e3600_r224_in1k", "apache-2.0", 0.9, "bicubic", HALF),
        _torchvision(
            "efficientnet_b0.IMAGENET1K_V1",
            "efficientnet_b0_rwightman-7f5810bc.pth",
            77.692,
            224 / 256,
            "bicubic",
            IMAGENET,
        ),
    ),
    "googlenet": (
        _torchvision("googlenet.IMAGENET1K_V1", "googlenet-1378be20.pth", 69.778, 224 / 256, "bilinear", HALF),
    ),
    "inception_resnet_v2": (
        _timm("inception_resnet_v2.tf_in1k", "apache-2.0", 0.8975, "bicubic", HALF, input=299, top1=80.434),
        _timm("inception_resnet_v2.tf_ens_adv_in1k", "apache-2.0", 0.8975, "bicubic", HALF, input=299),
    ),
    "inception_v3": (
        _timm("inception_v3.tv_in1k", "apache-2.0", 0.875, "bicubic", HALF, input=299),
        _timm("inception_v3.gluon_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, input=299, top1=78.806),
        _timm("inception_v3.tf_adv_in1k", "apache-2.0", 0.875, "bicubic", HALF, input=299),
        _timm("inception_v3.tf_in1k", "apache-2.0", 0.875, "bicubic", HALF, input=299, top1=77.866),
        _torchvision(
            "inception_v3.IMAGENET1K_V1",
            "inception_v3_google-0cc3c7bd.pth",
            77.294,
            299 / 342,
            "bilinear",
            HALF,
            input=299,
        ),
    ),
    "inception_v4": (_timm("inception_v4.tf_in1k", "apache-2.0", 0.875, "bicubic", HALF, input=299, top1=80.144),),
    "mnasnet_050": (
        _torchvision(
            "mnasnet0_5.IMAGENET1K_V1", "mnasnet0.5_top1_67.823-3ffadce67e.pth", 67.734, 224 / 256, "bilinear", IMAGENET
        ),
    ),
    "mnasnet_075": (
        _torchvision("mnasnet0_75.IMAGENET1K_V1", "mnasnet0_75-7090bc5f.pth", 71.18, 224 / 232, "bilinear", IMAGENET),
    ),
    "mnasnet_100": (
        _timm("mnasnet_100.rmsp_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, top1=74.672),
        _torchvision(
            "mnasnet1_0.IMAGENET1K_V1", "mnasnet1.0_top1_73.512-f206786ef8.pth", 73.456, 224 / 256, "bilinear", IMAGENET
        ),
    ),
    "mnasnet_small": (_timm("mnasnet_small.lamb_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, top1=66.204),),
    "mobilenetv1_100": (_timm("mobilenetv1_100.ra4_e3600_r224_in1k", "apache-2.0", 0.875, "bicubic", HALF),),
    "mobilenetv1_125": (_timm("mobilenetv1_125.ra4_e3600_r224_in1k", "apache-2.0", 0.9, "bicubic", HALF),),
    "mobilenetv2_050": (_timm("mobilenetv2_050.lamb_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, top1=65.928),),
    "mobilenetv2_100": (
        _timm("mobilenetv2_100.ra_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, top1=72.91),
        _torchvision(
            "mobilenet_v2.IMAGENET1K_V2", "mobilenet_v2-7ebf99e0.pth", 72.154, 224 / 232, "bilinear", IMAGENET
        ),
        _torchvision(
            "mobilenet_v2.IMAGENET1K_V1", "mobilenet_v2-b0353104.pth", 71.878, 224 / 256, "bilinear", IMAGENET
        ),
    ),
    "mobilenetv2_140": (_timm("mobilenetv2_140.ra_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, top1=76.528),),
    "mobilenetv3_large_100": (
        _timm("mobilenetv3_large_100.ra_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, top1=75.784, norm_eps=1e-05),
        _timm("mobilenetv3_large_100.miil_in21k_ft_in1k", "apache-2.0", 0.875, "bilinear", PLAIN, norm_eps=1e-05),
        _timm("mobilenetv3_large_100.ra4_e3600_r224_in1k", "apache-2.0", 0.95, "bicubic", HALF, norm_eps=1e-05),
        _torchvision(
            "mobilenet_v3_large.IMAGENET1K_V2",
            "mobilenet_v3_large-5c1a4163.pth",
            75.274,
            224 / 232,
            "bilinear",
            IMAGENET,
        ),
        _torchvision(
            "mobilenet_v3_large.IMAGENET1K_V1",
            "mobilenet_v3_large-8738ca79.pth",
            74.042,
            224 / 256,
            "bilinear",
            IMAGENET,
        ),
    ),
    "mobilenetv3_small_050": (
        _timm("mobilenetv3_small_050.lamb_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, norm_eps=1e-05),
    ),
    "mobilenetv3_small_075": (
        _timm("mobilenetv3_small_075.lamb_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, top1=65.284, norm_eps=1e-05),
    ),
    "mobilenetv3_small_100": (
        _timm("mobilenetv3_small_100.lamb_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, top1=67.636, norm_eps=1e-05),
        _torchvision(
            "mobilenet_v3_small.IMAGENET1K_V1",
            "mobilenet_v3_small-047dcff4.pth",
            67.668,
            224 / 256,
            "bilinear",
            IMAGENET,
        ),
    ),
    "resnet101": (
        _timm("resnet101.a1h_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnet101.a1_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnet101.a2_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnet101.a3_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET, input=160),
        _timm("resnet101.gluon_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET),
        _timm("resnet101.tv2_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET, input=176),
        _timm("resnet101.tv_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET),
        _torchvision("resnet101.IMAGENET1K_V2", "resnet101-cd907fc2.pth", 81.886, 224 / 232, "bilinear", IMAGENET),
        _torchvision("resnet101.IMAGENET1K_V1", "resnet101-63fe2227.pth", 77.374, 224 / 256, "bilinear", IMAGENET),
    ),
    "resnet152": (
        _timm("resnet152.a1h_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnet152.a1_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnet152.a2_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnet152.a3_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET, input=160),
        _timm("resnet152.gluon_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET),
        _timm("resnet152.tv2_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET, input=176),
        _timm("resnet152.tv_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET),
        _torchvision("resnet152.IMAGENET1K_V2", "resnet152-f82ba261.pth", 82.284, 224 / 232, "bilinear", IMAGENET),
        _torchvision("resnet152.IMAGENET1K_V1", "resnet152-394f9c45.pth", 78.312, 224 / 256, "bilinear", IMAGENET),
    ),
    "resnet18": (
        _timm("resnet18.a1_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnet18.a2_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnet18.a3_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET, input=160),
        _timm("resnet18.fb_ssl_yfcc100m_ft_in1k", "cc-by-nc-4.0", 0.875, "bilinear", IMAGENET),
        _timm("resnet18.fb_swsl_ig1b_ft_in1k", "cc-by-nc-4.0", 0.875, "bilinear", IMAGENET),
        _timm("resnet18.gluon_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET),
        _timm("resnet18.tv_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET),
        _torchvision("resnet18.IMAGENET1K_V1", "resnet18-f37072fd.pth", 69.758, 224 / 256, "bilinear", IMAGENET),
    ),
    "resnet34": (
        _timm("resnet34.a1_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnet34.a2_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnet34.a3_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET, input=160),
        _timm("resnet34.bt_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET),
        _timm("resnet34.gluon_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET),
        _timm("resnet34.ra4_e3600_r224_in1k", "apache-2.0", 0.9, "bicubic", HALF),
        _timm("resnet34.tv_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET),
        _torchvision("resnet34.IMAGENET1K_V1", "resnet34-b627a593.pth", 73.314, 224 / 256, "bilinear", IMAGENET),
    ),
    "resnet50": (
        _timm("resnet50.a1_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET, top1=80.382),
        _timm("resnet50.a1h_in1k", "apache-2.0", 0.9, "bicubic", IMAGENET, input=176),
        _timm("resnet50.a2_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnet50.a3_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET, input=160),
        _timm("resnet50.am_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET),
        _timm("resnet50.b1k_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnet50.b2k_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnet50.bt_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET),
        _timm("resnet50.c1_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnet50.c2_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnet50.d_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnet50.fb_ssl_yfcc100m_ft_in1k", "cc-by-nc-4.0", 0.875, "bilinear", IMAGENET),
        _timm("resnet50.fb_swsl_ig1b_ft_in1k", "cc-by-nc-4.0", 0.875, "bilinear", IMAGENET),
        _timm("resnet50.gluon_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET),
        _timm("resnet50.ra_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET),
        _timm("resnet50.ram_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET),
        _timm("resnet50.tv2_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET, input=176),
        _timm("resnet50.tv_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET),
        _torchvision("resnet50.IMAGENET1K_V2", "resnet50-11ad3fa6.pth", 80.858, 224 / 232, "bilinear", IMAGENET),
        _torchvision("resnet50.IMAGENET1K_V1", "resnet50-0676ba61.pth", 76.13, 224 / 256, "bilinear", IMAGENET),
    ),
    "resnext101_32x8d": (
        _timm("resnext101_32x8d.tv_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET),
        _timm("resnext101_32x8d.fb_ssl_yfcc100m_ft_in1k", "cc-by-nc-4.0", 0.875, "bilinear", IMAGENET),
        _timm("resnext101_32x8d.fb_swsl_ig1b_ft_in1k", "cc-by-nc-4.0", 0.875, "bilinear", IMAGENET),
        _timm("resnext101_32x8d.fb_wsl_ig1b_ft_in1k", "cc-by-nc-4.0", 0.875, "bilinear", IMAGENET),
        _timm("resnext101_32x8d.tv2_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET, input=176),
        _torchvision(
            "resnext101_32x8d.IMAGENET1K_V2", "resnext101_32x8d-110c445d.pth", 82.834, 224 / 232, "bilinear", IMAGENET
        ),
        _torchvision(
            "resnext101_32x8d.IMAGENET1K_V1", "resnext101_32x8d-8ba56ff5.pth", 79.312, 224 / 256, "bilinear", IMAGENET
        ),
    ),
    "resnext50_32x4d": (
        _timm("resnext50_32x4d.a1h_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnext50_32x4d.a1_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnext50_32x4d.a2_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("resnext50_32x4d.a3_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET, input=160),
        _timm("resnext50_32x4d.fb_ssl_yfcc100m_ft_in1k", "cc-by-nc-4.0", 0.875, "bilinear", IMAGENET),
        _timm("resnext50_32x4d.fb_swsl_ig1b_ft_in1k", "cc-by-nc-4.0", 0.875, "bilinear", IMAGENET),
        _timm("resnext50_32x4d.gluon_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET),
        _timm("resnext50_32x4d.ra_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET),
        _timm("resnext50_32x4d.tv2_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET, input=176),
        _timm("resnext50_32x4d.tv_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET),
        _torchvision(
            "resnext50_32x4d.IMAGENET1K_V2", "resnext50_32x4d-1a0047aa.pth", 81.198, 224 / 232, "bilinear", IMAGENET
        ),
        _torchvision(
            "resnext50_32x4d.IMAGENET1K_V1", "resnext50_32x4d-7cdf4587.pth", 77.618, 224 / 256, "bilinear", IMAGENET
        ),
    ),
    "semnasnet_100": (_timm("semnasnet_100.rmsp_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, top1=75.452),),
    "seresnet50": (
        _timm("seresnet50.a1_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET, top1=80.012),
        _timm("seresnet50.a2_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET),
        _timm("seresnet50.a3_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET, input=160),
        _timm("seresnet50.ra2_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, top1=80.26),
    ),
    "shufflenet_v2_x0_5": (
        _torchvision(
            "shufflenet_v2_x0_5.IMAGENET1K_V1",
            "shufflenetv2_x0.5-f707e7126e.pth",
            60.552,
            224 / 256,
            "bilinear",
            IMAGENET,
        ),
    ),
    "shufflenet_v2_x1_0": (
        _torchvision(
            "shufflenet_v2_x1_0.IMAGENET1K_V1",
            "shufflenetv2_x1-5666bf0f80.pth",
            69.362,
            224 / 256,
            "bilinear",
            IMAGENET,
        ),
    ),
    "shufflenet_v2_x1_5": (
        _torchvision(
            "shufflenet_v2_x1_5.IMAGENET1K_V1",
            "shufflenetv2_x1_5-3c479a10.pth",
            72.996,
            224 / 232,
            "bilinear",
            IMAGENET,
        ),
    ),
    "shufflenet_v2_x2_0": (
        _torchvision(
            "shufflenet_v2_x2_0.IMAGENET1K_V1", "shufflenetv2_x2_0-8be3c8ee.pth", 76.23, 224 / 232, "bilinear", IMAGENET
        ),
    ),
    "squeezenet1_0": (
        _torchvision(
            "squeezenet1_0.IMAGENET1K_V1", "squeezenet1_0-b66bff10.pth", 58.092, 224 / 256, "bilinear", IMAGENET
        ),
    ),
    "squeezenet1_1": (
        _torchvision(
            "squeezenet1_1.IMAGENET1K_V1", "squeezenet1_1-b8a52dc0.pth", 58.178, 224 / 256, "bilinear", IMAGENET
        ),
    ),
    "vgg11": (
        _timm("vgg11.tv_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET),
        _torchvision("vgg11.IMAGENET1K_V1", "vgg11-8a719046.pth", 69.02, 224 / 256, "bilinear", IMAGENET),
    ),
    "vgg11_bn": (
        _timm("vgg11_bn.tv_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET),
        _torchvision("vgg11_bn.IMAGENET1K_V1", "vgg11_bn-6002323d.pth", 70.37, 224 / 256, "bilinear", IMAGENET),
    ),
    "vgg13": (
        _timm("vgg13.tv_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET),
        _torchvision("vgg13.IMAGENET1K_V1", "vgg13-19584684.pth", 69.928, 224 / 256, "bilinear", IMAGENET),
    ),
    "vgg13_bn": (
        _timm("vgg13_bn.tv_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET),
        _torchvision("vgg13_bn.IMAGENET1K_V1", "vgg13_bn-abd245e5.pth", 71.586, 224 / 256, "bilinear", IMAGENET),
    ),
    "vgg16": (
        _timm("vgg16.tv_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET, top1=71.594),
        _torchvision("vgg16.IMAGENET1K_V1", "vgg16-397923af.pth", 71.592, 224 / 256, "bilinear", IMAGENET),
    ),
    "vgg16_bn": (
        _timm("vgg16_bn.tv_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET),
        _torchvision("vgg16_bn.IMAGENET1K_V1", "vgg16_bn-6c64b313.pth", 73.36, 224 / 256, "bilinear", IMAGENET),
    ),
    "vgg19": (
        _timm("vgg19.tv_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET),
        _torchvision("vgg19.IMAGENET1K_V1", "vgg19-dcbb9e9d.pth", 72.376, 224 / 256, "bilinear", IMAGENET),
    ),
    "vgg19_bn": (
        _timm("vgg19_bn.tv_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET),
        _torchvision("vgg19_bn.IMAGENET1K_V1", "vgg19_bn-c79401a0.pth", 74.218, 224 / 256, "bilinear", IMAGENET),
    ),
    "wide_resnet101_2": (
        _timm("wide_resnet101_2.tv_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET),
        _timm("wide_resnet101_2.tv2_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET, input=176),
        _torchvision(
            "wide_resnet101_2.IMAGENET1K_V2", "wide_resnet101_2-d733dc28.pth", 82.51, 224 / 232, "bilinear", IMAGENET
        ),
        _torchvision(
            "wide_resnet101_2.IMAGENET1K_V1", "wide_resnet101_2-32ee1156.pth", 78.848, 224 / 256, "bilinear", IMAGENET
        ),
    ),
    "wide_resnet50_2": (
        _timm("wide_resnet50_2.racm_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET),
        _timm("wide_resnet50_2.tv2_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET, input=176),
        _timm("wide_resnet50_2.tv_in1k", "bsd-3-clause", 0.875, "bilinear", IMAGENET),
        _torchvision(
            "wide_resnet50_2.IMAGENET1K_V2", "wide_resnet50_2-9ba9bcbe.pth", 81.602, 224 / 232, "bilinear", IMAGENET
        ),
        _torchvision(
            "wide_resnet50_2.IMAGENET1K_V1", "wide_resnet50_2-95faca4d.pth", 78.468, 224 / 256, "bilinear", IMAGENET
        ),
    ),
    "ghostnet_100": (_timm("ghostnet_100.in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, top1=73.958),),
    "mobilenetv4_conv_medium": (
        _timm(
            "mobilenetv4_conv_medium.e500_r256_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET, input=256, top1=79.916
        ),
        _timm("mobilenetv4_conv_medium.e250_r384_in12k_ft_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET, input=384),
        _timm("mobilenetv4_conv_medium.e500_r224_in1k", "apache-2.0", 0.95, "bicubic", IMAGENET, top1=79.092),
    ),
    "mobilenetv4_conv_small": (
        _timm("mobilenetv4_conv_small.e2400_r224_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, top1=73.756),
        _timm("mobilenetv4_conv_small.e1200_r224_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET),
        _timm("mobilenetv4_conv_small.e3600_r256_in1k", "apache-2.0", 0.95, "bicubic", HALF, input=256),
    ),
    "skresnext50_32x4d": (_timm("skresnext50_32x4d.ra_in1k", "apache-2.0", 0.875, "bicubic", IMAGENET, top1=80.168),),
}
