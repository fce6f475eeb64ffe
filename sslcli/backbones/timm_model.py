"""Any of timm's models, without its head; needs the extra `timm`."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from sslcli.backbones.base import Backbone, expect_shape
from sslcli.errors import MachineError, RequestError, nearest


class TimmModel(Backbone):
    """`name` is timm's, untrained; parameters keep their names under `net.`. Models of a fixed size get the image's."""

    def __init__(self, input_shape: tuple[int, ...], name: str = "resnet18"):
        expect_shape("timm", input_shape, 3)
        super().__init__(input_shape)
        try:
            import timm
        except ImportError as error:
            raise MachineError(
                f"backbone=timm needs the package timm ({error})",
                "type pip install 'sslcli[timm]', or take backbone=torchvision",
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
            except TypeError:  # this one has no img_size: it takes any
                self.net = timm.create_model(name, **options)
            self.net.eval()
            with torch.no_grad():
                self.dim = self.net(torch.zeros(1, *self.input_shape)).shape[1]
            self.net.train()
        except (RuntimeError, ValueError, AssertionError) as error:
            raise RequestError(
                f"timm's {name} cannot take samples of shape {tuple(input_shape)}: {error}",
                "type another dataset.image_size (most are made for 224), or backbone=resnet18 or backbone=convnet",
            ) from error

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)
