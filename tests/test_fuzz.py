"""Random words and mutated YAML: never a traceback, exit code 2 (or 0 where it happens to make sense), and at once.

SSLCLI_FUZZ=1 tries them all (1,000 and 500), otherwise a quarter.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sslcli.config import compose, instantiate, safe_yaml
from sslcli.errors import MachineError, RequestError, SslError
from sslcli.training.configuration import resolve
from sslcli.training.setup import check
from tests import fuzz
from tests.conftest import SMOKE
from tests.limits import cost

FULL = bool(os.environ.get("SSLCLI_FUZZ"))
WORDS, FILES = (1000, 500) if FULL else (250, 120)
SECONDS = 1.0


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """In an empty folder, with nothing learned from one file to the next."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(instantiate, "_folders", [])
    compose.compose("pretrain", [])  # what is imported once is not counted


def code_of(overrides: list[str], folders: list[Path]) -> int:
    """What `sslcli pretrain` would say before it touches any data. Anything else that is raised flies."""
    try:
        for folder in folders:
            safe_yaml.check_yaml_folder(folder)
        check(resolve(compose.compose("pretrain", overrides, folders)))
    except (RequestError, MachineError) as error:  # MachineError: a package that is not installed
        return error.code if error.message.strip() else 1
    return 0


def run_all(cases: list[tuple[list[str], list[Path]]]) -> Counter[int]:
    codes: Counter[int] = Counter()
    slow, raised = [], []
    for overrides, folders in cases:
        try:
            code, took = cost(functools.partial(code_of, overrides, folders), SECONDS)
            codes[code] += 1
            if took > SECONDS:
                slow.append((overrides, folders, took))
        except Exception as error:
            raised.append((overrides, folders, f"{type(error).__name__}: {error}"[:300]))
    assert not raised, f"{len(raised)} of {len(cases)}, such as {raised[:5]}"
    assert not slow, slow[:5]
    return codes


def test_random_overrides():
    codes = run_all([(words, []) for words in fuzz.overrides(WORDS)])
    assert set(codes) <= {0, 2, 3}
    assert codes[2] > WORDS / 2
    assert codes[0] > 0
    assert list(Path.cwd().iterdir()) == []


def test_mutated_yaml(tmp_path):
    made = fuzz.yaml_files(FILES, tmp_path)
    codes = run_all([(words, [folder]) for words, folder in made])
    assert set(codes) <= {0, 2, 3}
    assert codes[2] > FILES / 4
    assert codes[0] > 0
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("words", [["method=simsiam", "backbone=mlp"], ["method=mae", "backbone=vit_micro"]], ids=str)
def test_wrong_values_up_to_the_first_step(words):
    """Each is refused before a folder is made, or makes a job that could train."""
    from sslcli.training.setup import prepare

    base = resolve(compose.compose("pretrain", [*words, "device=cpu", "device.threads=1", "device.workers=0"]))
    codes: Counter[int] = Counter()
    raised = []
    for key, value, cfg in fuzz.values(base, 600 if FULL else 60):
        try:
            prepare(cfg)
            codes[0] += 1
        except SslError as error:
            codes[error.code] += 1
        except Exception as error:
            raised.append((key, value, f"{type(error).__name__}: {error}"[:200]))
    assert not raised, raised[:5]
    assert set(codes) <= {0, 2, 3}
    assert codes[2] > codes[0] > 0


def test_the_door_itself(cli):
    """The same through main(): parsing of flags, Hydra's own front end, exit codes, words on stderr."""
    import random

    rng = random.Random(7)
    codes: Counter[int] = Counter()
    for i, words in enumerate(fuzz.overrides(200 if FULL else 40, seed=1)):
        argv = ["pretrain", "--cfg", "job", *words]
        if i % 4 == 0:
            word = rng.choice(
                ("runs", "list", "resume", "data", "doctor", "completion", "eval", "pipeline", "nonsense")
            )
            argv = [word, *rng.choice((words, ["--json"], ["-x"], ["inspect", *words], ["show", *words[:1]]))]
        if "doctor" in argv:
            continue  # imports everything
        if any("\0" in a for a in argv):
            continue  # no command line can hold it
        result = cli(*argv)
        codes[result.code] += 1
        assert result.code in (0, 2, 3, 7), (argv, result)
        if result.code:
            assert result.err.count("error: ") >= 1, (argv, result)
            assert "bug in sslcli" not in result.err
        assert "\x1b" not in result.out + result.err
    assert codes[2] > 10
    assert not [p for p in Path.cwd().iterdir() if p.name != "runs"]
    assert not Path("runs").exists()


def test_the_guard_goes_off():
    calls = []
    answer, took = cost(lambda: calls.append(sum(range(3_000_000))), limit=1e-4)
    assert answer is None
    assert took > 1e-4
    assert len(calls) == 3
    assert cost(lambda: 7, limit=1.0)[0] == 7


# ------------------------------------------------------------------------------------------------------- files of a run

PARTS = 4 if FULL else 1


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> Path:
    """A folder with two runs, a and b, of four steps, measured."""
    from sslcli.cli import main

    folder = tmp_path_factory.mktemp("fuzz")
    before = Path.cwd()
    os.chdir(folder)
    try:
        words = ["train.steps=4", "train.save_every=2", "train.batch_size=32", "train.eval_every=0", "seed=1"]
        assert main(["pretrain", "-q", *SMOKE, *words, "hydra.run.dir=runs/a"]) == 0
        assert main(["eval", "knn", "-q", "run=a", *fuzz.RUN_COMMANDS["eval"][3:]]) == 0
    finally:
        os.chdir(before)
        os.environ.pop("SSLCLI_QUIET", None)
    line = {"time": "2026-01-01T00:00:00+00:00", "event": "resumed", "step": 2}
    (folder / "runs" / "a" / "events.jsonl").write_text(json.dumps(line) + "\n")
    shutil.copytree(folder / "runs" / "a", folder / "runs" / "b")
    return folder


@contextlib.contextmanager
def not_longer_than(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_files_of_a_run(part, cli, whole_run, tmp_path):
    """Every file of a run, damaged, under every command that reads it: an exit code and a sentence, nothing else touched."""
    cases = fuzz.run_damages(None if FULL else 33, seed=3)[part::PARTS]
    codes: Counter[int] = Counter()
    wrong = []
    for number, (command, file, how) in enumerate(cases):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        shutil.rmtree(tmp_path / "exported", ignore_errors=True)
        shutil.copytree(whole_run / "runs", tmp_path / "runs", symlinks=True)
        outside = tmp_path / "outside"
        shutil.rmtree(outside, ignore_errors=True)
        shutil.copytree(whole_run / "runs" / "a", outside)
        for suffix in (".json", ".jsonl", ".txt", ".yaml", ".safetensors"):
            (outside / f"target{suffix}").write_bytes(b"precious\n" * 100)
        (outside / ".lock").write_bytes(b"precious")
        kept = contents(outside)
        run = tmp_path / "runs" / "a"
        status = (run / "status.json").read_text()
        if command == "resume" and not file.startswith("encoder"):
            (run / "status.json").write_text(status.replace('"done"', '"interrupted"'))
        fuzz.damage(run, file, how, outside, random.Random(number))
        try:
            with not_longer_than(60):
                result = cli(*fuzz.RUN_COMMANDS[command])
        except BaseException as error:
            wrong.append((command, file, how, f"{type(error).__name__}: {str(error)[-300:]}"))
            continue
        codes[result.code] += 1
        if result.code not in (0, 2, 4, 5, 7) or (result.code and result.err.count("error: ") != 1):
            wrong.append((command, file, how, result.code, result.err[-300:]))
        if contents(outside) != kept:
            wrong.append((command, file, how, "wrote outside the run"))
    assert not wrong, f"{len(wrong)} of {len(cases)}, such as {wrong[:5]}"
    assert codes[0] > 0
    assert sum(codes.values()) > codes[0]


def test_damaged_exported_encoder(cli, whole_run, tmp_path):
    """`pretrain init=FOLDER` and `method.teacher=FOLDER`."""
    shutil.copytree(whole_run / "runs", tmp_path / "runs", symlinks=True)
    assert cli("export", "a", "out=good").code == 0
    rng = random.Random(0)
    teach = ["method=distill", "method.teacher=bad"]
    for how in fuzz.DAMAGES:
        for file in ("encoder.json", "encoder.safetensors"):
            shutil.rmtree("bad", ignore_errors=True)
            shutil.copytree("good", "bad")
            fuzz.damage(Path("bad").absolute(), file, how, tmp_path / "good", rng)
            words = ["init=bad"] if rng.randrange(2) else teach
            with not_longer_than(60):
                result = cli("pretrain", *SMOKE, *words, "--dry-run")
            assert result.code in (0, 2, 4), (file, how, result)
            assert how in ("types", "lie") or result.code, (file, how, result)
