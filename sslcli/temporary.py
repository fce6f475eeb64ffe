"""A folder for temporary files that no other user can read or write."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sslcli import config
from sslcli.errors import MachineError


def private_folder() -> Path:
    """A new one, of mode 0700: where temporary files belong, else in shared memory, else beside the runs. The caller removes it.

    MachineError where none of these can be written."""
    for base in (None, "/dev/shm", config.runs_root()):
        try:
            return Path(tempfile.mkdtemp(prefix=".sslcli-" if base else "sslcli-", dir=base))
        except OSError:  # no folder for temporary files at all is one too
            continue
    raise MachineError(
        "there is no folder for temporary files", "export TMPDIR=FOLDER, a folder that can be written to"
    )
