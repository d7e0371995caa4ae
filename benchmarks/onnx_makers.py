"""The ONNX files of benchmarks/onnx_files.py: networks of others, written by the exporters of others.

    python benchmarks/onnx_makers.py FOLDER NAME...

It runs as a script in environments that have PaddlePaddle or TensorFlow and not gossamer, so each import is in its function.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Maker:
    """name: origin/network. needs: the environment it runs in, "" for that of the development."""

    name: str
    make: Callable[[Path], None] = field(repr=False)
    needs: str = ""


def torch_file(path: Path, package: str, network: str, side: int, opset: int, batch: bool, dynamo: bool) -> None:
    """A network of torchvision or timm with random weights and statistics; batch: of any size, else of one image."""
    import warnings

    import torch

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.counterparts import counterpart

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    if network.startswith("segmentation."):
        network = network.removeprefix("segmentation.")
    arguments: dict[str, Any] = {"weights": None} if package == "torchvision" else {}
    if network in ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "fcn_resnet50"):
        arguments["weights_backbone"] = None
    if network in ("googlenet", "inception_v3"):
        arguments |= {"init_weights": False, "aux_logits": False}
    model = counterpart(package, network, **arguments)
    x, names = torch.randn(1, 3, side, side), {"input_names": ["input"], "output_names": ["output"]}
    if dynamo:
        shapes = {"dynamic_shapes": ({0: torch.export.Dim("batch", min=1, max=64)},)} if batch else {}
        torch.onnx.export(model, (x,), str(path), dynamo=True, opset_version=opset, **names, **shapes)
    else:
        axes = {"dynamic_axes": {"input": {0: "batch"}, "output": {0: "batch"}}} if batch else {}
        torch.onnx.export(model, (x,), str(path), dynamo=False, opset_version=opset, **names, **axes)


TORCH: tuple[tuple[str, str, int, int, bool, bool], ...] = (
    # package, network, side, opset, any batch, exporter dynamo
    ("torchvision", "resnet18", 64, 11, True, False),
    ("torchvision", "densenet121", 64, 13, True, False),
    ("torchvision", "googlenet", 64, 11, False, False),
    ("torchvision", "inception_v3", 96, 17, True, False),
    ("torchvision", "squeezenet1_1", 64, 11, False, False),
    ("torchvision", "mobilenet_v2", 64, 17, True, False),
    ("torchvision", "mobilenet_v3_small", 64, 13, False, False),
    ("torchvision", "mnasnet0_5", 64, 11, True, False),
    ("torchvision", "shufflenet_v2_x0_5", 64, 11, True, False),
    ("torchvision", "shufflenet_v2_x1_0", 64, 17, False, False),
    ("torchvision", "efficientnet_b0", 64, 17, True, False),
    ("torchvision", "regnet_y_400mf", 64, 13, True, False),
    ("torchvision", "convnext_tiny", 64, 17, True, False),
    ("torchvision", "lraspp_mobilenet_v3_large", 96, 13, True, False),
    ("torchvision", "resnet18", 64, 18, True, True),
    ("torchvision", "mobilenet_v3_large", 64, 18, True, True),
    ("torchvision", "shufflenet_v2_x0_5", 64, 20, True, True),
    ("torchvision", "mobilenet_v2", 64, 21, False, True),
    ("torchvision", "googlenet", 64, 18, True, True),
    ("torchvision", "convnext_tiny", 64, 20, False, True),
    ("timm", "mobileone_s0", 64, 17, True, False),
    ("timm", "repvgg_a0", 64, 13, True, False),
    ("timm", "repghostnet_050", 64, 17, True, False),
    ("timm", "ghostnet_050", 64, 11, True, False),
    ("timm", "ecaresnet26t", 64, 13, True, False),
    ("timm", "mobilenetv4_conv_small", 64, 17, False, False),
    ("timm", "tf_mobilenetv3_small_minimal_100", 64, 17, False, False),
    ("timm", "tf_efficientnet_lite0", 64, 11, True, False),
    ("timm", "skresnet18", 64, 17, True, False),
    ("timm", "selecsls42", 64, 11, True, False),
    ("timm", "ese_vovnet19b_dw", 64, 13, True, False),
    ("timm", "rexnet_100", 64, 17, True, False),
    ("timm", "resnetv2_50x1_bit", 64, 17, True, False),
    ("timm", "convnextv2_atto", 64, 17, True, False),
    ("timm", "starnet_s1", 64, 17, True, False),
    ("timm", "darknet17", 64, 13, True, False),
    ("timm", "hardcorenas_a", 64, 11, True, False),
    ("timm", "mobilenetv4_conv_small", 64, 18, True, True),
    ("timm", "mobileone_s0", 64, 18, True, True),
    ("timm", "ecaresnet26t", 64, 18, True, True),
    ("timm", "ghostnetv2_100", 64, 21, True, True),
    ("timm", "resnetv2_50x1_bit", 64, 18, True, True),
    ("timm", "dla34", 64, 20, True, True),
)


def caffe2_file(path: Path, name: str) -> None:
    """A file of the ONNX model zoo as the onnx package brings it, its constants filled with random numbers instead of one."""
    import numpy as np
    import onnx
    from onnx import numpy_helper
    from onnx.backend.test import data  # type: ignore[attr-defined]

    folder = Path(data.__path__[0]) / "light"
    model = onnx.load(folder / f"light_{name}.onnx")
    rng, tensors = np.random.default_rng(0), {one.name: one for one in model.graph.initializer}
    variances = {node.input[4] for node in model.graph.node if node.op_type == "BatchNormalization"}
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = [int(one) for one in numpy_helper.to_array(tensors[node.input[0]])]
        spread = (2 / max(1, int(np.prod(shape[1:])))) ** 0.5 if len(shape) > 1 else 0.1
        values = rng.uniform(0.5, 1.5, shape) if node.output[0] in variances else rng.standard_normal(shape) * spread
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    onnx.save(model, path)


CAFFE2 = (
    "bvlc_alexnet densenet121 inception_v1 inception_v2 resnet50 shufflenet squeezenet".split()
)  # without vgg19 and zfnet512, of 140 and 87 million weights


def keras_file(path: Path, network: str, side: int, opset: int, channels_first: bool) -> None:
    """A network of keras.applications by tf2onnx; channels_first: its input moved to channels first by the exporter."""
    import tensorflow as tf
    import tf2onnx

    tf.random.set_seed(0)
    model = getattr(tf.keras.applications, network)(weights=None, input_shape=(side, side, 3))
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.moving_mean.assign(tf.random.normal(layer.moving_mean.shape, 0, 0.1))
            layer.moving_variance.assign(tf.random.uniform(layer.moving_variance.shape, 0.5, 1.5))
    spec = (tf.TensorSpec((None, side, side, 3), tf.float32, name="input"),)
    more = {"inputs_as_nchw": ["input"]} if channels_first else {}
    tf2onnx.convert.from_keras(model, input_signature=spec, opset=opset, output_path=str(path), **more)


KERAS: tuple[tuple[str, int, int, bool], ...] = (
    ("MobileNet", 96, 11, False),
    ("MobileNetV2", 96, 13, False),
    ("MobileNetV3Small", 96, 15, False),
    ("DenseNet121", 64, 13, False),
    ("EfficientNetB0", 64, 17, False),
    ("InceptionV3", 96, 13, True),
    ("ResNet50V2", 64, 18, False),
    ("Xception", 96, 17, True),
)


def paddle_file(path: Path, network: str, side: int, opset: int) -> None:
    """A network of paddle.vision by paddle2onnx."""
    import paddle

    paddle.seed(0)
    model = getattr(paddle.vision.models, network)(pretrained=False)
    for weight in model.parameters():  # as they are, the outputs of some would be 1e-17
        if weight.ndim > 1:
            inputs = math.prod(weight.shape[1:]) if weight.ndim == 4 else weight.shape[0]
            weight.set_value(paddle.randn(weight.shape) * (2 / inputs) ** 0.5)
    model.eval()
    spec = [paddle.static.InputSpec([None, 3, side, side], "float32", "input")]
    paddle.onnx.export(model, str(path.with_suffix("")), input_spec=spec, opset_version=opset)


PADDLE: tuple[tuple[str, int, int], ...] = (
    ("alexnet", 224, 11),
    ("resnet18", 64, 11),
    ("mobilenet_v1", 64, 11),
    ("mobilenet_v3_small", 64, 13),
    ("shufflenet_v2_x0_5", 64, 12),
    ("squeezenet1_1", 64, 14),
)

MAKERS = (
    *(
        Maker(
            f"torch/{network}-{'dynamo' if dynamo else 'legacy'}{opset}",
            partial(torch_file, package=package, network=network, side=side, opset=opset, batch=batch, dynamo=dynamo),
        )
        for package, network, side, opset, batch, dynamo in TORCH
    ),
    *(Maker(f"caffe2/{name}", partial(caffe2_file, name=name)) for name in CAFFE2),
    *(
        Maker(
            f"keras/{network}-{opset}",
            partial(keras_file, network=network, side=side, opset=opset, channels_first=channels_first),
            "keras",
        )
        for network, side, opset, channels_first in KERAS
    ),
    *(
        Maker(f"paddle/{network}-{opset}", partial(paddle_file, network=network, side=side, opset=opset), "paddle")
        for network, side, opset in PADDLE
    ),
)


def main() -> int:
    folder, *names = sys.argv[1:]
    makers = {maker.name: maker for maker in MAKERS}
    for name in names:
        path = Path(folder) / f"{name}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            makers[name].make(path)
        except Exception as error:  # whatever an exporter raises: the others go on
            print(f"not made  {name}: {str(error)[:300]}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
