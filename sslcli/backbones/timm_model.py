"""timm models without their head; requires the extra `timm`."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import torch
from torch import Tensor

from sslcli.backbones.base import Backbone
from sslcli.errors import MachineError, RequestError, nearest


class TimmModel(Backbone):
    """The timm model `name`, untrained; parameters keep timm's names under `net.`. Fixed-size models get the size of the image."""

    accepts: ClassVar = {"continuous": (3,)}

    def __init__(self, input_shape: tuple[int, ...], name: str = "resnet18"):
        super().__init__(input_shape)
        try:
            import timm
        except ImportError as error:
            raise MachineError(
                f"backbone=timm requires the package timm ({error})",
                "pip install 'sslcli[timm]', or use backbone=torchvision",
            ) from error
        known = timm.list_models()
        if not re.fullmatch(r"\w+(\.\w+)*", name) or name.partition(".")[0] not in known:  # no hub, no folder
            close = nearest(name, known)
            raise RequestError(
                f"timm has no model named {name!r}",
                f"did you mean backbone.name={close}?" if close else "see timm.list_models()",
            )
        channels, height, width = input_shape
        options: dict[str, Any] = {"pretrained": False, "num_classes": 0, "in_chans": channels}
        try:
            try:
                self.net = timm.create_model(name, img_size=(height, width), **options)
            except TypeError:  # a model without img_size: it supports any size
                self.net = timm.create_model(name, **options)
            self.net.eval()
            with torch.no_grad():
                self.dim = self.net(torch.zeros(1, *self.input_shape)).shape[1]
            self.net.train()
        except (RuntimeError, ValueError, AssertionError) as error:
            raise RequestError(
                f"timm's {name} does not support samples of shape {tuple(input_shape)}: {error}",
                "try another dataset.image_size (most models require 224), or backbone=resnet18 or backbone=convnet",
            ) from error

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)
