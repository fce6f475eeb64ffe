"""TensorBoard event files in the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcli.config import Config
from sslcli.runs.files import checked
from sslcli.runs.loggers.base import Logger
from sslcli.runs.run import Run


class TensorBoard(Logger):
    """Event files in RUN/tensorboard: `tensorboard --logdir runs`."""

    package = "torch.utils.tensorboard"

    def open(self, run: Run, cfg: Config, step: int) -> None:
        import yaml
        from torch.utils.tensorboard import SummaryWriter

        begun = (run.path / "tensorboard").is_dir()
        folder = run.make_folder("tensorboard")
        # a resumed run logs the steps after its last checkpoint again: the earlier entries are purged
        self.writer: Any = SummaryWriter(str(folder), purge_step=step + 1 if begun else None)
        self.writer.add_text("config", f"```yaml\n{yaml.safe_dump(cfg, sort_keys=False)}\n```")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def result(self, name: str, numbers: Mapping[str, float], images: Mapping[str, Path], step: int) -> None:
        import numpy as np
        from PIL import Image

        self.log(step, {f"eval/{name}/{key}": value for key, value in numbers.items()})
        for title, path in images.items():
            with Image.open(checked(path.parent, path.name)) as image:
                pixels = np.asarray(image.convert("RGB"))
            self.writer.add_image(f"eval/{name}/{title}", pixels, step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()
