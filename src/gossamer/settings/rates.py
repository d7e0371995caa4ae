"""The learning rate, weight decay and eps that a run takes where none is set."""

from __future__ import annotations

from gossamer.settings import Settings

# optimiser -> (learning rate at batch 256, power of batch/256 it scales with, weight decay, eps)
_DEFAULTS: dict[str, tuple[float, float, float, float]] = {
    "sgd": (0.1, 1.0, 1e-4, 0.0),
    "rmsprop": (0.01, 1.0, 4e-5, 1e-3),
    "rmsprop_tf": (0.01, 1.0, 4e-5, 1e-3),
    "adagrad": (0.01, 0.5, 0.0, 1e-10),
    "adadelta": (1.0, 0.0, 0.0, 1e-6),
    "adam": (1e-3, 0.5, 0.0, 1e-8),
    "adamw": (1e-3, 0.5, 0.05, 1e-8),
}
# of boxes, masks and several heads, whose batches are small: the rate of the runs in benchmarks/README.md
_OF_PLACES = {"adamw": (2e-3, 0.0, 0.02, 1e-8)}
_PLACES = ("detect", "segment", "multi")


def resolve_optimizer(settings: Settings) -> Settings:
    """The settings with the optimiser's own lr, weight_decay and eps, for the task, where none are set."""
    usual = {**_DEFAULTS, **_OF_PLACES} if settings.task in _PLACES else _DEFAULTS
    rate, power, decay, eps = usual[settings.optimizer]
    return settings.replace(
        lr=rate * (settings.batch / 256) ** power if settings.lr is None else settings.lr,
        weight_decay=decay if settings.weight_decay is None else settings.weight_decay,
        eps=eps if settings.eps is None else settings.eps,
    )
