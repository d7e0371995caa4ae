"""Optimisers, parameter groups, learning-rate schedules and averaged weights."""

from __future__ import annotations

import functools
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.errors import SettingsError
from gossamer.settings import Settings

WARMUP_SHARE = 0.1  # of a run, at most
PROGRESSIVE_END = 2 / 3  # of a progressive run: from there on its inputs are of full size


def freeze(model: nn.Module, pattern: str) -> list[str]:
    """Stop the gradient of the parameters that `pattern` names; their names.

    "backbone" is everything but the classifier, or what the model's `backbone_path` begins. Raises SettingsError where nothing, or nothing else, is left.
    """
    if not pattern:
        return []
    classifier, backbone = getattr(model, "classifier_path", "head."), getattr(model, "backbone_path", "")
    backbone_pattern = re.escape(backbone) if backbone else rf"(?!{re.escape(classifier)})"
    expression = backbone_pattern if pattern == "backbone" else pattern
    try:
        match = re.compile(expression).match if pattern == "backbone" else re.compile(expression).search
    except re.error as error:
        raise SettingsError(
            f"freeze {pattern!r}: {error}", "backbone, or a regular expression", "fix the pattern"
        ) from error
    frozen = [name for name, _ in model.named_parameters() if match(name)]
    left = [name for name, _ in model.named_parameters() if not match(name)]
    if not frozen or not left:
        what = "matches no parameter" if not frozen else "matches every parameter"
        raise SettingsError(f"freeze {pattern!r}: {what}", f"names such as {(left or frozen)[0]}", "change the pattern")
    for name, parameter in model.named_parameters():
        if match(name):
            parameter.requires_grad_(False)
    return frozen


def freeze_norms(model: nn.Module) -> None:
    """Put norm layers whose parameters are all frozen in evaluation mode, so that their statistics stay too."""
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, nn.modules.batchnorm._NormBase) and own and not any(p.requires_grad for p in own):
            module.eval()


def parameter_groups(model: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """Groups by weight decay and learning-rate factor, for parameters that learn.

    Norm and bias parameters (one axis) are not decayed unless configured. `layer_decay` multiplies the rate once for
    each stage between a parameter and the head (Howard and Ruder 2018, arXiv 1801.06146, section 3.2); a layer's own
    `lr_scale` comes on top.
    """
    depth = len(getattr(model, "stages", ()))
    if settings.layer_decay != 1 and not depth:
        raise SettingsError(
            f"layer_decay {settings.layer_decay:g} with {settings.net} for {settings.task}",
            "1 for a network of timm, and for other tasks than classify",
            "leave it out",
        )
    own_scales = {name: _own_scale(module) for name, module in model.named_modules()}
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 or settings.decay_norm_bias
        decay = float(settings.weight_decay or 0.0) if decays else 0.0
        scale = settings.layer_decay ** _distance_from_head(name, depth) * own_scales[name.rpartition(".")[0]]
        group = groups.setdefault(
            (decay, scale),
            {"params": [], "weight_decay": decay, "lr_scale": scale, "l1": settings.l1 if decays else 0.0},
        )
        group["params"].append(parameter)
    return list(groups.values())


def _own_scale(module: nn.Module) -> float:
    """The factor on the learning rate that a layer asks for, as the offsets of a deformable convolution do."""
    scale = getattr(module, "lr_scale", 1.0)
    return float(scale) if isinstance(scale, (int, float)) else 1.0


def _distance_from_head(name: str, depth: int) -> int:
    stage = re.match(r"stages\.(\d+)\.", name)
    if stage:
        return depth - int(stage[1])
    return depth + 1 if name.startswith("stem.") else 0


def build_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """The optimiser of resolved `settings` over the parameters of `model` that learn."""
    groups = parameter_groups(model, settings)
    rate, eps = float(settings.lr or 0.0), float(settings.eps or 0.0)
    rho, beta = settings.rho, (settings.betas[0], settings.betas[1])
    kind = settings.optimizer
    light: Callable[[Any], Callable[..., torch.optim.Optimizer]] = _as_it_is if settings.compile else _without_dynamo
    if kind == "sgd":
        nesterov = settings.nesterov and settings.momentum > 0
        return light(torch.optim.SGD)(groups, lr=rate, momentum=settings.momentum, nesterov=nesterov)
    if kind == "rmsprop":
        return light(torch.optim.RMSprop)(groups, lr=rate, alpha=rho, eps=eps, momentum=settings.momentum)
    if kind == "rmsprop_tf":
        return light(RMSpropTF)(groups, lr=rate, alpha=rho, eps=eps, momentum=settings.momentum)
    if kind == "adagrad":
        return light(torch.optim.Adagrad)(groups, lr=rate, eps=eps)
    if kind == "adadelta":
        return light(torch.optim.Adadelta)(groups, lr=rate, rho=rho, eps=eps)
    if kind == "adam":
        return light(torch.optim.Adam)(groups, lr=rate, betas=beta, eps=eps)
    return light(torch.optim.AdamW)(groups, lr=rate, betas=beta, eps=eps)


def _as_it_is(kind: Any) -> Any:
    return kind


@functools.cache
def _without_dynamo(kind: type[torch.optim.Optimizer]) -> Any:
    """The optimiser `kind` with the same arithmetic, but without torch._dynamo, which it needs for torch.compile alone.

    torch imports it when the first optimiser is made and at its first step: 800 modules and two seconds before a training
    begins. In another version of torch, where the names below are not there, nothing is changed.
    """
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        plain = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if plain is not None and "torch._dynamo" not in sys.modules and not hasattr(plain, "__dynamo_disable"):
            vars(plain)["__dynamo_disable"] = plain  # what torch._disable_dynamo looks for before it imports
    step: Any = inspect.unwrap(kind.step)
    return type(kind.__name__, (kind,), {"step": torch.no_grad()(step)})


class RMSpropTF(torch.optim.Optimizer):
    """RMSprop as TensorFlow 1 computes it, which the MobileNet and Inception recipes assume.

    It differs from torch's in three ways: the running mean square starts at 1, eps is added inside the root,
    and the learning rate enters the momentum buffer, so that a later change of rate does not rescale the past.
    m <- rho*m + (1-rho)*g^2; b <- momentum*b + lr*g/sqrt(m+eps); w <- w - b.
    """

    def __init__(self, params: Iterable[Any], lr: float, alpha: float, eps: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from the gradients."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in params]
            if not params:
                continue
            if group["weight_decay"]:
                grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
            for p in params:
                if not self.state[p]:
                    self.state[p].update(square_avg=torch.ones_like(p), momentum_buffer=torch.zeros_like(p))
            square_averages = [self.state[p]["square_avg"] for p in params]
            buffers = [self.state[p]["momentum_buffer"] for p in params]
            torch._foreach_mul_(square_averages, group["alpha"])
            torch._foreach_addcmul_(square_averages, grads, grads, value=1 - group["alpha"])
            roots = torch._foreach_sqrt(torch._foreach_add(square_averages, group["eps"]))
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_addcdiv_(buffers, grads, roots, value=group["lr"])
            torch._foreach_sub_(params, buffers)


def add_l1(optimizer: torch.optim.Optimizer) -> None:
    """Add the gradient of the L1 penalty, l1 * sign(w), to each group that has one."""
    for group in optimizer.param_groups:
        if group.get("l1"):
            params = [p for p in group["params"] if p.grad is not None]
            torch._foreach_add_([p.grad for p in params], [p.detach().sign() for p in params], alpha=group["l1"])


def progressive(start: float, fraction: float) -> float:
    """The scale of the input sides at `fraction` of a run: from `start`, evenly, to 1 at PROGRESSIVE_END, which it stays at.

    Source: EfficientNetV2 (2104.00298), section 4, progressive learning; the sizes only, not the regularisation.
    """
    return min(1.0, start + (1 - start) * fraction / PROGRESSIVE_END)


class Schedule:
    """The learning rate at any moment of a run.

    `rate(epoch, fraction)` takes the epochs done (a fraction counts) and the fraction of the run that is done, by
    steps or by the time budget, whichever is further. Only "plateau" remembers anything: `state`.
    """

    def __init__(self, settings: Settings, epochs: float | None) -> None:
        self.settings, self.epochs = settings, epochs
        # a warm-up longer than a tenth would leave a short run no time to learn
        self.warmup = min(settings.warmup, epochs * WARMUP_SHARE) if epochs else settings.warmup
        self.state: dict[str, Any] = {"factor": 1.0, "best": None, "bad": 0}

    def rate(self, epoch: float, fraction: float, step: float = 0.0) -> float:
        """The learning rate of the head, before layer_decay.

        step: of an epoch, what the step to be taken is; a warm-up counts it as done, or the first step would be lost.
        """
        base = float(self.settings.lr or 0.0)
        warm = 1.0
        if self.warmup > 0 and self.settings.schedule != "one_cycle":
            warm = min(1.0, (epoch + step + 1e-9) / self.warmup)
            if self.epochs is None:  # a budget of minutes may be less than an epoch
                warm = max(warm, min(1.0, fraction / WARMUP_SHARE))
        return max(base * warm * self._factor(epoch, min(max(fraction, 0.0), 1.0)), self.settings.min_lr)

    def _factor(self, epoch: float, fraction: float) -> float:
        settings = self.settings
        if settings.schedule == "step":
            if settings.step_epochs:
                return float(settings.gamma ** sum(epoch >= at for at in settings.step_epochs))
            return float(settings.gamma ** min(int(fraction * 3), 2))
        if settings.schedule == "exponential":
            return float(settings.gamma**epoch)
        if settings.schedule == "cosine":  # Loshchilov and Hutter 2016, arXiv 1608.03983, equation 5
            return (1 + math.cos(math.pi * fraction)) / 2
        if settings.schedule == "one_cycle":  # Smith and Topin 2017, arXiv 1708.07120, section 3; the rate only
            if fraction < 0.3:
                return 0.04 + 0.96 * (1 - math.cos(math.pi * fraction / 0.3)) / 2
            return 1e-4 + (1 - 1e-4) * (1 + math.cos(math.pi * (fraction - 0.3) / 0.7)) / 2
        if settings.schedule == "cyclic":  # Smith 2015, arXiv 1506.01186, section 3: triangular
            place = epoch / settings.cycle_epochs % 1.0
            return 1 - abs(2 * place - 1)
        return float(self.state["factor"])  # plateau; constant keeps 1

    def epochs_done(self, score: float, epochs: int = 1) -> None:
        """Tell the plateau schedule the score (larger is better) after so many more epochs."""
        if self.settings.schedule != "plateau":
            return
        if not math.isnan(score) and (self.state["best"] is None or score > self.state["best"]):
            self.state.update(best=score, bad=0)
            return
        self.state["bad"] += epochs
        if self.state["bad"] > self.settings.patience:
            self.state.update(factor=self.state["factor"] * self.settings.gamma, bad=0)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


class Average:
    """Exponential moving average of all weights and statistics of a model.

    average <- d*average + (1-d)*value with d = min(decay, (1+step)/(10+step)), so that the start is forgotten
    quickly (the rule of TensorFlow's ExponentialMovingAverage, used by the MobileNet recipes).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after step number `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        mine: list[Tensor] = []
        theirs: list[Tensor] = []
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                mine.append(self.values[name])
                theirs.append(value.detach())
            else:
                self.values[name].copy_(value)
        torch._foreach_lerp_(mine, theirs, 1 - decay)


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimiser's state as named tensors and plain values (by the parameter's place in the groups)."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for index, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{slot}"] = value
            else:
                values[f"{index}.{slot}"] = value
    return tensors, values


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Put back what `pack` gave."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**values, **tensors}.items():
        index, slot = name.split(".", 1)
        state.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
