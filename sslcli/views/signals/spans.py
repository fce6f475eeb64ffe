"""Random spans along an axis, which ops of series and of spectrograms hide."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.views.op import BadValue, Op, Params, number


class Spans(Op):
    """`spans` spans, each of up to a fraction `ratio` of the places."""

    def __init__(self, ratio: float = 0.2, spans: int = 1, p: float = 1.0):
        self.ratio = number("ratio", ratio, 0.0, 1.0)
        if number("spans", spans, 1) != int(spans):
            raise BadValue("spans", "an integer")
        self.spans = int(spans)
        self.p = p

    def uniforms(self) -> dict[str, int]:
        return {"length": self.spans, "start": self.spans}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {"length": u["length"].double() * self.ratio, "start": u["start"].double()}

    def hidden(self, params: Params, size: int, filled: Tensor) -> Tensor:
        """(B, size) bool, where the spans are, within the first `filled` (B,) places."""
        places = filled.double()[:, None]
        length = (params["length"] * places).round()  # (B, spans)
        start = (params["start"] * (places - length + 1)).floor()
        at = torch.arange(size, dtype=torch.float64, device=filled.device)
        return ((at >= start[:, :, None]) & (at < (start + length)[:, :, None])).any(1)
