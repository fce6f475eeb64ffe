"""The wheel in a clean environment, in a folder with a decoy `configs/`: ours is used."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """An environment with the wheel unpacked in it; the packages it depends on are borrowed from this one."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
            "-w",
            folder,
            ROOT,
        ],
        check=True,
        capture_output=True,
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as z:
        names = z.namelist()
        z.extractall(site)
    assert {"sslcli/configs/pretrain.yaml", "sslcli/views/images/native.c"} <= set(names)
    assert {"sslcli/report/html/style.css", "sslcli/report/html/script.js"} <= set(names)
    assert "sslcli/py.typed" in names
    assert not any(n.startswith(("configs/", "tests/")) for n in names)
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "env" / "bin" / "python"


@pytest.mark.slow
def test_the_wheel_works_beside_a_decoy(python, tmp_path):
    for word in ("pretrain.yaml", "base.yaml"):
        (tmp_path / "configs").mkdir(exist_ok=True)
        (tmp_path / "configs" / word).write_text("not: ours\n")
    (tmp_path / "configs" / "method").mkdir()
    (tmp_path / "configs" / "method" / "simsiam.yaml").write_text("not: ours\n")
    where = subprocess.run(
        [python, "-c", "import sslcli; print(sslcli.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(python.parent.parent) in where.stdout
    words = ["experiment=smoke", "device=cpu", "backbone.width=8"]
    done = subprocess.run(
        [python, "-m", "sslcli", "pretrain", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / done.stdout.strip() / "encoder.safetensors").exists()
