"""The gradient of one batch, computed by all processes of torchrun together; saved by the first (see test_distributed)."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist

import gossamer
from gossamer.training import distributed


def main(path: str) -> None:
    torch.manual_seed(0)
    model: torch.nn.Module = gossamer.create_model("mobilenet_v2", width=0.25, num_classes=3, small_input=True).double()
    images, targets = torch.randn(12, 3, 32, 32, dtype=torch.float64), torch.arange(12) % 3
    processes = distributed.join_processes("cpu")
    runner = model.train()
    if processes.world > 1:
        distributed.sync_batch_norm(model)
        runner = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    mine = slice(processes.rank * 12 // processes.world, (processes.rank + 1) * 12 // processes.world)
    loss = torch.nn.functional.cross_entropy(runner(images[mine]), targets[mine])
    loss.backward()  # type: ignore[no-untyped-call]
    total = loss.detach() / processes.world
    if processes.world > 1:
        dist.all_reduce(total)
    if processes.first:
        gradients = {f"grad.{name}": parameter.grad for name, parameter in model.named_parameters()}
        torch.save({"loss": total, **gradients, **model.state_dict()}, path)
    distributed.leave_processes()


if __name__ == "__main__":
    main(sys.argv[1])
