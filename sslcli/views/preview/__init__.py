"""Samples as people see them: the base class, and the kinds that several modalities use."""

from __future__ import annotations

from sslcli.views.preview.base import Preview, Strip, Text, align, heat
from sslcli.views.preview.curves import Curves
from sslcli.views.preview.picture import HeatMap, Picture

__all__ = ["Curves", "HeatMap", "Picture", "Preview", "Strip", "Text", "align", "heat"]
