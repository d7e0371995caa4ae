"""The shapes of ncnn layers as they are worked out before ncnn reads them: those of each writer, and what would read past a blob."""

from __future__ import annotations

import math

import pytest

from gossamer.ncnn.graph import Graph, Shape
from gossamer.ncnn.layers import check_layers
from tests.hostile.make_ncnn import WINDOW

TAG, FLOAT = 4, 4


def checked(line: str, weights: int = 0, second: str = "0=4 1=6 2=8") -> dict[str, Shape]:
    """One layer behind an input (8, 6, 4), with a constant beside it where the layer reads two."""
    layers = ["Input i 0 1 x 0=4 1=6 2=8"]
    if " z " in line:
        layers.append(f"MemoryData m 0 1 z {second}")
        weights += FLOAT * math.prod(int(one.split("=")[1]) for one in second.split())
    layers.append(line)
    return check_layers("\n".join(["7767517", f"{len(layers)} {len(layers)}", *layers, ""]), weights)


FULL = "1=3 11=3 2=1 12=1 3=2 13=2 4=1 15=0 14=1 16=1 5=1"
GOOD: dict[str, tuple[str, int, str, Shape]] = {
    "convolution": (f"Convolution c 1 1 x y 0=5 {FULL} 6=360", TAG + FLOAT * 365, "", (5, 3, 2)),
    "activation": (
        f"Convolution c 1 1 x y 0=5 {FULL} 6=360 9=3 -23310=2,0.000000000e+00,6.000000000e+00",
        1464,
        "",
        (5, 3, 2),
    ),
    "groups": (f"ConvolutionDepthWise c 1 1 x y 0=8 {WINDOW} 6=16 7=4", TAG + FLOAT * 24, "", (8, 6, 4)),
    "sum": ("BinaryOp c 2 1 x z y 0=0", 0, "0=1 1=1 2=8", (8, 6, 4)),
    "concat": ("Concat c 2 1 x z y 0=0", 0, "0=4 1=6 2=3", (11, 6, 4)),
    "crop": ("Crop c 1 1 x y 0=1 1=2 2=3 3=3 4=4 5=5", 0, "", (5, 4, 3)),
    "interp": ("Interp c 1 1 x y 0=2 3=12 4=8 6=0", 0, "", (8, 12, 8)),
    "columns": ("MatMul c 2 1 x z y", 0, "0=9 1=4", (8, 6, 9)),
    "rows": ("MatMul c 2 1 z x y", 0, "0=6 1=9", (8, 9, 4)),
    "permute": ("Permute c 1 1 x y 0=3", 0, "", (6, 4, 8)),
    "pixel shuffle": ("PixelShuffle c 1 1 x y 0=2 1=0", 0, "", (2, 12, 8)),
    "pool": ("Pooling c 1 1 x y 0=0 1=2 11=3 2=2 12=1 3=0 14=1 13=0 15=0 5=1", 0, "", (8, 4, 2)),
    "mean": ("Pooling c 1 1 x y 0=1 4=1", 0, "", (8,)),
    "reshape": ("Reshape c 1 1 x y 0=4 1=2 11=3 2=8", 0, "", (8, 3, 2, 4)),
    "scale": ("Scale c 1 1 x y 0=8 1=1", 64, "", (8, 6, 4)),
}


@pytest.mark.parametrize("name", GOOD)
def test_the_shape_of_a_layer(name: str) -> None:
    line, weights, second, shape = GOOD[name]
    assert checked(line, weights, second)["y"] == shape


BAD: dict[str, tuple[str, int, str]] = {
    "channels": (f"Convolution c 1 1 x y 0=5 {FULL} 6=45", TAG + FLOAT * 50, ""),
    "outputs": (f"Convolution c 1 1 x y 0=500 {FULL} 6=360", TAG + FLOAT * 860, ""),
    "window": (f"Convolution c 1 1 x y 0=1 {WINDOW.replace('1=1 11=1', '1=5 11=1')} 6=40", TAG + FLOAT * 41, ""),
    "stride": (f"Convolution c 1 1 x y 0=1 {WINDOW.replace('13=1', '13=0')} 6=8", TAG + FLOAT * 9, ""),
    "padding": (f"Convolution c 1 1 x y 0=1 {WINDOW.replace('14=0', '14=99999999')} 6=8", TAG + FLOAT * 9, ""),
    "padding below zero": (f"Convolution c 1 1 x y 0=1 {WINDOW.replace('14=0', '14=-2')} 6=8", TAG + FLOAT * 9, ""),
    "no groups": (f"ConvolutionDepthWise c 1 1 x y 0=8 {WINDOW} 6=8 7=0", TAG + FLOAT * 16, ""),
    "no numbers of the activation": (f"Convolution c 1 1 x y 0=1 {WINDOW} 6=8 9=3", TAG + FLOAT * 9, ""),
    "dynamic weights": (f"Convolution c 1 1 x y 0=1 {WINDOW} 6=8 19=1", TAG + FLOAT * 9, ""),
    "dense of a map": ("InnerProduct c 1 1 x y 0=1 1=1 2=192", TAG + FLOAT * 193, ""),
    "scale of fewer": ("Scale c 1 1 x y 0=1 1=1", 8, ""),
    "sum of others": ("BinaryOp c 2 1 x z y 0=0", 0, "0=4 1=6 2=7"),
    "sum of another rank": ("BinaryOp c 2 1 x z y 0=0", 0, "0=4"),
    "concat of others": ("Concat c 2 1 x z y 0=0", 0, "0=4 1=5 2=8"),
    "concat of another axis": ("Concat c 2 1 x z y 0=1", 0, "0=4 1=6 2=8"),
    "crop past the end": ("Crop c 1 1 x y 0=2 1=0 2=0 3=3 4=1 5=1", 0, ""),
    "crop before the start": ("Crop c 1 1 x y 0=-1 1=0 2=0 3=3 4=1 5=1", 0, ""),
    "enormous": ("Interp c 1 1 x y 0=1 3=99999 4=99999 6=0", 0, ""),
    "matrix of other rows": ("MatMul c 2 1 z x y", 0, "0=7 1=9"),
    "permute of an order": ("Permute c 1 1 x y 0=5", 0, ""),
    "pixels of other channels": ("PixelShuffle c 1 1 x y 0=3 1=0", 0, ""),
    "no pixels": ("PixelShuffle c 1 1 x y 0=0 1=0", 0, ""),
    "pool of nothing": ("Pooling c 1 1 x y 0=0 1=0 11=0 2=1 12=1 3=0 14=0 13=0 15=0 5=1", 0, ""),
    "reshape to fewer": ("Reshape c 1 1 x y 0=4", 0, ""),
    "reshape to any": ("Reshape c 1 1 x y 0=-1", 0, ""),
    "shuffle of other groups": ("ShuffleChannel c 1 1 x y 0=3", 0, ""),
    "softmax of another axis": ("Softmax c 1 1 x y 0=3 1=1", 0, ""),
    "two outputs": ("ReLU c 1 2 x y u", 0, ""),
    "a digit of Python": ("Reshape c 1 1 x y 0=1_92", 0, ""),
    "a parameter twice": ("Reshape c 1 1 x y 0=192 0=9999", 0, ""),
    "a word without end": (f"ReLU {'c' * 300} 1 1 x y", 0, ""),
    "another space": ("ReLU c\x1cReLU 1 1 x y", 0, ""),
}


@pytest.mark.parametrize("name", BAD)
def test_a_layer_that_would_read_past_a_blob_is_refused(name: str) -> None:
    line, weights, second = BAD[name]
    with pytest.raises(ValueError, match=r"^line [345]: |^characters"):
        checked(line, weights, second)


def test_a_bilinear_resize_of_one_row_is_refused() -> None:
    """ncnn would read the row before it."""
    for sides, wanted, align in (((1, 4), (3, 8), 0), ((6, 4), (1, 8), 1)):
        graph = Graph()
        x = graph.input((3, *sides))
        params = {0: 2, 3: wanted[0], 4: wanted[1], 6: align}
        text, _ = graph.encoded([graph.add("Interp", [x], (3, *wanted), params)])
        with pytest.raises(ValueError, match="do not fit"):
            check_layers(text, 0)
