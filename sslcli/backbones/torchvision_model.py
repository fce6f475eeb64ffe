"""Any of torchvision's classifiers, without its head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcli.backbones.base import Backbone, expect_shape
from sslcli.errors import RequestError, nearest


class TorchvisionModel(Backbone):
    """`name` is torchvision's (`torchvision.models.list_models`), untrained; the last linear layer becomes the
    identity.

    Other than three channels: the first convolution is made anew. Parameters keep torchvision's names under `net.`.
    Transformers get the image size; models that cannot take it say so.
    """

    def __init__(self, input_shape: tuple[int, ...], name: str = "mobilenet_v3_small"):
        expect_shape("torchvision", input_shape, 3)
        super().__init__(input_shape)
        import torchvision

        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            close = nearest(name, known)
            raise RequestError(
                f"torchvision has no classifier named {name!r}",
                f"did you mean backbone.name={close}?" if close else f"for example backbone.name={known[0]}",
            )
        channels, height, width = input_shape
        options: dict[str, Any] = {"weights": None}
        if name in ("googlenet", "inception_v3"):
            options |= {"aux_logits": False, "init_weights": True, "transform_input": False}
        if name.startswith("vit_"):
            options["image_size"] = height
        if name.startswith("maxvit"):
            options["input_size"] = (height, width)
        try:
            net = torchvision.models.get_model(name, **options)
            self.dim = behead(net)
            if channels != 3:
                widen(net, channels)
            self.net = net
            self._try_out(name)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise RequestError(
                f"torchvision's {name} cannot take samples of shape {tuple(input_shape)}: {error}",
                "type another dataset.image_size (most are made for 224), or backbone=resnet18 or backbone=convnet",
            ) from error

    def _try_out(self, name: str) -> None:
        """One sample through the untrained network: shapes are wrong now, or never."""
        self.net.eval()
        with torch.no_grad():
            out = self.forward(torch.zeros(1, *self.input_shape))
        self.net.train()
        if out.shape != (1, self.dim):
            raise ValueError(f"its features have shape {tuple(out.shape)}, not (1, {self.dim})")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def behead(net: nn.Module) -> int:
    """Replaces the last linear layer by the identity (SqueezeNet: the classifier by a mean); its input width."""
    name, last = [(n, m) for n, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    parent = net.get_submodule(name.rpartition(".")[0])
    if isinstance(last, nn.Linear):
        setattr(parent, name.rpartition(".")[2], nn.Identity())
        return last.in_features
    setattr(net, name.partition(".")[0], nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    return last.in_channels


def widen(net: nn.Module, channels: int) -> None:
    """Makes the first convolution anew for `channels` input channels."""
    name, first = next((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d))
    rest: Any = (first.out_channels, first.kernel_size, first.stride, first.padding)
    fresh: Any = nn.Conv2d(channels, *rest)
    if first.bias is None:
        fresh.register_parameter("bias", None)
    parent, _, leaf = name.rpartition(".")
    setattr(net.get_submodule(parent), leaf, fresh)
