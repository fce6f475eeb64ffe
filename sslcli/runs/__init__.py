"""Run folders: their files, identity, checkpoints and listing."""

from typing import Any

Record = dict[str, Any]  # a JSON object, as in the files of a run: a status, metrics of a step, a result
