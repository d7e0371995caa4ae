"""The settings of a training run: one typed object.

The same fields are the CLI's flags (`label_smoothing` is `--label-smoothing`), the keys of
`settings.yaml` and the arguments of `Settings(...)`. `None` or "auto" means that the run decides;
what it decided is what the run folder saves.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from dataclasses import dataclass
from typing import Any, Literal

from gossamer.errors import UnknownNameError
from gossamer.settings.check import check_together, checked_value, without_none
from gossamer.settings.parse import parse_size

Choice = tuple[str, ...]


class ByTask:
    """A default that depends on the task: of classes and all others, and of those named."""

    def __init__(self, others: Any, **tasks: Any) -> None:
        self.others, self.tasks = others, tasks

    def of(self, task: str) -> Any:
        """The default of `task`."""
        return self.tasks.get(task, self.others)

    def __str__(self) -> str:
        def shown(value: Any) -> str:
            return " ".join(f"{item:g}" for item in value) if isinstance(value, tuple) else str(value)

        return ", ".join([shown(self.others), *(f"{task} {shown(value)}" for task, value in self.tasks.items())])


def _setting(default: Any, group: str, help: str, *, low: float | None = None, high: float | None = None) -> Any:
    """A field with its group and help text, and the closed range of its values.

    A `ByTask` as the default: where it is None, the field takes the default of the task.
    """
    usual = default if isinstance(default, ByTask) else None
    if usual:
        default, help = None, f"{help}; default {usual}"
    return dataclasses.field(
        default=default, metadata={"group": group, "help": help, "low": low, "high": high, "usual": usual}
    )


@dataclass(frozen=True, repr=False)
class Settings:
    """Everything that decides a run. Raises SettingsError on a value outside its type or range."""

    # the task and its data
    data: str = _setting(
        "",
        "data",
        "folder (one folder per class, or train/ and val/), CSV of path,label, or folder of .tar shards; for boxes VOC, "
        "COCO or YOLO-txt; for masks images/ and masks/; for several heads a CSV with a column each",
    )
    out: str = _setting("", "run", "the run folder to make; default runs/NET-NUMBER")
    task: Literal["classify", "multilabel", "regress", "detect", "segment", "embed", "multi"] = _setting(
        "classify", "run", "task: classes, labels, numbers, boxes, masks, embeddings, or several heads"
    )
    val: str = _setting("", "data", "validation data, where it is not beside the training data")
    val_share: float = _setting(
        0.2, "data", "fraction held out for validation where the data have no split", low=0.01, high=0.9
    )
    max_unreadable: float = _setting(
        0.05, "data", "fraction of unreadable images above which the run stops", low=0, high=1
    )
    pixel_limit: int = _setting(100_000_000, "data", "pixels above which an image is not decoded", low=1)
    input: str = _setting(
        "auto", "data", "input size in pixels, 224 or 240x320 (height x width); auto looks at the images"
    )
    frames: int = _setting(
        0,
        "data",
        "classify, embed: each sample is a folder of frames, so many of which are seen, evenly spread; 0: single images",
        low=0,
        high=256,
    )
    in_chans: int = _setting(3, "data", "channels: 3 (RGB) or 1 (grey)", low=1, high=3)
    resize: Literal["auto", "crop", "squash", "pad"] = _setting(
        "auto",
        "data",
        "evaluation geometry: shorter side and centre crop, both sides, or longer side and padding; auto is crop for "
        "classes and embeddings, squash where places matter",
    )
    ignore_index: int | None = _setting(None, "data", "mask value that is ignored, besides 255", low=0, high=255)
    crop_pct: float | None = _setting(
        None,
        "data",
        "fraction of the resized image that the centre crop keeps; default the weights', else 0.875; 1 at inputs below 128",
        low=0.1,
        high=1,
    )
    interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest"] | None = _setting(
        None, "data", "resampling filter; default that of the listed weights, else bilinear"
    )
    mean: tuple[float, ...] | None = _setting(
        None, "data", "mean per channel, of values in 0..1; default that of the listed weights, else ImageNet's"
    )
    std: tuple[float, ...] | None = _setting(
        None, "data", "standard deviation per channel, of values in 0..1; default as for the mean"
    )

    # the network
    net: str = _setting(
        "mobilenet_v2", "network", "network; `gossamer list` names them, and `gossamer list 'timm:*'` those of timm"
    )
    width: float | None = _setting(None, "network", "width multiplier; default the network's own", low=0.05, high=8)
    small_input: bool | None = _setting(
        None,
        "network",
        "keep stride 1 in the first strided layers, for images of about 32x32; default: where the input is 64 or less",
    )
    drop_rate: float = _setting(0.0, "network", "dropout before the classifier", low=0, high=0.95)
    drop_path_rate: float = _setting(
        0.0, "network", "stochastic depth: probability of leaving out the last residual branch", low=0, high=0.95
    )
    output_stride: int | None = _setting(
        None, "network", "8, 16, ...: dilated layers from there on instead of strided ones", low=1, high=64
    )
    act: str = _setting("", "network", "activation in place of the network's own, e.g. silu")
    norm: str = _setting("", "network", "norm in place of the network's own, e.g. group")
    norm_eps: float | None = _setting(
        None,
        "network",
        "what batch norms add to the variance; default that of the listed weights, else the network's own",
        low=1e-12,
        high=0.5,
    )
    deformable: Literal["none", "v1", "v2"] = _setting(
        "none",
        "network",
        "deformable convolutions in the last stages of residual and inverted residual networks: v1 moves where a kernel "
        "reads, v2 weighs it too",
    )
    deformable_stages: int = _setting(1, "network", "stages that --deformable changes, from the last", low=1, high=16)
    self_attention: str = _setting(
        "", "network", "stages behind which each position attends to all others, counted from 0, e.g. 3 or 2,3"
    )
    gating: Literal["none", "channels", "positions"] = _setting(
        "none",
        "network",
        "hard attention: channels or positions that gates close in residual blocks, for each image anew",
    )
    gate_draw: Literal["gumbel", "topk"] = _setting(
        "gumbel", "network", "gates that open each by itself, or a fixed number of the most salient"
    )
    gate_target: float = _setting(
        0.5, "network", "gates: fraction of the multiply-adds behind them that is aimed at", low=0.01, high=1
    )
    net_options: str = _setting(
        "", "network", 'arguments that only this family has, e.g. "stride_in=1x1 repeats=2,2,2,2"'
    )
    weights: str = _setting(
        "",
        "network",
        "start from: default, or another listed set (`gossamer list --weights`), a local file, URL#sha256=..., "
        "or hf://owner/name/file",
    )
    freeze: str = _setting("", "network", "frozen parameters: backbone, or a regular expression of their names")
    layer_decay: float = _setting(
        1.0, "network", "factor on the learning rate for each stage further from the head", low=0.01, high=1
    )

    # heads
    head: Literal["auto", "ssdlite", "ssd", "lraspp", "deeplabv3", "deeplabv3plus"] = _setting(
        "auto", "head", "detect: ssdlite (auto) or ssd; segment: lraspp (auto), deeplabv3 or deeplabv3plus"
    )
    aspp: bool = _setting(False, "head", "deeplabv3: atrous spatial pyramid pooling, not the light head alone")
    scale_attention: tuple[float, ...] = _setting(
        (),
        "head",
        "segment: scales of the input, each seen by the same network and weighed for each pixel, e.g. 1 0.5",
    )
    fpn: bool = _setting(False, "head", "detect: a feature pyramid")
    anchors: Literal["fitted", "ssd"] = _setting(
        "fitted", "head", "detect: anchors fitted to the training boxes, or those of the SSD paper"
    )
    anchor_sizes: tuple[float, ...] = _setting(
        (), "head", "detect: width and height of each anchor in pixels of the input; default by --anchors"
    )
    levels: int = _setting(3, "head", "detect: maps of the backbone that are read, from the coarsest", low=1, high=4)
    dim: int = _setting(128, "head", "embed: numbers of an embedding; 0 is the backbone's own", low=0, high=65536)
    heads: str = _setting("", "head", "multi: YAML file of heads, or its text; one name and its kind per line")
    score_threshold: float = _setting(0.01, "head", "detect: minimum score of a box", low=0, high=1)
    iou_threshold: float = _setting(
        0.5, "head", "detect: IoU threshold of non-maximum suppression, per class", low=0, high=1
    )
    max_detections: int = _setting(100, "head", "detect: maximum number of boxes per image", low=1, high=10000)
    threshold: float = _setting(0.5, "head", "multilabel: minimum score of a predicted label", low=0, high=1)

    # how long, how much at once
    epochs: float | None = _setting(
        None,
        "training",
        "passes over the training data; default 20, more where they are fewer than 400 steps, or no limit if minutes are "
        "given",
        low=1e-9,
        high=1e6,
    )
    minutes: float | None = _setting(None, "training", "time budget; the schedule ends with it", low=0.001, high=1e6)
    batch: int = _setting(
        ByTask(64, detect=16, segment=8, multi=16), "training", "batch size, over all processes", low=1, high=1 << 20
    )
    accumulate: int = _setting(
        1, "training", "gradient accumulation steps per batch, to save memory", low=1, high=1 << 16
    )
    eval_every: int | None = _setting(
        None,
        "training",
        "epochs from one evaluation on the validation images to the next; the last is always one; default 1, with "
        "--minutes so many that evaluations take a fifth of the time at most",
        low=1,
    )
    progressive: float = _setting(
        1.0,
        "training",
        "classify, segment, embed: the input's sides at the first step, as a fraction of the full size, to which they grow"
        " over two thirds of the run, from epoch to epoch; 0.5 sees nearly twice as many images in the same time",
        low=0.1,
        high=1,
    )
    early_stop: int = _setting(0, "training", "stop after so many epochs without a better score; 0 is never", low=0)
    seed: int = _setting(0, "training", "seed of everything drawn at random", low=0, high=(1 << 31) - 1)
    deterministic: bool = _setting(False, "training", "same bits at every run, at some cost of speed")

    # augmentation
    crop: Literal["auto", "random_resized", "padded", "center"] = _setting(
        "auto",
        "augmentation",
        "training geometry; auto is padded for classes at inputs of 64 or less, else random_resized",
    )
    crop_scale: tuple[float, ...] = _setting(
        (0.35, 1.0), "augmentation", "fraction of the area that a random resized crop takes"
    )
    crop_ratio: tuple[float, ...] = _setting((3 / 4, 4 / 3), "augmentation", "aspect ratios of a random resized crop")
    flip: float = _setting(0.5, "augmentation", "probability of a left-right flip", low=0, high=1)
    vertical_flip: float = _setting(0.0, "augmentation", "probability of an upside-down flip", low=0, high=1)
    color_jitter: float = _setting(
        ByTask(0.0, detect=0.3, segment=0.3),
        "augmentation",
        "strength of brightness, contrast and saturation jitter",
        low=0,
        high=1,
    )
    randaugment: int = _setting(0, "augmentation", "RandAugment: operations per image", low=0, high=8)
    randaugment_magnitude: float = _setting(9.0, "augmentation", "RandAugment: magnitude, 0..30", low=0, high=30)
    random_erasing: float = _setting(0.0, "augmentation", "probability of erasing a rectangle", low=0, high=1)
    expand: float = _setting(0.5, "augmentation", "detect: probability of zooming out", low=0, high=1)
    iou_crop: float = _setting(1.0, "augmentation", "detect: probability of a crop that keeps boxes", low=0, high=1)
    mosaic: float = _setting(0.0, "augmentation", "detect: probability of four images in one", low=0, high=1)
    scales: tuple[float, ...] = _setting((0.75, 1.5), "augmentation", "segment: range of the random scale")
    mixup: float = _setting(0.0, "augmentation", "mixup alpha; 0 is off", low=0, high=100)
    cutmix: float = _setting(0.0, "augmentation", "CutMix alpha; 0 is off", low=0, high=100)

    # loss
    loss: Literal[
        "auto",
        "cross_entropy",
        "bce",
        "focal",
        "asymmetric",
        "l1",
        "mse",
        "smooth_l1",
        "giou",
        "dice",
        "ohem",
        "contrastive",
        "triplet",
        "quadruplet",
        "arcface",
        "supcon",
        "proxy_anchor",
        "proxy_nca",
    ] = _setting(
        "auto",
        "loss",
        "loss; auto: cross_entropy, multilabel bce, regress and the boxes of detect smooth_l1, embed triplet",
    )
    margin: float | None = _setting(None, "loss", "embed: margin; default the loss's own", low=0, high=10)
    mining: Literal["all", "hard", "semihard"] = _setting(
        "semihard",
        "loss",
        "embed: which triplets and quadruplets of a batch count; the hardest of an untrained network make it collapse",
    )
    per_identity: int = _setting(4, "loss", "embed: images of an identity in a batch", low=2, high=1024)
    head_weights: Literal["fixed", "uncertainty", "gradnorm"] = _setting(
        "fixed", "loss", "multi: weights of the heads' losses: as given, learnt by uncertainty, or by gradient norm"
    )
    label_smoothing: float = _setting(ByTask(0.1, segment=0.0), "loss", "label smoothing alpha", low=0, high=0.999)
    smoothing_over: Literal["all", "others"] = _setting(
        "all", "loss", "alpha/K over all classes, or alpha/(K-1) over the others"
    )
    focal_gamma: float = _setting(2.0, "loss", "focal loss: gamma", low=0, high=10)
    aux_weight: float = _setting(
        0.3, "loss", "weight of each auxiliary classifier's loss, and of each scale's by itself", low=0, high=10
    )
    gate_weight: float = _setting(
        1.0, "loss", "gumbel gates: weight of the squared distance from --gate-target", low=0, high=1000
    )
    dice: float = _setting(
        ByTask(0.0, segment=0.5), "loss", "segment: weight of a Dice loss that is added", low=0, high=10
    )
    class_weights: Literal["none", "balanced", "log"] = _setting(
        "none",
        "loss",
        "weights of the classes: none, by inverse frequency, or by one over its logarithm, which is milder",
    )
    sampler: Literal["shuffle", "balanced"] = _setting(
        "shuffle", "loss", "each image once per epoch, or each class equally often"
    )
    l1: float = _setting(0.0, "loss", "L1 penalty on weights", low=0)
    weight_decay: float | None = _setting(
        None, "loss", "L2 penalty / decoupled decay on weights; default the optimiser's", low=0
    )
    decay_norm_bias: bool = _setting(False, "loss", "apply L1 and weight decay to norm layers and biases too")

    # a teacher
    teacher: str = _setting(
        "",
        "distillation",
        "a trained network whose outputs are learnt too: a run folder, a model file, or timm:NAME with its listed weights",
    )
    distil: Literal["auto", "dkd", "kl"] = _setting(
        "auto",
        "distillation",
        "loss on the teacher's predictions: dkd decouples the target from the other classes, kl compares all of them; auto: "
        "classes dkd, masks channel by channel, boxes, labels, numbers and embeddings one loss each",
    )
    distil_temperature: float = _setting(
        ByTask(4.0, detect=1.0), "distillation", "what logits are divided by before the softmax", low=0.1, high=100
    )
    distil_weight: float = _setting(
        1.0, "distillation", "weight of the loss on the teacher's predictions, beside the task's loss", low=0, high=1000
    )
    distil_beta: float = _setting(
        2.0,
        "distillation",
        "dkd: weight of the classes that are not the target, beside 1 for the target",
        low=0,
        high=100,
    )
    teacher_cache: str = _setting(
        "",
        "distillation",
        "keep the teacher's answers on disk in at most this size, e.g. 500M: for later epochs where no augmentation is drawn at "
        "random, and for other trainings of the same data, input and seed",
    )

    # optimiser and schedule
    optimizer: Literal["sgd", "adagrad", "adadelta", "rmsprop", "rmsprop_tf", "adam", "adamw"] = _setting(
        ByTask("sgd", detect="adamw", segment="adamw", embed="adamw", multi="adamw"), "optimiser", "optimiser"
    )
    lr: float | None = _setting(
        None, "optimiser", "learning rate; default the optimiser's, scaled by the batch", low=0, high=100
    )
    momentum: float = _setting(0.9, "optimiser", "momentum of sgd and rmsprop", low=0, high=0.9999)
    nesterov: bool = _setting(True, "optimiser", "Nesterov momentum (sgd)")
    betas: tuple[float, ...] = _setting((0.9, 0.999), "optimiser", "Adam: decay of the two moments")
    rho: float = _setting(0.9, "optimiser", "decay of the squared gradient (rmsprop, adadelta)", low=0, high=0.99999)
    eps: float | None = _setting(None, "optimiser", "epsilon; default the optimiser's", low=0)
    clip_norm: float = _setting(
        ByTask(0.0, detect=10.0, segment=5.0, embed=5.0, multi=10.0),
        "optimiser",
        "clip the gradient's norm; 0 is off",
        low=0,
    )
    clip_value: float = _setting(0.0, "optimiser", "clip each gradient; 0 is off", low=0)
    ema: float = _setting(
        ByTask(0.0, detect=0.99, segment=0.99, multi=0.99),
        "optimiser",
        "decay of the averaged weights that are evaluated and saved; 0 is off",
        low=0,
        high=0.999999,
    )
    schedule: Literal["constant", "step", "exponential", "cosine", "one_cycle", "cyclic", "plateau"] = _setting(
        "cosine", "optimiser", "learning-rate schedule"
    )
    warmup: float = _setting(1.0, "optimiser", "epochs of linear warm-up; at most a tenth of the run", low=0)
    step_epochs: tuple[float, ...] = _setting(
        (), "optimiser", "step: epochs at which the rate is multiplied by gamma; default every third of the run"
    )
    gamma: float = _setting(0.1, "optimiser", "step, plateau: factor; exponential: factor per epoch", low=1e-9, high=1)
    cycle_epochs: float = _setting(10.0, "optimiser", "cyclic: epochs per cycle", low=0.01)
    patience: int = _setting(5, "optimiser", "plateau: epochs without a better score before the rate drops", low=0)
    min_lr: float = _setting(0.0, "optimiser", "the rate never falls below this", low=0)

    # the machine
    device: str = _setting("auto", "machine", "auto, cpu, cuda or cuda:1")
    precision: Literal["auto", "float32", "bf16"] = _setting(
        "auto", "machine", "arithmetic; auto times a few steps on this machine"
    )
    memory_format: Literal["auto", "channels_first", "channels_last"] = _setting(
        "auto", "machine", "layout of the tensors; auto times a few steps"
    )
    compile: bool = _setting(False, "machine", "torch.compile (needs a C++ compiler)")
    threads: int = _setting(
        0, "machine", "threads for arithmetic per process; 0 is all cores, shared between processes", low=0, high=4096
    )
    workers: int | None = _setting(
        None,
        "machine",
        "processes that decode images; 0 is a thread of this one; default by the cores",
        low=0,
        high=1024,
    )
    cache: str = _setting("", "machine", "keep resized images in a memory-mapped file of at most this size, e.g. 2G")
    cache_dir: str = _setting("", "machine", "folder of that file; default the user's cache folder")
    save_every: float = _setting(60.0, "machine", "seconds between two saved states within an epoch", low=0)
    save_steps: int = _setting(0, "machine", "steps between two saved states, instead of seconds; 0 is off", low=0)

    def __new__(cls, *_: Any, **values: Any) -> Settings:
        """Raises UnknownNameError with the nearest name for a mistyped setting, before dataclasses raise TypeError."""
        for name in values:
            if name not in cls.__dataclass_fields__:
                raise UnknownNameError("setting", name, names())
        return super().__new__(cls)

    def __post_init__(self) -> None:
        hints = type_hints()
        for field in dataclasses.fields(self):
            value, usual = getattr(self, field.name), field.metadata["usual"]
            # `task` is checked before the fields that depend on it
            value = checked_value(field, hints[field.name], usual.of(self.task) if usual and value is None else value)
            object.__setattr__(self, field.name, value)
        check_together(self)

    def __repr__(self) -> str:
        """The settings that are not the defaults of the task."""
        usual = Settings(task=self.task)
        changed = {name: value for name, value in vars(self).items() if value != getattr(usual, name) or name == "task"}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    def replace(self, **changes: Any) -> Settings:
        """A copy with some settings changed."""
        return from_dict({**to_dict(self), **changes})

    def input_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels, or None for auto."""
        return None if self.input == "auto" else parse_size(self.input)


@functools.cache
def type_hints() -> dict[str, Any]:
    """The type of each setting."""
    return typing.get_type_hints(Settings)


def names() -> tuple[str, ...]:
    """The names of all settings, in order."""
    return tuple(field.name for field in dataclasses.fields(Settings))


def differing(settings: Settings) -> tuple[str, ...]:
    """The names of the settings that differ from their defaults, in order."""
    different = []
    for field in dataclasses.fields(settings):
        usual = field.metadata["usual"]
        if getattr(settings, field.name) != (usual.of(settings.task) if usual else field.default):
            different.append(field.name)
    return tuple(different)


def to_dict(settings: Settings) -> dict[str, Any]:
    """Plain values (tuples become lists), in the order of the fields."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(settings).items()
    }


def from_dict(values: dict[str, Any]) -> Settings:
    """Settings from plain values. Raises UnknownNameError, SettingsError."""
    for name in values:
        if name not in names():
            raise UnknownNameError("setting", str(name), names())
    return Settings(**values)


def choices(name: str) -> Choice | None:
    """The allowed words of a setting, or None where it takes other values."""
    hint = without_none(type_hints()[name])
    return tuple(typing.get_args(hint)) if typing.get_origin(hint) is Literal else None
