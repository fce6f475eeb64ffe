from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from sslcli import evals
from sslcli.evals.artefacts.confusion import Confusion


@pytest.mark.parametrize(
    ("k", "names"), [(2, ()), (10, tuple("abcdefghij")), (100, tuple(f"class {i}" for i in range(100)))]
)
def test_confusion_is_saved(tmp_path, k, names):
    from PIL import Image

    counts = torch.eye(k, dtype=torch.int64) * 40 + torch.randint(0, 3, (k, k), generator=torch.manual_seed(0))
    Confusion(counts, names).save(tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
        assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 10  # something is drawn
    assert [p.name for p in tmp_path.iterdir()] == ["confusion.png"]


def test_confusion_with_long_names_and_empty_classes(tmp_path):
    counts = torch.tensor([[5, 1, 0], [0, 3, 0], [0, 0, 0]])
    Confusion(counts, ("a $x_1$ b\n", "a very long name of a class indeed", "")).save(tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_evaluator_imports_exclude_optional_packages():
    for file in Path(evals.__file__).parent.glob("*.py"):
        for node in ast.parse(file.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [str(getattr(node, "module", ""))]
            assert not {n.split(".")[0] for n in names} & {"matplotlib", "sklearn", "torchvision", "hydra"}, file.name
