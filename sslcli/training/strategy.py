"""How the method's weights and gradients are spread over processes: whole on one, copied to each, or sharded.

The trainer calls `model(batch)` and asks for whole weights when it saves or measures; nothing else differs.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sslcli import optim
from sslcli.backbones.base import Backbone, TokenBackbone
from sslcli.config import instantiate
from sslcli.nn.dist import world_size
from sslcli.nn.transformer import Block
from sslcli.runs import checkpoint
from sslcli.training.setup import Job

LARGE = 1_000_000  # parameters from which a layer in a sequence is a shard of its own


class Whole:
    """One process: the method as it is."""

    sharded = False

    def __init__(self, job: Job):
        self.job = job
        self.model: Any = self.spread(job.method)
        if job.runtime.compile:
            # On a GPU as CUDA graphs: Python takes longer to launch a small network's kernels than the device to run them. They
            # want weights that stay where they are.
            graphs = job.runtime.device.type == "cuda" and not self.sharded
            mode = "reduce-overhead" if graphs else None
            for module in regions(job.method):
                module.compile(dynamic=False, mode=mode)
        self.names = checkpoint.parameter_names(job.method)
        self.backbone = next(n for n, m in job.method.named_modules() if m is job.method.eval_backbone)

    def spread(self, method: nn.Module) -> nn.Module:
        return method

    def averaging(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Around a micro-batch; gradients cross processes with the last of a step."""
        return contextlib.nullcontext()

    def weights(self) -> dict[str, Tensor]:
        """All parameters and buffers, whole. Every process must ask."""
        return self.job.method.state_dict()

    def optimizer(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Its tensors, whole, and its numbers. Every process must ask."""
        return checkpoint.optimizer_tensors(self.job.optimizer, self.names)

    def of_backbone(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of the method's weights those of the backbone that is measured and exported."""
        prefix = f"{self.backbone}."
        return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}

    def eval_backbone(self) -> nn.Module:
        """That backbone, ready to be called by this process alone."""
        return self.job.method.eval_backbone


class Copied(Whole):
    """DistributedDataParallel: each process has all weights, gradients are averaged while they are computed."""

    def spread(self, method: nn.Module) -> nn.Module:
        # Looking for unused parameters lets a method leave some out, and keeps the order in which gradients are summed:
        # without it the buckets are laid out anew after the first step, and a resumed run would add up otherwise.
        known = inspect.signature(DistributedDataParallel).parameters
        no_buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {no_buffers: False, "gradient_as_bucket_view": True}
        self.ddp = DistributedDataParallel(method, find_unused_parameters=True, **options)
        return self.ddp

    def averaging(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if last else self.ddp.no_sync()

    def weights(self) -> dict[str, Tensor]:
        self.same_statistics()
        return super().weights()

    def eval_backbone(self) -> nn.Module:
        self.same_statistics()
        return super().eval_backbone()

    def same_statistics(self) -> None:
        """With train.sync_batchnorm=false each process has running statistics of its own: rank 0's are saved and measured."""
        if not self.job.cfg["train"]["sync_batchnorm"]:
            for buffer in self.job.method.buffers():
                dist.broadcast(buffer, src=0)


class Sharded(Whole):
    """FSDP2 (`fully_shard`): each process keeps a part of every weight, gradient and optimizer slot, and the layers are put
    together while they are used. Transformer blocks and large layers are shards of their own, the rest is one."""

    sharded = True

    def spread(self, method: nn.Module) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        saved = checkpoint.optimizer_tensors(self.job.optimizer, checkpoint.parameter_names(method))
        method.to(memory_format=torch.contiguous_format)  # it knows no other
        mesh = init_device_mesh(self.job.runtime.device.type, (world_size(),))
        for module in _shards(method):
            fully_shard(module, mesh=mesh)
        self.root = fully_shard(method, mesh=mesh)
        # The parameters are new objects now.
        self.job.optimizer = optim.make(self.job.cfg["optimizer"], method, self.job.lr, self.job.runtime.compile)
        checkpoint.restore_optimizer(self.job.optimizer, checkpoint.parameter_names(method), *saved)
        self.copy: nn.Module | None = None
        return method

    def averaging(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        self.root.set_requires_gradient_sync(last)
        return contextlib.nullcontext()

    def weights(self) -> dict[str, Tensor]:
        return {k: checkpoint.whole(v) for k, v in self.job.method.state_dict().items()}

    def eval_backbone(self) -> nn.Module:
        """A whole copy, since processes measure different numbers of batches."""
        if self.copy is None:
            shape = tuple(self.job.dataset.shape)
            self.copy = self.job.runtime.place(
                instantiate.build("backbone", self.job.cfg["backbone"], input_shape=shape)
            )
        checkpoint.load_strictly(self.copy, self.of_backbone(self.weights()), "the sharded weights")
        return self.copy


def regions(method: nn.Module) -> Iterator[nn.Module]:
    """What is compiled: each backbone (a teacher's too), and of those with tokens each block, as a method calls more of them than
    `forward`. Alike blocks share their code. The method around them is not: it draws numbers with the epoch in their key, and
    a compiler would begin anew with each epoch."""
    for module in method.modules():
        if isinstance(module, Block) or (isinstance(module, Backbone) and not isinstance(module, TokenBackbone)):
            yield module


def _shards(method: nn.Module) -> list[nn.Module]:
    """Inner ones first. Backbones are not called as a whole by every method, so they are none."""
    found = []
    for parent in method.modules():
        if isinstance(parent, nn.ModuleList | nn.Sequential):
            for child in parent:
                size = sum(p.numel() for p in child.parameters())
                if size and not hasattr(child, "input_shape") and (isinstance(parent, nn.ModuleList) or size >= LARGE):
                    found.append(child)
    return found[::-1]


def spread(job: Job) -> Whole:
    """As `train.strategy` says: `ddp`, or `fsdp` for what does not fit one device."""
    if world_size() == 1:
        return Whole(job)
    return {"ddp": Copied, "fsdp": Sharded}[job.cfg["train"]["strategy"]](job)
