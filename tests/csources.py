"""C source of networks, built and run by this machine's compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.csource import compiler
from gossamer.csource.device import network_of
from gossamer.csource.network import BYTES, Network
from gossamer.csource.source import net_c, net_h
from gossamer.modelfile.metadata import ModelFile

# reads and writes outside an array, and what C leaves undefined, end the program
SANITISED = ("-fsanitize=undefined,address", "-fno-sanitize-recover=all")


def built(file: ModelFile, folder: Path, *flags: str) -> Network:
    """The network's net.o in a folder, from strict C99."""
    network, command = network_of(file), compiler.compiler()
    assert command is not None
    folder.mkdir(exist_ok=True)
    (folder / "net.c").write_text(net_c(network, None))
    (folder / "net.h").write_text(net_h(network, None))
    compiler.build(command, folder, ("net.c",), "net.o", *compiler.STRICT, "-pedantic", *(flags or ("-O1",)), "-c")
    return network


def outputs_of(network: Network, folder: Path, batch: NDArray[np.float32], *flags: str) -> NDArray[Any]:
    """Its outputs (N, numbers) for float32 (N, C, H, W), which bytes of int8 networks are made of; as float32."""
    values = batch if network.program.shape is not None else batch.transpose(0, 2, 3, 1)
    given: NDArray[Any] = np.ascontiguousarray(values).reshape(len(batch), -1)
    if network.type == BYTES:
        given = input_bytes(network, given)
    command = compiler.compiler()
    assert command is not None
    raw = compiler.run_inputs([*command, *flags], folder, network, given)
    return np.ascontiguousarray(raw).view(np.float32)


def input_bytes(network: Network, given: NDArray[np.float32]) -> NDArray[np.uint8]:
    """QuantizeLinear of the input."""
    levels = np.rint(given / np.float32(network.scale)) + network.zero
    return np.clip(levels, 0, 255).astype(np.uint8)
