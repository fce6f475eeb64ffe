"""The rules of the suite itself: no test writes into the checkout, and a warning fails a test unless it is a library's own."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from tests import conftest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "write",
    [
        lambda: (ROOT / "leak").write_text(""),
        lambda: os.open(ROOT / "leak", os.O_CREAT | os.O_WRONLY),
        lambda: (ROOT / "leak").mkdir(),
        lambda: (ROOT / "runs" / "latest").symlink_to("x"),
        lambda: os.replace("x", ROOT / "README.md"),
        lambda: (ROOT / "README.md").unlink(),
    ],
)
def test_write_into_the_checkout_is_refused(write):
    with pytest.raises(RuntimeError, match="outside its temporary folder"):
        write()
    assert len(conftest._leaks) == 1
    conftest._leaks.clear()
    assert not (ROOT / "leak").exists()


def test_starts_in_an_empty_folder():
    assert list(Path.cwd().iterdir()) == []
    assert not Path.cwd().is_relative_to(ROOT)


def warned(module: str) -> None:
    warnings.warn_explicit("old", DeprecationWarning, "file.py", 1, module=module)


def test_deprecations_of_torch_are_torchs():
    warned("torch._inductor.codecache")
    with pytest.raises(DeprecationWarning):
        warned("sslcli.training.loop.trainer")
