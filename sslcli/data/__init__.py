"""Data sets: how they are read, split and loaded. The functions that YAML files name are public here, imported lazily."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    **dict.fromkeys(("cifar10", "cifar100"), "sslcli.data.public.cifar"),
    **dict.fromkeys(("mnist", "fashion_mnist", "kmnist"), "sslcli.data.public.mnist"),
    **{name: f"sslcli.data.public.{name}" for name in ("digits", "stl10", "svhn")},
    **dict.fromkeys(("breast_cancer", "diabetes", "wine"), "sslcli.data.public.sklearn_tables"),
    **{name: f"sslcli.data.histories.{name}" for name in ("interactions", "sessions")},
    "capitals": "sslcli.data.text.capitals",
    **{name: f"sslcli.data.audio.{name}" for name in ("audio_folder", "tones")},
    **{name: f"sslcli.data.video.{name}" for name in ("frames", "moving")},
    **{name: f"sslcli.data.image_text.{name}" for name in ("pairs", "shapes")},
    **{name: f"sslcli.data.sources.{name}" for name in ("arrays", "image_folder", "pack", "series", "table", "tar")},
    **{name: f"sslcli.data.sources.{name}" for name in ("text_lines", "text_table")},
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
