"""Synchronized batch norm on any device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.nn.dist import gather, world_size

_Norm = nn.modules.batchnorm._BatchNorm


class GlobalBatchNorm(_Norm):
    """Batch norm with statistics over the samples of all processes, (B, C) or (B, C, ...); torch's norm on one process.

    torch's SyncBatchNorm does not support CPUs. Here each process sends its count, mean and sum of squared deviations, one row
    per norm, which are combined as in Chan, Golub & LeVeque, "Algorithms for computing the sample variance" (1983), without
    the cancellation of a difference of squares. Gradients flow through the statistics of all processes.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm: expected (B, C, ...), got {tuple(input.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        mean, var, count = global_statistics(x)
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            unbiased = var.detach() * (count / (count - 1))
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), share)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)
        scale = (var + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        shape = (1, -1, *([1] * (x.dim() - 2)))
        return torch.addcmul(shift.view(shape).to(x.dtype), x, scale.view(shape).to(x.dtype))


def global_statistics(x: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean (C,) and biased variance (C,) over samples and positions of all processes, and the number of values per channel."""
    full = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    dims = [0, *range(2, x.dim())]
    n = full.numel() // full.shape[1]
    var, mean = torch.var_mean(full, dim=dims, correction=0)
    row = torch.cat([mean, var * n, mean.new_tensor([float(n)])])
    means, squares, counts = gather(row[None]).split([len(mean), len(mean), 1], dim=1)  # (W, C), (W, C), (W, 1)
    counts = counts.detach()
    total = float(counts.sum())
    global_mean = (means * counts).sum(dim=0) / total
    deviations = squares.sum(dim=0) + (counts * (means - global_mean).square()).sum(dim=0)
    return global_mean, deviations / total, total


def convert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Replace every batch norm by a synchronized one with the same parameters and buffers: on a GPU torch's SyncBatchNorm."""
    if any(p.device.type == "cuda" for p in module.parameters()):
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    return _convert(module)


def _convert(module: nn.Module) -> nn.Module:
    if isinstance(module, _Norm) and not isinstance(module, GlobalBatchNorm):
        norm = GlobalBatchNorm(
            module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
        )
        norm.weight, norm.bias = module.weight, module.bias
        norm.running_mean, norm.running_var = module.running_mean, module.running_var
        norm.num_batches_tracked = module.num_batches_tracked
        norm.training = module.training
        return norm
    for name, child in module.named_children():
        setattr(module, name, _convert(child))
    return module
