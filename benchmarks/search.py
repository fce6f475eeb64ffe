"""Exact search among a million vectors: `sslcli search`, NumPy and FAISS, each in a process of its own.

    pip install faiss-cpu                              # or only=sslcli,numpy
    python benchmarks/search.py FOLDER [n=1000000] [dim=256] [queries=100] [k=10] [threads=1] [only=sslcli,numpy,faiss]

FOLDER receives n x dim float32 vectors from a normal distribution. Printed for each: seconds to read the vectors and to search, the
largest memory of the process above that of its imports (without mapped pages of the file, which the system may drop at any time),
and the neighbors that differ from those in float64 where their similarities do not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

CHUNK = 50_000


def main() -> None:
    folder, *pairs = sys.argv[1:]
    given = {"n": "1000000", "dim": "256", "queries": "100", "k": "10", "threads": "1", "only": "sslcli,numpy,faiss"}
    given |= dict(pair.split("=") for pair in pairs)
    n, dim, count, k = (int(given[key]) for key in ("n", "dim", "queries", "k"))
    path = Path(folder) / f"vectors-{n}-{dim}.npy"
    if not path.exists():
        write_vectors(path, n, dim)
    queries = np.random.default_rng(1).normal(size=(count, dim)).astype("float32")
    np.save(Path(folder) / "queries.npy", queries)
    expected = reference(path, queries, k)
    print(f"{n:,} x {dim}, {count} queries, k={k}, {given['threads']} thread(s)")
    print("| engine | seconds | peak memory, MB | differences |\n|---|--:|--:|--:|")
    for engine in given["only"].split(","):
        environment = os.environ | {"OMP_NUM_THREADS": given["threads"], "OPENBLAS_NUM_THREADS": given["threads"]}
        words = [sys.executable, __file__, "--engine", engine, str(path), str(Path(folder) / "queries.npy"), str(k)]
        result = json.loads(subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout)
        differences = sum(
            i not in near and s > least + 1e-5
            for row, near, least in zip(expected, result["rows"], [r[-1][1] for r in expected], strict=True)
            for i, s in row
        )
        print(f"| {engine} | {result['seconds']:.2f} | {result['memory']:.0f} | {differences} |", flush=True)


def write_vectors(path: Path, n: int, dim: int) -> None:
    g = np.random.default_rng(0)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (n, dim))
    for start in range(0, n, CHUNK):
        out[start : start + CHUNK] = g.normal(size=(min(CHUNK, n - start), dim))


def reference(path: Path, queries: np.ndarray, k: int) -> list[list[tuple[int, float]]]:
    """(row, similarity) of the k nearest of each query, in float64."""
    x, q = np.load(path, mmap_mode="r"), queries.astype(float)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    best: list[list[tuple[int, float]]] = [[] for _ in q]
    for start in range(0, len(x), CHUNK):
        block = x[start : start + CHUNK].astype(float)
        s = q @ (block / np.linalg.norm(block, axis=1, keepdims=True)).T
        for i, row in enumerate(s):
            top = np.argpartition(-row, k)[:k]
            best[i] = sorted(best[i] + [(start + int(j), float(row[j])) for j in top], key=lambda e: -e[1])[:k]
    return best


def of_sslcli(path: str, queries: np.ndarray, k: int) -> list[list[int]]:
    import torch

    from sslcli.inference.embeddings.reader import Embeddings
    from sslcli.inference.search import Query, search

    x = np.load(path, mmap_mode="r")
    names = np.broadcast_to(np.array(""), len(x))
    found = search(
        Embeddings(names, names, None, x, {}), [Query(str(i), torch.from_numpy(q)) for i, q in enumerate(queries)], k
    )
    return [[neighbor.row for neighbor in near] for near in found]


def of_numpy(path: str, queries: np.ndarray, k: int) -> list[list[int]]:
    x = np.load(path)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    s = queries / np.linalg.norm(queries, axis=1, keepdims=True) @ x.T
    top = np.argpartition(-s, k, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(s, top, 1), axis=1)
    return np.take_along_axis(top, order, 1).tolist()


def of_faiss(path: str, queries: np.ndarray, k: int) -> list[list[int]]:
    import faiss

    x = np.load(path)
    faiss.normalize_L2(x)
    index = faiss.IndexFlatIP(x.shape[1])
    index.add(x)
    q = queries.copy()
    faiss.normalize_L2(q)
    return index.search(q, k)[1].tolist()


def memory() -> float:
    """Resident MB of this process without mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) / 1024


def run_engine(engine: str, path: str, queries: str, k: str) -> None:
    if engine == "sslcli":
        pass
    elif engine == "faiss":
        import faiss  # noqa: F401
    q, peak, over = np.load(queries), [memory()], threading.Event()
    before = peak[0]

    def watch() -> None:
        while not over.wait(0.01):
            peak[0] = max(peak[0], memory())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    start = time.perf_counter()
    rows = {"sslcli": of_sslcli, "numpy": of_numpy, "faiss": of_faiss}[engine](path, q, int(k))
    seconds = time.perf_counter() - start
    over.set()
    thread.join()
    print(json.dumps({"seconds": seconds, "memory": peak[0] - before, "rows": rows}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--engine"]:
        run_engine(*sys.argv[2:])
    else:
        main()
