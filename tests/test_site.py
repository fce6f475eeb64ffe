"""The documentation site: it builds without a warning, and works in a browser from the disk.

1. Every reference between pages resolves; every page is in a table of contents.
2. In Chromium at desktop and phone width: no request, no broken link, no serious finding of axe; search works.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.document_blocks import ROOT

MODULES = Path(os.environ.get("REPORT_NODE_MODULES", "node_modules")).absolute()


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built from a copy of `docs/`, beside links to the rest of the repository."""
    for package in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(package)
    root = tmp_path_factory.mktemp("site")
    for entry in ROOT.iterdir():
        if entry.name != "docs" and not entry.name.startswith("."):
            (root / entry.name).symlink_to(entry)
    shutil.copytree(ROOT / "docs", root / "docs", ignore=shutil.ignore_patterns("_build", "generated"))
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", root / "docs", root / "built"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    return root / "built"


@pytest.mark.slow
def test_site_builds_without_warnings(site):
    assert (site / "index.html").exists()
    assert (site / "reference" / "generated" / "configuration" / "method.html").exists()
    assert not list(site.rglob("*mathjax*"))


@pytest.mark.slow
def test_site_in_browser(site):
    chromium = shutil.which("chromium")
    if (
        not chromium
        or not shutil.which("node")
        or not all((MODULES / m).is_dir() for m in ("playwright-core", "axe-core"))
    ):
        pytest.skip("needs Chromium, node, and REPORT_NODE_MODULES: a folder with playwright-core and axe-core")
    words = ["node", ROOT / "tests" / "site_browser" / "check.mjs", chromium, site]
    environment = os.environ | {"REPORT_NODE_MODULES": str(MODULES)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
