"""Data-parallel training under torchrun: who am I, and sums over all processes.

Nothing here needs a flag: torchrun sets RANK and WORLD_SIZE, and a process without them is alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gossamer.errors import RunError, SettingsError

PEER_LIMIT = 600.0  # seconds that a process waits for the others; a cache of many images takes the first one longer
LIMIT_VARIABLE = "GOSSAMER_PEER_SECONDS"
# what torch's messages have where another process does not answer: gloo's and NCCL's, and those of the store
_OF_OTHERS = ("gloo", "NCCL", "ProcessGroup", "TCPStore", "Connection closed by peer", "Connection reset by peer")


@dataclass(frozen=True)
class Processes:
    """This process among all: `rank` of `world`, and its place on its machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0


def join_processes(device_type: str) -> Processes:
    """Join the other processes that torchrun started (gloo on CPU, NCCL on GPU); alone without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return Processes()
    if not dist.is_initialized():
        limit = timedelta(seconds=peer_limit())
        with others_answer("the processes did not find one another", "start it again on all hosts"):
            dist.init_process_group("nccl" if device_type == "cuda" else "gloo", timeout=limit)
    local, local_world = (
        int(os.environ.get(name, default)) for name, default in (("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))
    )
    return Processes(dist.get_rank(), dist.get_world_size(), local, local_world)


def peer_limit() -> float:
    """Seconds that a process waits for the others: PEER_LIMIT, or those of the environment. Raises SettingsError."""
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        seconds = float(text or PEER_LIMIT)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= 1e6:
        raise SettingsError(f"{LIMIT_VARIABLE}={text[:40]}", "seconds, 1 to 1000000", "set such a number, or unset it")
    return seconds


@contextmanager
def others_answer(what: str, do: str) -> Iterator[None]:
    """Raises RunError in place of what torch raises where another process is gone or does not answer in time."""
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if not any(mark in text for mark in _OF_OTHERS):
            raise
        raise RunError(
            f"{what}: {text[:200]}", f"processes that all answer within {peer_limit():g} seconds", do
        ) from error


def leave_processes() -> None:
    """End the group, where there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def wait() -> None:
    """Wait until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def broadcast(value: Any) -> Any:
    """The first process's `value`, in every process."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Any) -> list[Any]:
    """Everybody's `value`, by rank, in every process."""
    if not dist.is_initialized():
        return [value]
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, value)
    return parts


class _AllSum(torch.autograd.Function):
    """Sum over processes; the gradient of a sum that all of them use is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the images of all processes, (N, C, H, W) -> (N, C, H, W), on CPU as on GPU.

    With it, two processes with half a batch each follow the loss curve of one with the full batch; torch's own
    SyncBatchNorm runs on GPUs only. Every process must give the same number of values.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise with the statistics of all processes (training) or the running ones (evaluation)."""
        if not (self.training and dist.is_initialized()):
            return super().forward(input)
        x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        count = x.numel() // x.shape[1] * dist.get_world_size()
        mean = _all_sum(x.sum((0, 2, 3))) / count
        centred = x - mean[:, None, None]
        variance = _all_sum((centred * centred).sum((0, 2, 3))) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.detach(), rate)
                self.running_var.lerp_(variance.detach() * (count / max(count - 1, 1)), rate)
        y = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            y = y * self.weight[:, None, None] + self.bias[:, None, None]
        return y.to(input.dtype)


def _all_sum(value: Tensor) -> Tensor:
    result: Tensor = _AllSum.apply(value)  # type: ignore[no-untyped-call]
    return result


def sync_batch_norm(module: nn.Module) -> nn.Module:
    """Let every BatchNorm2d of `module` use the statistics of all processes; names and weights stay."""
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = SyncedBatchNorm2d  # same fields, another forward: no copy, no renaming
    return module
