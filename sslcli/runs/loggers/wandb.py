"""Weights & Biases."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcli import console
from sslcli.config import Config
from sslcli.errors import MachineError
from sslcli.runs.loggers.base import Logger, load_id
from sslcli.runs.run import Run


class WandB(Logger):
    """Weights & Biases, configured by its environment variables: WANDB_API_KEY, WANDB_MODE=offline, WANDB_BASE_URL, ..."""

    package = "wandb"

    def __init__(
        self,
        project: str = "sslcli",
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
    ):
        self.place = {"project": project, "entity": entity, "group": group, "tags": tags}

    def check(self) -> None:
        super().check()
        if os.environ.get("WANDB_MODE", "online") in ("online", "run", "shared") and not self._known():
            raise MachineError(
                "logger=wandb: no API key for Weights & Biases, and a run never prompts for one",
                "wandb login, or WANDB_API_KEY=..., or WANDB_MODE=offline to keep everything here",
            )

    def _known(self) -> bool:
        """Whether an API key is configured; sends no request."""
        import netrc
        from urllib.parse import urlparse

        import wandb

        if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
            return True
        host = urlparse(os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url).hostname or ""
        files = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
        for file in (Path(f).expanduser() for f in files if f):
            try:
                if file.is_file() and netrc.netrc(str(file)).authenticators(host):
                    return True
            except (netrc.NetrcParseError, OSError):
                continue
        return False

    def open(self, run: Run, cfg: Config, step: int) -> None:
        import wandb

        run.make_folder("wandb")
        identity = load_id(run, "wandb", lambda: {"id": secrets.token_hex(4)})
        self.run: Any = wandb.init(
            **self.place,
            id=identity["id"],
            resume="allow",
            name=run.path.name,
            dir=str(run.path),
            config=cfg,
            # stdout is for results; git would run programs that the configuration of a repository names
            settings=wandb.Settings(console="off", silent=True, disable_git=True),
        )
        url = None if getattr(self.run, "offline", False) else self.run.url
        console.say(f"wandb {url or 'keeps its files in ' + str(run.path / 'wandb')}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        # a resumed run logs some steps again, with equal values, which W&B drops
        self.run.log(dict(values), step=step)

    def result(self, name: str, numbers: Mapping[str, float], images: Mapping[str, Path], step: int) -> None:
        import wandb

        self.run.summary.update({f"eval/{name}/{key}": value for key, value in numbers.items()})
        if images:
            self.run.log({f"eval/{name}/{title}": wandb.Image(str(path)) for title, path in images.items()})

    def close(self) -> None:
        self.run.finish()
