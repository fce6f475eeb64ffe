"""Distribution of weights and gradients over processes: one process, DistributedDataParallel, or FSDP2.

The trainer calls `model(batch)`, and requests the full weights when it saves or evaluates. Nothing else depends on the strategy.
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
from sslcli.nn.bert_layers import Layer as BertLayer
from sslcli.nn.dist import world_size
from sslcli.nn.lora import merged
from sslcli.nn.transformer import Block
from sslcli.runs import checkpoint
from sslcli.runs.encoder import build_backbone
from sslcli.training.loop.optimizer_state import full_tensor, optimizer_tensors, parameter_names, restore_optimizer
from sslcli.training.setup import TrainingSetup

LARGE = 1_000_000  # parameters; larger layers of a sequence are sharded one by one


class SingleProcess:
    """Training in one process, and the interface of all strategies."""

    sharded = False

    def __init__(self, setup: TrainingSetup):
        self.setup = setup
        self.model: Any = self.wrap(setup.method)
        if setup.runtime.compile:
            self.compile()
        self.names = parameter_names(setup.method)
        self.backbone = next(n for n, m in setup.method.named_modules() if m is setup.method.eval_backbone)

    def wrap(self, method: nn.Module) -> nn.Module:
        return method

    def compile(self) -> None:
        """Compile the `regions` of the method when they are next called.

        On a GPU as CUDA graphs: launching the kernels of a small network takes Python longer than running them takes the device.
        CUDA graphs require weights that keep their addresses, which sharded ones do not."""
        graphs = self.setup.runtime.device.type == "cuda" and not self.sharded
        mode = "reduce-overhead" if graphs else None
        for module in regions(self.setup.method):
            module.compile(dynamic=False, mode=mode)

    def undo_compile(self) -> None:
        """Call the `regions` as written again."""
        for module in regions(self.setup.method):
            module._compiled_call_impl = None  # what `nn.Module.compile` sets

    def gradient_sync(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """The context of one micro-batch. Gradients are averaged over processes in the last one of a step."""
        return contextlib.nullcontext()

    def weights(self) -> dict[str, Tensor]:
        """The full state dict of the method. A collective: every process must call it."""
        return self.setup.method.state_dict()

    def optimizer(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The full tensors of the optimizer state, and its scalars. A collective: every process must call it."""
        return optimizer_tensors(self.setup.optimizer, self.names)

    def backbone_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of the weights of the method those of the backbone that is evaluated and exported."""
        prefix = f"{self.backbone}."
        return merged({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})

    def eval_backbone(self) -> nn.Module:
        """That backbone, which this process can call alone."""
        return self.setup.method.eval_backbone


class DDP(SingleProcess):
    """DistributedDataParallel: each process has all weights, and gradients are averaged during the backward pass."""

    def wrap(self, method: nn.Module) -> nn.Module:
        # find_unused_parameters lets a method leave some out, and keeps the order in which gradients are summed: without it the
        # buckets are rebuilt after the first step, and a resumed run would sum in another order.
        known = inspect.signature(DistributedDataParallel).parameters
        no_buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {no_buffers: False, "gradient_as_bucket_view": True}
        self.ddp = DistributedDataParallel(method, find_unused_parameters=True, **options)
        return self.ddp

    def gradient_sync(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if last else self.ddp.no_sync()

    def weights(self) -> dict[str, Tensor]:
        self.broadcast_statistics()
        return super().weights()

    def eval_backbone(self) -> nn.Module:
        self.broadcast_statistics()
        return super().eval_backbone()

    def broadcast_statistics(self) -> None:
        """With train.sync_batchnorm=false running statistics differ between processes: those of rank 0 are saved and evaluated."""
        if not self.setup.cfg["train"]["sync_batchnorm"]:
            for buffer in self.setup.method.buffers():
                dist.broadcast(buffer, src=0)


class FSDP(SingleProcess):
    """FSDP2 (`fully_shard`): each process holds a shard of every weight, gradient and optimizer state, and a layer is
    gathered while it is used. Transformer blocks and large layers are sharded one by one, all else together."""

    sharded = True

    def wrap(self, method: nn.Module) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        saved = optimizer_tensors(self.setup.optimizer, parameter_names(method))
        method.to(memory_format=torch.contiguous_format)  # the only one that fully_shard supports
        mesh = init_device_mesh(self.setup.runtime.device.type, (world_size(),))
        for module in _shards(method):
            fully_shard(module, mesh=mesh)
        self.root = fully_shard(method, mesh=mesh)
        # fully_shard replaced the parameters.
        self.setup.optimizer = optim.build_optimizer(
            self.setup.cfg["optimizer"],
            method,
            self.setup.lr,
            self.setup.runtime.compile is not False,
            self.setup.cfg["train"]["layer_decay"],
        )
        restore_optimizer(self.setup.optimizer, parameter_names(method), *saved)
        self.copy: nn.Module | None = None
        return method

    def gradient_sync(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        self.root.set_requires_gradient_sync(last)
        return contextlib.nullcontext()

    def weights(self) -> dict[str, Tensor]:
        return {k: full_tensor(v) for k, v in self.setup.method.state_dict().items()}

    def eval_backbone(self) -> nn.Module:
        """A full copy: in an evaluation processes run different numbers of batches."""
        if self.copy is None:
            shape = tuple(self.setup.dataset.shape)
            self.copy = self.setup.runtime.place(
                build_backbone(self.setup.cfg["backbone"], shape, self.setup.dataset.values)
            )
        checkpoint.load_strictly(self.copy, self.backbone_weights(self.weights()), "the sharded weights")
        return self.copy


def regions(method: nn.Module) -> Iterator[nn.Module]:
    """The modules that are compiled: each backbone (also a teacher's); of token backbones each block, since methods call more of
    them than `forward`. Equal blocks share compiled code. The method around them is not compiled: it draws random numbers with
    the epoch in their key, and would be compiled again in each epoch."""
    for module in method.modules():
        if isinstance(module, Block | BertLayer) or (
            isinstance(module, Backbone) and not isinstance(module, TokenBackbone)
        ):
            yield module


def _shards(method: nn.Module) -> list[nn.Module]:
    """The modules to shard one by one, inner ones first. Not backbones: some methods never call them as a whole."""
    shards = []
    for parent in method.modules():
        if isinstance(parent, nn.ModuleList | nn.Sequential):
            for child in parent:
                size = sum(p.numel() for p in child.parameters())
                if size and not hasattr(child, "input_shape") and (isinstance(parent, nn.ModuleList) or size >= LARGE):
                    shards.append(child)
    return shards[::-1]


def make_strategy(setup: TrainingSetup) -> SingleProcess:
    """The strategy of `train.strategy`: `ddp`, or `fsdp` for a model that does not fit on one device."""
    if world_size() == 1:
        return SingleProcess(setup)
    return {"ddp": DDP, "fsdp": FSDP}[setup.cfg["train"]["strategy"]](setup)
