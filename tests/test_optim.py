"""Optimisers, groups, schedules and averages."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gossamer import settings
from gossamer.errors import SettingsError
from gossamer.settings import Settings
from gossamer.settings.rates import resolve_optimizer
from gossamer.training import optim

KINDS = settings.choices("optimizer") or ()


class Small(nn.Module):
    """stem, two stages and a head, as every network here has."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3)
        self.stages = nn.ModuleList([nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1)])
        self.head = nn.Linear(3, 2)


def test_rmsprop_tf_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = optim.RMSpropTF([{"params": [weight]}], lr=0.1, alpha=0.9, eps=0.01, momentum=0.5)
    w, m, b = 1.0, 1.0, 0.0
    for gradient in (0.5, -0.2, 0.3):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        m = 0.9 * m + 0.1 * gradient**2
        b = 0.5 * b + 0.1 * gradient / math.sqrt(m + 0.01)
        w -= b
        assert weight.item() == pytest.approx(w, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_optimizer_lowers_a_loss_and_its_state_packs_and_unpacks(kind: str) -> None:
    def run(steps: int, moved: bool) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Linear(4, 1)
        x, y = torch.randn(32, 4), torch.randn(32, 1)
        settings = Settings(optimizer=kind, lr=0.05 if kind != "adadelta" else 1.0, batch=32)  # type: ignore[arg-type]
        optimizer = optim.build_optimizer(model, resolve_optimizer(settings))
        first = None
        for step in range(steps):
            if moved and step == steps // 2:
                tensors, values = optim.pack_optimizer(optimizer)
                optimizer = optim.build_optimizer(model, resolve_optimizer(settings))
                optim.unpack_optimizer(optimizer, {k: v.clone() for k, v in tensors.items()}, values)
            loss = ((model(x) - y) ** 2).mean()
            first = first or loss.item()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss.item() < first  # type: ignore[operator]
        return model.weight.detach().clone()

    assert torch.equal(run(10, moved=False), run(10, moved=True))


def test_decay_spares_norm_and_bias_by_default() -> None:
    def decayed(**options: bool) -> set[str]:
        model = Small()
        names = {id(p): name for name, p in model.named_parameters()}
        groups = optim.parameter_groups(model, resolve_optimizer(Settings(weight_decay=0.1, l1=0.2, **options)))  # type: ignore[arg-type]
        assert all((group["l1"] > 0) == (group["weight_decay"] > 0) for group in groups)
        return {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}

    assert decayed() == {"stem.weight", "stages.1.weight", "head.weight"}
    assert decayed(decay_norm_bias=True) == {name for name, _ in Small().named_parameters()}


def test_layer_decay_counts_stages_from_the_head() -> None:
    model = Small()
    names = {id(p): name for name, p in model.named_parameters()}
    groups = optim.parameter_groups(model, resolve_optimizer(Settings(layer_decay=0.5)))
    scales = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    assert scales["head.weight"] == 1
    assert scales["stages.1.weight"] == 0.5
    assert scales["stages.0.weight"] == 0.25
    assert scales["stem.bias"] == 0.125


def test_l1_adds_the_sign() -> None:
    weight = nn.Parameter(torch.tensor([[2.0, -3.0, 0.0]]))
    optimizer = torch.optim.SGD([{"params": [weight], "l1": 0.5}], lr=1.0)
    weight.grad = torch.ones(1, 3)
    optim.add_l1(optimizer)
    assert weight.grad.tolist() == [[1.5, 0.5, 1.0]]


def test_freezing_the_backbone_leaves_the_head_and_stops_its_statistics() -> None:
    model = Small()
    assert set(optim.freeze(model, "backbone")) == {n for n, _ in model.named_parameters() if not n.startswith("head.")}
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    model.train()
    optim.freeze_norms(model)
    assert not model.stages[0].training


@pytest.mark.parametrize("pattern", ["nothing_like_this", ".*", "("])
def test_a_freeze_pattern_that_cannot_be_meant_is_refused(pattern: str) -> None:
    with pytest.raises(SettingsError):
        optim.freeze(Small(), pattern)


def rates(schedule: str, epochs: float = 10, **options: object) -> list[float]:
    decay = optim.Schedule(Settings(schedule=schedule, lr=1.0, **{"warmup": 0.0, **options}), epochs)  # type: ignore[arg-type]
    return [decay.rate(e / 10, e / 10 / epochs) for e in range(int(epochs * 10) + 1)]


def test_schedules_at_known_points() -> None:
    assert set(rates("constant")) == {1.0}
    assert rates("cosine")[0] == 1
    assert rates("cosine")[50] == pytest.approx(0.5)
    assert rates("cosine")[-1] == pytest.approx(0, abs=1e-12)
    assert rates("cosine", min_lr=0.1)[-1] == 0.1
    assert rates("exponential", gamma=0.5)[20] == pytest.approx(0.25)
    assert rates("step", gamma=0.1, step_epochs=(2, 5))[19:21] == pytest.approx([1, 0.1])
    assert rates("step", gamma=0.1, step_epochs=(2, 5))[-1] == pytest.approx(0.01)
    assert rates("step", gamma=0.1)[-1] == pytest.approx(0.01)
    assert rates("cyclic", cycle_epochs=4.0)[20] == pytest.approx(1)
    assert rates("cyclic", cycle_epochs=4.0)[40] == pytest.approx(0)
    assert rates("one_cycle")[30] == pytest.approx(1)
    assert rates("one_cycle")[0] == pytest.approx(0.04)
    assert rates("one_cycle")[-1] == pytest.approx(1e-4)


def test_warm_up_is_linear_and_at_most_a_tenth_of_the_run() -> None:
    assert rates("constant", warmup=1.0)[5] == pytest.approx(0.5)
    assert rates("constant", warmup=8.0)[10] == 1.0  # 8 of 10 epochs would be 1


def test_plateau_drops_after_its_patience_and_remembers_through_a_resume() -> None:
    schedule = optim.Schedule(Settings(schedule="plateau", lr=1.0, patience=1, gamma=0.5, warmup=0.0), 10)
    seen = []
    for score in (0.5, 0.6, 0.6, 0.6, 0.7, 0.1, 0.1):
        schedule.epochs_done(score)
        again = optim.Schedule(schedule.settings, 10)
        again.state = dict(schedule.state)
        schedule = again
        seen.append(schedule.rate(1, 0.1))
    assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_the_average_follows_the_formula() -> None:
    model = nn.BatchNorm1d(1)
    average = optim.Average(model, 0.5)
    value = 1.0
    for step in range(12):
        with torch.no_grad():
            model.weight.fill_(step)
        model.num_batches_tracked.fill_(step)
        average.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        value = decay * value + (1 - decay) * step
    assert average.values["weight"].item() == pytest.approx(value, rel=1e-5)
    assert average.values["num_batches_tracked"].item() == 11


def test_a_layer_may_ask_for_a_learning_rate_of_its_own() -> None:
    class Slow(nn.Linear):
        lr_scale = 0.1

    class Other(nn.Linear):
        lr_scale = "none"

    model = nn.Sequential(Slow(2, 2), nn.Linear(2, 2), Other(2, 2))
    groups = optim.parameter_groups(model, Settings(weight_decay=0.5, decay_norm_bias=True))
    scales = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    assert [scales[id(layer.weight)] for layer in model] == [0.1, 1.0, 1.0]
    assert [scales[id(layer.bias)] for layer in model] == [0.1, 1.0, 1.0] and len(groups) == 2
