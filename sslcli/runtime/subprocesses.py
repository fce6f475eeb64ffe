"""Environment of child Python processes: data workers, ranks, the jobs of a sweep."""

from __future__ import annotations

import os


def protect_imports() -> None:
    """Keep child processes from importing modules in the working folder, which may hold files of others.

    They are started with `-c` or `-m` (multiprocessing, joblib, submitit), which put that folder first on `sys.path`: a `random.py`
    beside the data would be executed. PYTHONPATH and the folders of --config-dir still apply."""
    os.environ["PYTHONSAFEPATH"] = "1"
