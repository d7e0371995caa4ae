"""What a network costs, counted on shapes alone with the task's own head."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from gossamer.analysis.cost import cost, macs
from gossamer.analysis.graph import Graph, Node, trace
from gossamer.data.source import Data
from gossamer.errors import GossamerError
from gossamer.networks.create import create_model
from gossamer.networks.registry import traits
from gossamer.predictions.head import outputs_of
from gossamer.selection.budget import BYTES
from gossamer.selection.choices import NetworkChoice
from gossamer.settings import Settings
from gossamer.tasks.base import stacked
from gossamer.tasks.registry import task_of
from gossamer.training.defaults import SMALL
from gossamer.training.distributed import Processes
from gossamer.training.setup import resolve_settings

CLASSES = 1000  # of a network that is picked without data


@dataclass(frozen=True)
class Counted:
    """params: those that are read, macs; peak: bytes of activations in float32. signature: what the time depends on, but for the machine."""

    params: int
    macs: int
    peak: int
    signature: str

    def weight_bytes(self, precision: str) -> int:
        """Of the parameters."""
        return self.params * BYTES[precision]

    def memory(self, precision: str) -> int:
        """Bytes of the parameters and of the activations at their peak."""
        return self.weight_bytes(precision) + self.peak * BYTES[precision] // 4


@dataclass(frozen=True)
class Builder:
    """Builds the network of a choice with fresh weights. settings: those of a training with the task, None without data."""

    settings: Callable[[NetworkChoice], Settings] | None = None
    data: Data | None = None

    def resolved(self, choice: NetworkChoice) -> Settings:
        """All settings of a training of the choice. Raises InputError."""
        assert self.settings is not None and self.data is not None, "a pick with data"
        return resolve_settings(self.settings(choice), self.data, Processes())[0]

    def build(self, choice: NetworkChoice, shapes_only: bool) -> tuple[nn.Module, tuple[int, ...], tuple[str, ...]]:
        """The network, the shape (1, C, H, W) of its input, and the names of its outputs. Raises InputError."""
        where = torch.device("meta" if shapes_only else "cpu")
        if self.settings is None or self.data is None:
            small = traits(choice.net).takes_small_input and max(choice.size) <= SMALL
            with where:
                model: nn.Module = create_model(
                    choice.net,
                    num_classes=CLASSES,
                    in_chans=choice.channels,
                    width=choice.width,
                    small_input=small and max(traits(choice.net).input[1:]) > SMALL,
                )
            return model, (1, choice.channels, *choice.size), ("logits",)
        settings = self.resolved(choice)
        task = task_of(settings.task)(self.data.classes, settings)
        with where:
            model = task.build()
        return model, (1, choice.channels, *stacked(choice.size, settings)), outputs_of(task.heads())

    def count(self, choice: NetworkChoice) -> Counted:
        """What the network costs. Raises GossamerError where it cannot be built or does not take the input."""
        try:
            model, shape, _ = self.build(choice, shapes_only=True)
            return counted(trace(model, shape))
        except (NotImplementedError, RuntimeError) as error:
            if isinstance(error, GossamerError):
                raise
        model, shape, _ = self.build(choice, shapes_only=False)  # a part that cannot be made of shapes alone
        return counted(trace(model, shape))


def counted(graph: Graph) -> Counted:
    """The figures of what the outputs need: a head may read earlier maps than the last, and an export drops the rest."""
    live = {graph.values[index].memory for index in graph.outputs}
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if any(graph.values[index].memory in live for index in node.outputs):
            live |= {graph.values[index].memory for index in node.inputs}
            nodes.append(node)
    params = {value.memory: value.numel for node in nodes for value in graph.read(node, "parameter")}
    own = [macs(graph, node) or 0 for node in nodes]
    shapes = [[[list(graph.values[index].shape) for index in (*one.inputs, *one.outputs)], one.op] for one in nodes]
    attributes = [sorted((key, str(value)) for key, value in one.attributes.items()) for one in nodes]
    text = json.dumps([[list(graph.values[index].shape) for index in graph.inputs], shapes, attributes, own])
    signature = hashlib.sha256(text.encode()).hexdigest()[:24]
    return Counted(sum(params.values()), sum(own), cost(graph).peak_bytes, signature)


@functools.cache
def file_overhead(size: tuple[int, int], channels: int) -> int:
    """Bytes that the check inputs and images of a model file take, at most: they stand in it as text."""
    import io

    from PIL import Image

    from gossamer.export.onnx import NOISE_BLOCKS, REAL_CHECKS
    from gossamer.export.samples import build_check_images, noise
    from gossamer.images.preprocess import Preprocess

    preprocess = Preprocess(size=size, channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels)

    def png(pixels: object) -> int:
        file = io.BytesIO()
        Image.fromarray(pixels.squeeze()).save(file, "PNG")  # type: ignore[attr-defined]
        return len(file.getvalue())

    total = sum(len(one.file) + png(one.pixels) for one in build_check_images(preprocess))
    total += sum(png(noise(size, channels, block, 0)) for block in NOISE_BLOCKS)
    total += REAL_CHECKS * size[0] * size[1] * channels  # photographs hardly become smaller
    return 4 * total // 3
