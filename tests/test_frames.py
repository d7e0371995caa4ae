"""Samples of several frames: folders of images, pooled by attention."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gossamer.analysis.cost import cost
from gossamer.blocks.attention import AttentionPooling
from gossamer.data.augment import EvalTransform, TrainTransform
from gossamer.data.frames import FrameStore, FrameTransform, frame_indices, pack_frames, read_frames, unpack_frames
from gossamer.data.open import open_data
from gossamer.errors import DataError, ImageError, InputError, RunError, SettingsError
from gossamer.images.decode import decode
from gossamer.images.preprocess import Preprocess
from gossamer.networks import create_model
from gossamer.settings import Settings
from gossamer.tasks.embedding.network import Embedder
from gossamer.tasks.frames import FrameClassifier, Frames


def frame(value: int, size: int = 16) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (size, size), (value, 255 - value, 30)).save(out, "PNG")
    return out.getvalue()


def write_samples(root: Path, splits: tuple[str, ...] = ("train", "val"), each: int = 4, frames: int = 5) -> Path:
    """Samples whose class is whether their frames get brighter or darker: no frame alone tells it."""
    rng = np.random.default_rng(0)
    for split in splits:
        for name, step in (("brighter", 40), ("darker", -40)):
            for sample in range(each):
                folder = root / split / name / f"s{sample}"
                folder.mkdir(parents=True)
                first = int(rng.integers(40, 60)) if step > 0 else int(rng.integers(200, 215))
                for index in range(frames):
                    (folder / f"{index + 8}.png").write_bytes(frame(first + index * step))
    return root


def test_a_sample_is_its_frames_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    table = read_frames(write_samples(tmp_path), 3)
    assert table.classes == ("brighter", "darker") and len(table.names) == 16
    assert table.names[0] == "train/brighter/s0" and set(table.splits) == {"train", "val"}
    assert isinstance(table.store, FrameStore)
    assert [Path(path).name for path in table.store.samples[0]] == ["8.png", "9.png", "10.png", "11.png", "12.png"]
    data = open_data(tmp_path, read=lambda root, classes=(), reference=None: read_frames(root, 3))
    images = unpack_frames(data.train.read(0))
    assert len(images) == 3
    values = [np.asarray(decode(image))[0, 0, 0] for image in images]
    assert values[0] < values[1] < values[2]
    assert decode(data.train.read(0)).size == (16, 16)  # who knows no frames sees the first
    before = data.fingerprint
    (tmp_path / "train/brighter/s0/9.png").write_bytes(frame(3, 20))
    again = open_data(tmp_path, read=lambda root, classes=(), reference=None: read_frames(root, 3))
    assert again.fingerprint != before


def test_frames_are_spread_and_repeated() -> None:
    assert (
        frame_indices(10, 3) == [0, 3, 6] and frame_indices(2, 5) == [0, 0, 0, 1, 1] and frame_indices(1, 2) == [0, 0]
    )
    assert frame_indices(4, 4) == [0, 1, 2, 3]


@pytest.mark.parametrize("images", [[b"a"], [b"", b"bc"], [bytes(range(256)), b"x", b"yz"]])
def test_packed_frames_are_unpacked(images: list[bytes]) -> None:
    packed = pack_frames(images)
    assert unpack_frames(packed) == images and packed.startswith(images[0])
    for damaged in (packed[:-1], packed[1:], b"", images[-1], packed[:-20] + b"\xff" * 4 + packed[-16:]):
        with pytest.raises(ImageError, match="folder of frames"):
            unpack_frames(damaged)


def test_all_frames_get_the_same_crop(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (40, 50, 3)).astype(np.uint8)).save(out, "PNG")
    preprocess = Preprocess((16, 24), crop_pct=1.0)
    transform = FrameTransform(TrainTransform(preprocess, Settings()), 3)
    assert transform.shape == (48, 24, 3)
    pixels = transform(pack_frames([out.getvalue()] * 3), np.random.default_rng(1))
    assert np.array_equal(pixels[:16], pixels[16:32]) and np.array_equal(pixels[:16], pixels[32:])
    assert not np.array_equal(pixels, transform(pack_frames([out.getvalue()] * 3), np.random.default_rng(2)))
    same = FrameTransform(EvalTransform(preprocess), 3)(pack_frames([out.getvalue()] * 3))
    assert np.array_equal(same[16:32], preprocess.pixels(out.getvalue()))


def test_what_holds_no_frames_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "flat" / name).mkdir(parents=True)
        (tmp_path / "flat" / name / "1.png").write_bytes(frame(9))
    with pytest.raises(DataError, match="2 images in class folders but no folders of frames"):
        read_frames(tmp_path / "flat", 2)
    with pytest.raises(DataError, match="does not exist"):
        read_frames(tmp_path / "nowhere", 2)
    (tmp_path / "flat" / "a" / "s1").mkdir()
    (tmp_path / "flat" / "a" / "s1" / "1.png").write_bytes(frame(9))
    (tmp_path / "flat" / "a" / "s1" / "notes.txt").write_text("x")
    notes = " ".join(read_frames(tmp_path / "flat", 2).notes)
    for words in ("b: holds no folder of frames", "2 images outside", "1 sample has fewer than 2", "1 file that"):
        assert words in notes, words


@pytest.mark.parametrize("options", [{"task": "detect"}, {"cache": "1G"}, {"cutmix": 1.0}, {"layer_decay": 0.5}])
def test_settings_that_frames_exclude(options: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="frames"):
        Settings(frames=4, **options)  # type: ignore[arg-type]


def test_pooling_weighs_moments_to_1_and_begins_as_the_mean() -> None:
    torch.manual_seed(0)
    pool, x = AttentionPooling(6, 4), torch.randn(3, 5, 6)
    torch.testing.assert_close(pool(x), x.mean(1))
    nn.init.normal_(pool.select.weight)
    weights = pool.weights(x)
    torch.testing.assert_close(weights.sum(1), torch.ones(3, 1))
    torch.testing.assert_close(pool(x), torch.einsum("nt,ntw->nw", weights[..., 0], x))
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(pool(x[:, order]), pool(x))  # a bag: the order of the moments does not count


def test_each_frame_is_seen_by_the_same_backbone() -> None:
    torch.manual_seed(0)
    frames = Frames(3, (32, 48))
    backbone = create_model("mobilenet_v2", width=0.25, num_classes=2, small_input=True)
    network, x = FrameClassifier(backbone, frames, 4).eval(), torch.randn(2, 3, 96, 48)
    nn.init.normal_(network.pooling.select.weight)
    features = torch.stack([backbone(x[:, :, 32 * i : 32 * (i + 1)]) for i in range(3)], 1)
    torch.testing.assert_close(network(x), network.classifier(network.pooling(features)))
    width = backbone.num_features
    one = cost(backbone, (1, 3, 32, 48))
    total = cost(network, (1, 3, 96, 48))
    assert total.macs == 3 * one.macs + 3 * (2 * width + 1) * 64 + width * 4
    assert total.params == one.params + 2 * (width * 64 + 64) + 64 + 1 + width * 4 + 4
    with pytest.raises(InputError, match="3 frames of 32x48"):
        network(torch.zeros(1, 3, 33, 48))
    network.train()(x).square().sum().backward()
    assert not [name for name, one in network.named_parameters() if one.grad is None or not one.grad.abs().sum() > 0]


def test_an_embedder_pools_frames() -> None:
    torch.manual_seed(0)
    backbone = create_model("mobilenet_v2", width=0.25, num_classes=2, small_input=True)
    network = Embedder(backbone, 8, Frames(2, (32, 32))).eval()
    x = torch.randn(2, 3, 64, 32)
    swapped = torch.cat([x[:, :, 32:], x[:, :, :32]], 2)
    assert network(x)["embedding"].shape == (2, 8)
    torch.testing.assert_close(network(x)["embedding"], network(swapped)["embedding"])


@pytest.mark.full
@pytest.mark.parametrize("task", ["classify", "embed"])
def test_a_run_over_frames(task: str, tmp_path: Path) -> None:
    import gossamer
    from gossamer.export.formats import export
    from gossamer.training.evaluate_target import evaluate_target
    from gossamer.training.loop import train
    from gossamer.training.restore import as_model

    data = write_samples(tmp_path / "data", frames=3)
    settings = Settings(
        data=str(data), out=str(tmp_path / "run"), task=task, frames=2, net="mobilenet_v2", width=0.25, input="32",
        epochs=2, batch=4, per_identity=2, threads=1, workers=0, precision="float32", memory_format="channels_last",
    )  # fmt: skip
    run = train(settings)
    assert len(run.metrics()) == 2
    assert evaluate_target(run.path).to_json() == evaluate_target(run.path, str(data), split="val").to_json()
    assert gossamer.resume(run.path).metrics() == run.metrics()
    for refused in (lambda: as_model(run.path), lambda: export(run.path, tmp_path / "x.onnx")):
        with pytest.raises(RunError, match=r"gossamer eval .*run"):
            refused()


@pytest.mark.full
def test_a_network_over_frames_is_exported() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from gossamer.export.convert import to_onnx

    torch.manual_seed(0)
    backbone = create_model("mobilenet_v2", width=0.25, num_classes=2, small_input=True)
    network, x = FrameClassifier(backbone, Frames(2, (32, 32)), 4).eval(), torch.randn(3, 3, 64, 32)
    nn.init.normal_(network.pooling.select.weight)
    with torch.no_grad():
        expected = network(x).numpy()
    got = onnxruntime.InferenceSession(to_onnx(network, (64, 32))).run(None, {"input": x.numpy()})[0]
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
