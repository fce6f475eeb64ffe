"""Which files start processes, import by name, load native code or open connections: a closed list, and documented."""

from __future__ import annotations

import ast
import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sslcli import plotting
from sslcli.cli import main as sslcli
from sslcli.config import instantiate
from sslcli.runtime import folders
from sslcli.views.images import native
from tests.conftest import SMOKE

ROOT = Path(instantiate.__file__).parents[1]
MODULES = {"subprocess", "multiprocessing", "ctypes", "socket", "urllib.request", "pickle", "runpy", "asyncio", "pty"}
CALLS = {"import_module", "__import__", "exec", "eval", "compile", "CDLL", "fork", "system", "popen", "instantiate"}
KNOWN = {
    "subprocess": {"views/images/native.py"},
    "multiprocessing": {"data/loading/workers.py", "runtime/processes.py"},
    "ctypes": {"views/images/native.py", "views/images/native_check.py", "views/image.py"},
    "CDLL": {"views/images/native.py"},
    "urllib.request": {"data/public/download.py"},
    "socket": {"runtime/rendezvous.py"},
    "pickle": {"data/public/archives.py"},
    "import_module": {
        "config/instantiate.py",
        "cli/entry_point.py",
        "cli/hydra_command.py",
        "cli/commands/doctor.py",
        "cli/worker.py",
        "cli/commands/runs.py",
        "data/__init__.py",
        "runs/loggers/base.py",
        "formats/runtimes/onnx.py",
    },
}


def uses(path: Path) -> set[str]:
    """What of the above a file uses. `socket` counts where more than the host's name is asked for, `pickle` where it is more than
    an error's class."""
    found = set()
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} & MODULES | {(node.module or "").partition(".")[0]} & MODULES
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            builtin = isinstance(node.func, ast.Name)
            if name in CALLS and (builtin or name not in ("eval", "compile", "exec")):
                found.add(name)
            keys = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            if name == "load" and isinstance(node.func, ast.Attribute):
                owner = getattr(node.func.value, "id", "")
                assert owner != "torch" or keys.get("weights_only") is True, f"{path}:{node.lineno}"
                assert owner != "np" or keys.get("allow_pickle") is False, f"{path}:{node.lineno}"
                assert owner not in ("pickle", "joblib"), f"{path}:{node.lineno}"
    if "socket" in found and text.count("socket.") == text.count("socket.gethostname"):
        found.discard("socket")
    if "pickle" in found and text.count("pickle.") == text.count("pickle.UnpicklingError"):
        found.discard("pickle")
    return found


def test_dangerous_calls_are_known_and_documented():
    found: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        for name in uses(path):
            found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    assert found == KNOWN
    document = (ROOT.parent / "docs" / "explanation" / "security.md").read_text(encoding="utf-8")
    missing = {file for files in KNOWN.values() for file in files if f"`{file}`" not in document}
    assert not missing


def test_python_m_does_not_run_files_of_the_working_folder(tmp_path):
    for name in ("torch", "json", "dataclasses", "shutil", "hydra"):  # not what `python -m` itself imports
        (tmp_path / f"{name}.py").write_text(f"open('{tmp_path}/ran-{name}', 'w')")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    done = subprocess.run([sys.executable, "-m", "sslcli", "--version"], cwd=tmp_path, env=env, check=False)
    assert done.returncode == 0
    assert list(tmp_path.glob("ran-*")) == []


def test_commands_start_python_with_a_safe_path(monkeypatch):
    """What joblib, submitit and multiprocessing start inherits it."""
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    assert sslcli(["list", "methods"]) == 0
    assert os.environ["PYTHONSAFEPATH"] == "1"
    folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert not folder.is_relative_to(tempfile.gettempdir()) or folder.parent == folders.cache_folder()


def test_pythonpath_still_works_in_started_processes(tmp_path):
    (tmp_path / "mine.py").write_text("value = 7")
    env = os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", "import mine; print(mine.value)"], env=env, capture_output=True, check=True
    )
    assert done.stdout.strip() == b"7"


def test_matplotlibrc_of_the_working_folder_decides_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nbackend: module://evil\nfigure.dpi: 7\n")
    script = "from sslcli.plotting import prepare; r = prepare().rcParams; print(r['text.usetex'], r['figure.dpi'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "100.0"]
    assert plotting.new_figure(figsize=(1, 1)).get_size_inches().tolist() == [1, 1]


# ------------------------------------------------------------------------------------------------ the compiled views


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    if native.find_compiler() is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setattr(native, "unavailable_reason", native.unavailable_reason.__wrapped__)
        native.library.__wrapped__()
    return folder / "sslcli"


@pytest.fixture
def cache(compiled, tmp_path, monkeypatch) -> Path:
    """A cache folder with a copy of the compiled views."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for function in (native.library, native.unavailable_reason):
        monkeypatch.setattr(native, function.__name__, function.__wrapped__)
    shutil.copytree(compiled, tmp_path / "sslcli")
    return tmp_path / "sslcli"


def rebuilt(cache: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the cached file was not used, and another is there that is right."""
    calls = []
    build_ = native.build
    monkeypatch.setattr(native, "build", lambda *a: calls.append(1) or build_(*a))
    native.library()
    (made,) = cache.iterdir()
    assert native.content_hash(made.read_bytes()) == made.stem.rpartition("-")[2]
    return bool(calls)


@pytest.mark.parametrize("damage", ["cut short", "another", "writable by others", "a link", "a right sum, wrong views"])
def test_cached_views_that_are_not_right_are_made_anew(damage, cache, tmp_path, monkeypatch):
    (made,) = cache.iterdir()
    content = made.read_bytes()
    made.unlink()  # never overwritten: it is in memory
    other = tmp_path / "wrong.so"
    source = "int views(void *p, void *r, float *o, long a, long b) { return 0; }"
    subprocess.run(
        [native.find_compiler(), "-shared", "-fPIC", "-x", "c", "-o", other, "-"], input=source.encode(), check=True
    )
    if damage == "cut short":
        made.write_bytes(content[:6000])
    elif damage == "another":
        made.write_bytes(other.read_bytes())
    elif damage == "writable by others":
        made.write_bytes(content)
        made.chmod(0o777)
    elif damage == "a link":
        made.symlink_to(other)
    else:
        name = made.stem.rpartition("-")[0]
        (cache / f"{name}-{native.content_hash(other.read_bytes())}.so").write_bytes(other.read_bytes())
    assert rebuilt(cache, monkeypatch)


def test_cached_views_that_are_right_are_used(cache, monkeypatch):
    assert not rebuilt(cache, monkeypatch)


# ------------------------------------------------------------------------------------------------ temporary folders


@contextlib.contextmanager
def read_only_root() -> Iterator[pytest.MonkeyPatch]:
    """A container with a read-only root: no home, no cache, no usual folder for temporary files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", None)
        patch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/none"])
        for name in ("HOME", "XDG_CACHE_HOME"):
            patch.setenv(name, "/proc/none")
        for name in ("TMPDIR", "TORCHINDUCTOR_CACHE_DIR"):
            patch.setenv(name, "")
            patch.delenv(name)
        for function in (native.library, native.unavailable_reason):  # compiled once inside
            patch.setattr(native, function.__name__, functools.cache(function.__wrapped__))
        yield patch


@pytest.mark.parametrize("last_resort", [True, False])
def test_no_temporary_folder_ends_no_command(last_resort, cli):
    """With shared memory in its place, and without."""
    commands = [["pretrain", *SMOKE, "train.steps=1"], ["doctor"]]
    commands += [["eval", "knn", "run=none", *SMOKE[1:]]] if last_resort else []
    with read_only_root() as patch:
        if not last_resort:
            patch.setattr(folders, "available", lambda: False)
            assert native.unavailable_reason() == folders.MISSING
        results = [cli(*words) for words in commands]
    assert {r.code for r in results} == {0}, results
    assert any(folders.MISSING in r.err + r.out for r in results)


def test_shared_memory_is_the_last_resort(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with read_only_root():
        assert folders.available() == os.access("/dev/shm", os.W_OK)


def test_private_folder_is_private(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with folders.private_folder() as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


def test_cache_folder_of_the_working_folder_is_not_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert folders.cache_folder() is None
