"""Adversarial attacks on images: perturbations of at most `eps` per pixel (L-infinity), in pixels of 0..1.

`model` maps (B, C, H, W) pixels to (B, K) logits, the normalization inside; `y` (B,) are columns of the logits. Untargeted:
the cross-entropy is raised. Uninformative gradients can make a model look robust (Athalye et al., ICML 2018): the accuracy
under these attacks is an upper bound of the accuracy under stronger ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Model = Callable[[Tensor], Tensor]


def fgsm(model: Model, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """One step of `eps` along the gradient's sign. Goodfellow, Shlens & Szegedy, ICLR 2015, Sec. 4."""
    return (x + eps * gradient(model, x, y).sign()).clamp(0, 1)


def pgd(model: Model, x: Tensor, y: Tensor, eps: float, steps: int = 10, start: Tensor | None = None) -> Tensor:
    """`steps` steps of 2.5 eps / steps along the gradient's sign, each back into the box. Madry et al., ICLR 2018, Eq. 2.

    `start` (B, C, H, W) in -1..1 says where in the box to begin; None: at x.
    """
    rate = 2.5 * eps / steps
    z = x if start is None else (x + eps * start).clamp(0, 1)
    for _ in range(steps):
        z = z + rate * gradient(model, z, y).sign()
        z = torch.minimum(torch.maximum(z, x - eps), x + eps).clamp(0, 1)
    return z


def gradient(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """Of the cross-entropy of each sample, by its pixels."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        loss = F.cross_entropy(model(x).float(), y, reduction="sum")
        (g,) = torch.autograd.grad(loss, x)
    return g
