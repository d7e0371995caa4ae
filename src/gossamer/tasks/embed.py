"""Embeddings: images of one identity near each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from gossamer.data.open import Data, Source
from gossamer.data.pk import pk_order
from gossamer.errors import SettingsError
from gossamer.predictions.head import OutputHead
from gossamer.settings import Settings
from gossamer.tasks.backbone import network
from gossamer.tasks.base import Task
from gossamer.tasks.embedding.collapse import alarm
from gossamer.tasks.embedding.criterion import loss_of
from gossamer.tasks.embedding.network import Embedder
from gossamer.tasks.embedding.scores import EmbeddingScorer
from gossamer.tasks.frames import frames_of


class Embed(Task):
    """Metric learning: siamese, triplet, quadruplet and proxy losses around any backbone.

    A folder is an identity; those of validation and test need not be those of training.
    """

    name, score = "embed", "recall1"
    losses = ("triplet", "contrastive", "quadruplet", "arcface", "supcon", "proxy_anchor", "proxy_nca")
    geometry, caches = "crop", True

    @classmethod
    def resolve(cls, settings: Settings, data: Data) -> Settings:
        """The settings as they are. Raises SettingsError for a batch that is no multiple of `per_identity`."""
        _identities(settings)
        return settings

    def build(self) -> nn.Module:
        """The embedder, with the parameters of its loss beside it, which evaluation leaves alone.

        Raises UnknownNameError, SettingsError, MissingPackageError.
        """
        settings = self.settings
        model = Embedder(network(settings, 1), settings.dim, frames_of(settings))
        model.criterion = loss_of(settings, settings.loss, model.dim, len(self.classes))
        self.criterion = model.criterion
        return model

    def heads(self) -> tuple[OutputHead, ...]:
        return (OutputHead("embed"),)

    def order(self, source: Source, epoch: int) -> NDArray[np.int64]:
        """Batches of identities with `per_identity` images each. Raises SettingsError."""
        return identity_order(source.labels, self.settings, epoch)

    def loss(self, outputs: dict[str, Tensor], targets: Tensor, images: Tensor) -> Tensor:
        self.targets = targets
        values: Tensor = self.criterion(outputs, targets)
        return values

    def watch(self, outputs: dict[str, Tensor]) -> str:
        """A line where the embeddings have collapsed."""
        return alarm(outputs["embedding"].detach().float().cpu().numpy(), self.targets.cpu().numpy())

    def scorer(self) -> EmbeddingScorer:
        return EmbeddingScorer(self.classes)


def identity_order(labels: NDArray[np.int64], settings: Settings, epoch: int) -> NDArray[np.int64]:
    """The images of an epoch by their indices, in batches of identities with `per_identity` images each.

    labels: (n,) the identity of each image. Raises SettingsError.
    """
    identities = min(_identities(settings), len(np.unique(labels)))
    return pk_order(labels, identities, settings.per_identity, settings.seed, epoch)


def _identities(settings: Settings) -> int:
    """How many identities a batch holds. Raises SettingsError where that is one, or no integer."""
    step_images, each = settings.batch // settings.accumulate, settings.per_identity
    if step_images % each or step_images // each < 2:
        raise SettingsError(
            f"batch {step_images} of identities with {each} images each",
            f"a multiple of {each}, at least {2 * each}",
            "change --batch or --per-identity",
        )
    return step_images // each
