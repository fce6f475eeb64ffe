"""How this process starts other Python processes: data workers, ranks, the jobs of a sweep."""

from __future__ import annotations

import os


def protect_imports() -> None:
    """Python processes started from here on do not import from the working folder, which may hold anyone's files.

    They are started with `-c` or `-m` (multiprocessing, joblib, submitit), which put that folder first on `sys.path`: a `random.py`
    beside the data would be run. PYTHONPATH and the folders of --config-dir are still used."""
    os.environ["PYTHONSAFEPATH"] = "1"
