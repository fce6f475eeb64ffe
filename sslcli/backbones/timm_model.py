"""timm models without their head; requires the extra `timm`."""

from __future__ import annotations

import contextlib
import io
import re
import sys
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
        timm = require_timm("backbone=timm")
        check_name(name, "backbone.name=")
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

    def position_tables(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        table, embedding = getattr(self.net, "pos_embed", None), getattr(self.net, "patch_embed", None)
        grid = getattr(embedding, "grid_size", None)
        if not isinstance(table, Tensor) or table.ndim != 3 or grid is None:
            return {}
        tokens = 0 if getattr(self.net, "no_embed_class", False) else getattr(self.net, "num_prefix_tokens", 1)
        return {"net.pos_embed": (tokens, tuple(grid))}

    def convert_weights(self, tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """Tensors as timm's own code converts them for this model: those of the authors' code, such as that of DINOv2, and relative
        positions of another grid. None where timm has no conversion, or it does not take these."""
        convert = getattr(sys.modules[type(self.net).__module__], "checkpoint_filter_fn", None)
        if convert is None:
            return None
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # timm prints errors that it handles
                out = convert(dict(tensors), self.net)
        except Exception:  # the code is written for published checkpoints, and fails in any way on others
            return None
        return dict(out)


def require_timm(purpose: str) -> Any:
    """The package timm. MachineError where it is not installed; `purpose`: what requires it."""
    try:
        import timm
    except ImportError as error:
        raise MachineError(
            f"{purpose} requires the package timm ({error})",
            "pip install 'sslcli[timm]', or use backbone=torchvision",
        ) from error
    return timm


def check_name(name: str, key: str) -> None:
    """RequestError unless timm has a model of this name, which names no hub and no folder. `key`: before a name, for the hint."""
    known = require_timm(key).list_models()
    if not re.fullmatch(r"\w+(\.\w+)*", name) or name.partition(".")[0] not in known:
        close = nearest(name, known)
        raise RequestError(
            f"timm has no model named {name!r}", f"did you mean {key}{close}?" if close else "see timm.list_models()"
        )
