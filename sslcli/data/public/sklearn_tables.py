"""Small tables that scikit-learn contains: breast cancer and wine (classes), diabetes (a value). Nothing to download."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from sslcli.data.dataset import Dataset
from sslcli.data.fingerprint import fingerprint
from sslcli.data.tables.build import Options, build_dataset
from sslcli.data.tables.columns import Column, Table
from sslcli.data.tables.preprocessor import TablePreprocessor
from sslcli.errors import MachineError

CELL = ("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points", "symmetry",
        "fractal dimension")  # fmt: skip
WINE = ("alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols", "flavanoids", "nonflavanoid_phenols",
        "proanthocyanins", "color_intensity", "hue", "od280/od315_of_diluted_wines", "proline")  # fmt: skip
DIABETES = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")


def breast_cancer(
    name: str = "breast_cancer", holdout: float = 0.2, split_seed: int = 0, like: TablePreprocessor | None = None
) -> Dataset:
    """569 tumors, 30 measurements of cell nuclei, malignant or benign.

    Street, Wolberg & Mangasarian, "Nuclear feature extraction for breast tumor diagnosis", 1993."""
    rows = _numbers("breast_cancer.csv", ",", 1)
    columns = [
        f"{prefix}{c}{suffix}" for prefix, suffix in (("mean ", ""), ("", " error"), ("worst ", "")) for c in CELL
    ]
    return _dataset(
        name, columns, rows[:, :-1], rows[:, -1], "diagnosis", ("malignant", "benign"), holdout, split_seed, like
    )


def wine(
    name: str = "wine", holdout: float = 0.2, split_seed: int = 0, like: TablePreprocessor | None = None
) -> Dataset:
    """178 wines of three cultivars, 13 chemical measurements. Aeberhard & Forina, "Wine", UCI 1991."""
    rows = _numbers("wine_data.csv", ",", 1)
    classes = ("class_0", "class_1", "class_2")
    return _dataset(name, WINE, rows[:, :-1], rows[:, -1], "cultivar", classes, holdout, split_seed, like)


def diabetes(
    name: str = "diabetes", holdout: float = 0.2, split_seed: int = 0, like: TablePreprocessor | None = None
) -> Dataset:
    """442 patients, 10 measurements, and the progression of the disease a year later, a value to predict.

    Efron et al., "Least angle regression", 2004."""
    rows, target = _numbers("diabetes_data_raw.csv.gz", " "), _numbers("diabetes_target.csv.gz", " ")
    return _dataset(name, DIABETES, rows, target.reshape(-1), "progression", (), holdout, split_seed, like)


def _numbers(file: str, delimiter: str, skip: int = 0) -> np.ndarray:
    """The numbers of a file of scikit-learn, read directly, because importing `sklearn.datasets` takes 1.5 seconds."""
    spec = find_spec("sklearn")
    path = Path(spec.origin or "").parent / "datasets" / "data" / file if spec else Path(file)
    if not path.is_file():
        raise MachineError(f"this version of scikit-learn does not contain {file}", "pip install 'scikit-learn>=1.5'")
    text = gzip.decompress(path.read_bytes()).decode() if file.endswith(".gz") else path.read_text()
    return np.loadtxt(text.splitlines(), delimiter=delimiter, skiprows=skip, dtype=np.float64)


def _dataset(
    name: str,
    columns: Sequence[str],
    x: np.ndarray,
    y: np.ndarray,
    label: str,
    classes: tuple[str, ...],
    holdout: float,
    split_seed: int,
    like: TablePreprocessor | None,
) -> Dataset:
    features = {c: Column(c, numbers=x[:, j].copy()) for j, c in enumerate(columns)}
    labels = Column(label, codes=y.astype(np.int32), texts=classes) if classes else Column(label, numbers=y)
    table = Table(
        name, {**features, label: labels}, np.arange(len(x)), (0, len(x)), {c: Counter() for c in (*columns, label)}
    )
    options = Options(label, "classes" if classes else "value", numeric=columns, holdout=holdout, split_seed=split_seed)
    identity = fingerprint(len(x), (x.tobytes(), y.tobytes()))
    return build_dataset(name, table, np.zeros(len(x), np.int64), options, [], identity, like, "row")
