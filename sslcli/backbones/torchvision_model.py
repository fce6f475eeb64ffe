"""torchvision classifiers without their head."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslcli.backbones.base import Backbone
from sslcli.errors import RequestError, nearest


class TorchvisionModel(Backbone):
    """The torchvision classifier `name` (`torchvision.models.list_models`), untrained; its last linear layer becomes the identity.

    With other than three channels the first convolution is replaced. Parameters keep torchvision's names under `net.`. Transformers
    are built for the image size; RequestError for models that do not support it.
    """

    accepts: ClassVar = {"continuous": (3,)}

    def __init__(self, input_shape: tuple[int, ...], name: str = "mobilenet_v3_small"):
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
            self.dim = remove_head(net)
            if channels != 3:
                replace_first_conv(net, channels)
            self.net = net
            self._check_shapes(name)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise RequestError(
                f"torchvision's {name} does not support samples of shape {tuple(input_shape)}: {error}",
                "try another dataset.image_size (most models require 224), or backbone=resnet18 or backbone=convnet",
            ) from error

    def _check_shapes(self, name: str) -> None:
        """Forward pass of one sample, which detects unsupported shapes before training."""
        self.net.eval()
        with torch.no_grad():
            out = self.forward(torch.zeros(1, *self.input_shape))
        self.net.train()
        if out.shape != (1, self.dim):
            raise ValueError(f"its features have shape {tuple(out.shape)}, not (1, {self.dim})")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def position_tables(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        patch = getattr(self.net, "patch_size", None)
        if not hasattr(getattr(self.net, "encoder", None), "pos_embedding") or not isinstance(patch, int):
            return {}
        return {"net.encoder.pos_embedding": (1, tuple(side // patch for side in self.input_shape[1:]))}


def remove_head(net: nn.Module) -> int:
    """Replace the last linear layer by the identity (SqueezeNet: the classifier by average pooling). Returns its input width."""
    name, last = [(n, m) for n, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    parent = net.get_submodule(name.rpartition(".")[0])
    if isinstance(last, nn.Linear):
        setattr(parent, name.rpartition(".")[2], nn.Identity())
        return last.in_features
    setattr(net, name.partition(".")[0], nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    return last.in_channels


def replace_first_conv(net: nn.Module, channels: int) -> None:
    """Replace the first convolution by one with `channels` input channels."""
    name, first = next((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d))
    arguments: Any = (first.out_channels, first.kernel_size, first.stride, first.padding)
    conv: Any = nn.Conv2d(channels, *arguments)
    if first.bias is None:
        conv.register_parameter("bias", None)
    parent, _, leaf = name.rpartition(".")
    setattr(net.get_submodule(parent), leaf, conv)
