"""The only tracer: any `nn.Module` as a graph of the operations that it runs, with shapes and edges.

The module's forward runs once, in eval mode and without gradients, on tensors of the meta device (shapes without
data), under a `TorchDispatchMode` that writes down each ATen operation. That sees exactly what executes, below every
module and function, as `torch.utils.flop_counter` does, and follows Python control flow; weights are replaced by meta
tensors for the call, so none is allocated or copied.

The alternatives, MobileNetV2 at 224x224, first call in a fresh process after `import torch`, on one core: this 0.03 s
(1.7 s without `gossamer.analysis.meta_kernels`), FakeTensorMode 1.4 s (its first use imports sympy), torch.export above 2 s; torch.fx
with shape propagation sees modules instead of operations and fails on control flow that depends on shapes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from gossamer.analysis.meta_kernels import meta_result
from gossamer.errors import InputError


@dataclass(frozen=True)
class Value:
    """A tensor between operations; `index` is its place in `Graph.values`.

    kind: "input", "parameter", "buffer", "constant" (computed in forward from no input) or "activation"; a view has the
        kind of what it is a view of.
    name: of the parameter or buffer, as in `state_dict()`, else "".
    memory: values with the same number share their storage: a view, or a value written in place.
    node: index of the node that computed it, -1 if none did.
    """

    index: int
    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    memory: int
    node: int = -1
    name: str = ""

    @property
    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def bytes(self) -> int:
        """Size in bytes, if stored densely."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class Node:
    """One operation; `index` is its place in `Graph.nodes`, which is the order of execution.

    op: ATen name without overload, and without the underscore of the in-place form: "convolution", "addmm", "relu";
        of another namespace with it: "torchvision::nms".
    module: path of the innermost module whose forward called it, "" for the outermost.
    inputs, outputs: indices of values, in the order of the operation's arguments and results.
    attributes: the arguments that are no tensors, by name, defaults filled in: stride, padding, dim, ...
    """

    index: int
    op: str
    module: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attributes: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Graph:
    """What a module runs, in order. Parameters and buffers that nothing reads are among the values, too."""

    nodes: tuple[Node, ...]
    values: tuple[Value, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @functools.cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For each value the indices of the nodes that read it, in order."""
        readers: list[dict[int, None]] = [{} for _ in self.values]
        for node in self.nodes:
            for value in node.inputs:
                readers[value][node.index] = None
        return tuple(tuple(nodes) for nodes in readers)

    def read(self, node: Node, *kinds: str) -> tuple[Value, ...]:
        """The distinct values of these kinds that a node reads."""
        return tuple(value for i in dict.fromkeys(node.inputs) if (value := self.values[i]).kind in kinds)

    def written(self, node: Node) -> tuple[Value, ...]:
        """The values that a node makes."""
        return tuple(self.values[i] for i in node.outputs)


def trace(module: nn.Module, input_shape: Sequence[int] = (1, 3, 224, 224)) -> Graph:
    """The graph of `module` in eval mode on one input of `input_shape` (N, C, H, W), of the parameters' float type.

    The module is left as it was. Raises InputError where forward cannot run on shapes alone (it reads values, as
    `.item()` does) or does not accept this shape.
    """
    shape = tuple(int(side) for side in input_shape)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())
    recorder = _Recorder()
    meta_tensors = recorder.adopt_weights(module)
    image = torch.empty(shape, dtype=dtype, device="meta")
    recorder.add(image, "input")
    try:
        with _eval_mode(module), _module_paths(module, recorder.path), torch.no_grad(), recorder:
            result = functional_call(module, meta_tensors, (image,))
    except Exception as error:  # forward is the user's code: it may raise anything
        size = "x".join(map(str, shape))
        raise InputError(
            f"{type(module).__name__} cannot be traced with an input of {size}: {type(error).__name__}: {error}",
            "a module whose forward runs on shapes alone and accepts this input",
            "give another input size, or let forward not read the values of tensors",
        ) from error
    return recorder.graph(recorder.value_of(image), [t for t in tree_leaves(result) if isinstance(t, Tensor)])


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not type its hook for subclasses
    """Writes down each operation on a meta tensor; arithmetic on real constants alone is carried out, not recorded."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path: list[str] = [""]
        self.nodes: list[Node] = []
        self.values: list[Value] = []
        self.current: dict[int, int] = {}  # id of a tensor -> its value
        self.meta_tensors: dict[int, Tensor] = {}  # id of a real tensor -> its meta tensor
        self.memories: dict[int, int] = {}  # address of a storage -> number of the memory
        self.origins: dict[int, tuple[str, str]] = {}  # memory -> kind and name of its first value
        self.last_write: dict[int, int] = {}  # memory -> last node that wrote into it in place
        self.kept: list[Tensor] = []  # an id is unique only among living tensors

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch wraps __torch_dispatch__ so that its first call imports torch._dynamo: 1.5 s

    def adopt_weights(self, module: nn.Module) -> dict[str, Tensor]:
        """A value for each parameter and buffer; returns their meta tensors by name, tied ones once."""
        named = {}
        for kind, members in (
            ("parameter", module.named_parameters(remove_duplicate=False)),
            ("buffer", module.named_buffers(remove_duplicate=False)),
        ):
            for name, tensor in members:
                if id(tensor) not in self.meta_tensors:
                    self._adopt(tensor, kind, name)
                named[name] = self.meta_tensors[id(tensor)]
        return named

    def add(self, tensor: Tensor, kind: str, node: int = -1, name: str = "") -> int:
        """A new value for what `tensor` holds from now on."""
        memory = self.memories.setdefault(tensor.untyped_storage()._cdata, len(self.memories))
        kind, name = self.origins.setdefault(memory, (kind, name))
        value = Value(len(self.values), kind, tuple(tensor.shape), tensor.dtype, memory, node, name)
        self.values.append(value)
        self.current[id(tensor)] = value.index
        self.kept.append(tensor)
        return value.index

    def value_of(self, tensor: Tensor) -> int:
        """The value that `tensor` holds now; a new one where its memory was since written through another view."""
        value = self.values[self.current[id(tensor)]]
        writer = self.last_write.get(value.memory, -1)
        if writer <= value.node:
            return value.index
        renewed = self.add(tensor, "activation", writer)
        node = self.nodes[writer]
        self.nodes[writer] = replace(node, outputs=(*node.outputs, renewed))
        return renewed

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        arguments = (args, kwargs or {})
        tensors = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
        if not any(id(t) in self.current or id(t) in self.meta_tensors for t in tensors):
            return func(*arguments[0], **arguments[1])
        args, kwargs = tree_map_only(Tensor, self._meta, arguments)
        if "device" in kwargs:  # .cpu(), .to("cuda"): shapes have no device
            kwargs["device"] = torch.device("meta")
        schema = _schema(func)
        result = meta_result(func, schema.op, args, kwargs, schema.written)
        self._record(func, args, kwargs, result)
        return result

    def graph(self, source: int, results: list[Tensor]) -> Graph:
        outputs = tuple(self.value_of(self._meta(t)) for t in results)
        read = {i for node in self.nodes for i in node.inputs}.union(outputs)
        # What nothing reads, such as the indices of a max pool, is no part of the network; the first result stays.
        nodes = [
            replace(node, outputs=tuple(v for n, v in enumerate(node.outputs) if n == 0 or v in read))
            for node in self.nodes
        ]
        return Graph(tuple(nodes), tuple(self.values), (source,), outputs)

    def _adopt(self, tensor: Tensor, kind: str, name: str = "") -> Tensor:
        meta_tensor = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="meta")
        self.meta_tensors[id(tensor)] = meta_tensor
        self.kept.append(tensor)
        self.add(meta_tensor, kind, name=name)
        return meta_tensor

    def _meta(self, tensor: Tensor) -> Tensor:
        """The tensor, or the meta tensor that stands for it."""
        if id(tensor) in self.current:
            return tensor
        return self.meta_tensors[id(tensor)] if id(tensor) in self.meta_tensors else self._adopt(tensor, "constant")

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        index = len(self.nodes)
        arguments = _arguments(func, args, kwargs)
        inputs = tuple(self.value_of(t) for t in tree_leaves(list(arguments.values())) if isinstance(t, Tensor))
        attributes = {k: v for k, v in arguments.items() if not any(isinstance(t, Tensor) for t in tree_leaves(v))}
        changed = [t for name in _schema(func).written for t in tree_leaves(arguments[name]) if isinstance(t, Tensor)]
        results = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        distinct = {id(t): t for t in [*changed, *results]}
        outputs = tuple(self.add(t, "activation", index) for t in distinct.values())
        for tensor in changed:
            self.last_write[self.values[self.current[id(tensor)]].memory] = index
        self.nodes.append(Node(index, _schema(func).op, self.path[-1], inputs, outputs, attributes))


@dataclass(frozen=True)
class _Schema:
    op: str
    defaults: dict[str, Any]  # argument -> its default, in order
    written: tuple[str, ...]  # arguments that the operation changes


@functools.cache
def _schema(func: Any) -> _Schema:
    schema = func._schema
    namespace, _, name = schema.name.partition("::")
    written = tuple(a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write)
    if written and name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    defaults = {a.name: a.default_value for a in schema.arguments}
    return _Schema(name if namespace == "aten" else f"{namespace}::{name}", defaults, written)


def _arguments(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments by name, with the defaults of the others."""
    defaults = _schema(func).defaults
    return {**defaults, **dict(zip(defaults, args, strict=False)), **kwargs}


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        yield
    finally:
        for m in training:
            m.training = True


@contextmanager
def _module_paths(module: nn.Module, stack: list[str]) -> Iterator[None]:
    """Keep the path of the module whose forward runs on top of `stack`."""

    def enter(path: str) -> Callable[..., None]:
        return lambda *_: stack.append(path)

    def leave(*_: Any) -> None:
        stack.pop()

    hooks = []
    try:
        for path, child in module.named_modules():
            hooks.append(child.register_forward_pre_hook(enter(path)))
            hooks.append(child.register_forward_hook(leave))
        yield
    finally:
        for hook in hooks:
            hook.remove()
