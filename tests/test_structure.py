"""The structure of the package: imports go down the layers, nothing imports in a circle, folders and files stay small."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "sslcli"
LAYERS = (  # from the lowest to the highest; a package imports from its own layer and from those below
    ("errors", "rng", "console", "nn", "batch"),
    ("runtime", "plotting"),
    ("config",),
    ("runs",),
    ("data",),
    ("views",),
    ("methods", "backbones"),
    ("formats", "classifier"),
    ("optim", "builders"),
    ("evals",),
    ("inference",),
    ("training",),
    ("report",),
    ("audit", "pick"),
    ("api",),
    ("cli",),
    ("__main__",),
)
LAYER = {name: i for i, names in enumerate(LAYERS) for name in names}
OPEN_FOLDERS = {"methods", "nn", "evals", "cli/commands"}  # a file is one choice or one command: any number of them
LONG: dict[str, str] = {}  # files of more than 300 lines, and why


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


@functools.cache
def imports(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """The import statements of a file, also inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def imported(path: Path) -> set[str]:
    """All modules and names that a file imports, also inside functions, as dotted names."""
    found = set()
    for node in imports(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def file_imports(name: str) -> set[str]:
    """The files of the package that a file imports: of `from a.b import c` the module a.b.c, or a.b where c is no module."""
    found = set()
    for node in imports(FILES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {n if n in FILES else str(node.module) for n in names}
    return found & FILES.keys() - {name, "sslcli"}  # the package itself imports `api` lazily


def package(name: str) -> str:
    """`sslcli.runs.files` -> `runs`; the package itself -> its name."""
    return name.split(".")[1] if "." in name else name


def circles(edges: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(v: str) -> None:
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in edges.get(v, ()):
            if w not in index:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in stack:
                low[v] = min(low[v], index[w])
        if low[v] == index[v]:
            component = stack[stack.index(v) :]
            del stack[stack.index(v) :]
            if len(component) > 1:
                found.append(sorted(component))

    for v in edges:
        if v not in index:
            visit(v)
    return found


@functools.cache
def edges() -> dict[str, set[str]]:
    """The files that each file imports."""
    return {name: file_imports(name) for name in FILES}


def test_circles_are_found():
    assert circles({"a": ["b"], "b": ["c"], "c": ["b"], "d": ["a"]}) == [["b", "c"]]


def test_every_package_has_a_layer():
    assert {package(name) for name in FILES if name != "sslcli"} <= LAYER.keys()


@pytest.mark.parametrize("name", [name for name in FILES if name != "sslcli"])
def test_imports_go_down(name):
    here = package(name)
    for other in edges()[name]:
        assert LAYER[package(other)] <= LAYER[here], f"{name} imports {other}, of a higher layer"


def test_no_circle_of_files():
    assert circles({name: others for name, others in edges().items() if name != "sslcli"}) == []


def test_no_circle_of_packages():
    of_packages: dict[str, set[str]] = {}
    for name, others in edges().items():
        of_packages.setdefault(package(name), set()).update({package(o) for o in others} - {package(name)})
    of_packages.pop("sslcli")
    assert circles(of_packages) == []


def test_top_level_has_few_modules():
    assert len([p for p in ROOT.glob("*.py") if not p.name.startswith("__")]) <= 8


def test_folders_have_few_files():
    for folder in {path.parent for path in FILES.values()}:
        name = folder.relative_to(ROOT).as_posix()
        files = [p for p in folder.glob("*.py") if p.name != "__init__.py"]
        assert name in OPEN_FOLDERS or len(files) <= 12, f"{name} has {len(files)} files"


def test_long_files_are_known():
    long = {p.relative_to(ROOT).as_posix() for p in FILES.values() if p.read_text(encoding="utf-8").count("\n") > 300}
    assert long == set(LONG)


@pytest.mark.parametrize("path", sorted((ROOT / "methods").glob("*.py")), ids=lambda p: p.stem)
def test_methods_import_torch_and_nn_only(path):
    allowed = ("torch", "sslcli.nn", "sslcli.methods.base", "sslcli.batch", "math", "typing", "__future__")
    allowed += ("collections", "dataclasses", "itertools")
    allowed += ("sslcli.rng", "sslcli.errors") if path.stem == "base" else ()
    for other in imported(path):
        assert other.startswith(allowed), f"{path.name} imports {other}"


@pytest.mark.parametrize("path", sorted((ROOT / "nn").glob("*.py")), ids=lambda p: p.stem)
def test_nn_imports_nn_only(path):
    for other in imported(path):
        assert not other.startswith("sslcli.") or other.startswith("sslcli.nn"), f"{path.name} imports {other}"


def test_modality_is_tested_in_data_and_views_only():
    for path in FILES.values():
        if path.relative_to(ROOT).parts[0] in ("data", "views", "backbones"):
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not ("modality" in line and line.lstrip().startswith(("if ", "elif "))), f"{path.name}: {line}"


def test_nothing_instantiates_or_unpickles():
    for path in FILES.values():
        text = path.read_text(encoding="utf-8")
        assert "hydra.utils" not in text, path
        assert "weights_only=False" not in text, path
        assert "torchvision.io" not in text.replace("never torchvision.io", ""), path


def keeps_state(path: Path) -> bool:
    """Whether a file has a `global` statement, a cache for the life of the process, or sets an environment variable."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Global):
            return True
        if isinstance(node, ast.FunctionDef) and any("cache" in ast.unparse(d) for d in node.decorator_list):
            return True
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
        )
        if any("os.environ" in ast.unparse(target) for target in targets):
            return True
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "os.environ.setdefault":
            return True
    return False


def test_process_wide_state_is_documented():
    page = (ROOT.parent / "docs" / "explanation" / "process_state.md").read_text(encoding="utf-8")
    missing = [
        name for p in FILES.values() if keeps_state(p) and f"`{(name := p.relative_to(ROOT).as_posix())}`" not in page
    ]
    assert missing == []


def test_no_module_of_data_shadows_a_data_set():
    """`sslcli.data.series` is a function: importing a module of that name would replace it."""
    tree = ast.parse((ROOT / "data" / "__init__.py").read_text(encoding="utf-8"))
    texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    assert not {p.stem for p in (ROOT / "data").iterdir() if not p.name.startswith("__")} & texts


SHAPE_TESTS = re.compile(r"\.ndim\b|len\([\w.]*shape\)|isnan|uint8|\.dim\(\)|modality *[!=]=|modality in\b")
NOT_OF_SAMPLES = {  # files that match outside data, views, backbones and nn, and what of
    "api.py": "the documentation of a type",
    "audit/audit.py": "samples without a defect",
    "cli/commands/select.py": "a metric that is missing",
    "evals/artefacts/predictions.py": "predictions",
    "evals/base/selection.py": "a metric that is missing",
    "evals/fit/kmeans.py": "features",
    "evals/inputs/feature_cache.py": "bytes that are hashed",
    "evals/metrics/anomaly_metrics.py": "scores",
    "evals/metrics/attribution_maps.py": "feature maps",
    "evals/pairing/predictions.py": "ids",
    "evals/reconstruct.py": "errors, NaN where nothing is judged",
    "inference/embeddings/reader.py": "bytes of a file",
    "inference/search.py": "vectors, and labels that are missing",
    "methods/i_jepa.py": "a mask that is sorted",
    "methods/multitask.py": "parameters",
    "methods/vime.py": "values that did not change, missing ones included",
    "optim.py": "parameters",
    "runs/safetensors_file.py": "types of a file format",
    "training/loop/optimizer_state.py": "states of the optimizer",
}


def test_no_code_asks_what_samples_are():
    """Outside data sets, views, backbones and nn, nothing counts the axes of samples or asks for a kind of data."""
    found = {
        p.relative_to(ROOT).as_posix()
        for p in FILES.values()
        if p.relative_to(ROOT).parts[0] not in ("data", "views", "backbones", "nn")
        and SHAPE_TESTS.search(p.read_text(encoding="utf-8"))
    }
    assert found == NOT_OF_SAMPLES.keys()
