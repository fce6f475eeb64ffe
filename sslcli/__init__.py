"""Self-supervised learning from the command line and from Python.

The public names are those of `sslcli.api`, imported when they are first used: `import sslcli` imports neither torch nor Hydra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslcli.api import (
        Backbone,
        Batch,
        Dataset,
        Encoder,
        Evaluation,
        Method,
        Run,
        SslError,
        evaluate,
        list_runs,
        load,
        pretrain,
        resume,
    )

__version__ = "0.1.0"

__all__ = [
    "Backbone",
    "Batch",
    "Dataset",
    "Encoder",
    "Evaluation",
    "Method",
    "Run",
    "SslError",
    "evaluate",
    "list_runs",
    "load",
    "pretrain",
    "resume",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sslcli' has no attribute {name!r}")
    from sslcli import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
