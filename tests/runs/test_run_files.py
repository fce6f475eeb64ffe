"""Files of a run folder, whoever made it: opened by disk.py alone, without links; what they say is checked in records.py.

tests/test_fuzz.py damages each of them at random under each command.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sslcli.config import schema
from sslcli.errors import RequestError, StorageError, TrainingError
from sslcli.runs import checkpoint, files, records
from sslcli.runs.run import Run
from sslcli.training import state
from tests import fuzz
from tests.conftest import SMOKE

PACKAGE = Path(files.__file__).parents[1]
FAST = ["-q", "device=cpu", "device.threads=1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A finished run of four steps with two checkpoints and an evaluation, in runs/a of a folder."""
    from sslcli.cli import main

    folder = tmp_path_factory.mktemp("made")
    before = Path.cwd()
    os.chdir(folder)
    try:
        words = ["train.steps=4", "train.save_every=2", "train.batch_size=32", "train.eval_every=0"]
        assert main(["pretrain", "-q", *SMOKE, *words, "hydra.run.dir=runs/a"]) == 0
        assert main(["eval", "knn", "run=a", "evaluator.baselines=false", *FAST]) == 0
    finally:
        os.chdir(before)
        os.environ.pop("SSLCLI_QUIET", None)
    return folder


@pytest.fixture
def run(made, cli, tmp_path) -> Path:
    """A copy of it in the working folder."""
    shutil.copytree(made / "runs", tmp_path / "runs", symlinks=True)
    return Path("runs/a")


@pytest.fixture
def broken_off(run) -> Path:
    """The same, said to be interrupted."""
    status = (run / "status.json").read_text()
    (run / "status.json").write_text(status.replace('"done"', '"interrupted"'))
    return run


# ----------------------------------------------------------------------------------------------------- opening and writing


def test_read_file_opens_regular_files_only(tmp_path):
    (tmp_path / "outside").write_text('{"a": 1}')
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("outside")
    (tmp_path / "folder").mkdir()
    (tmp_path / "inner").symlink_to("folder")
    (tmp_path / "folder" / "x.json").write_text('{"a": 1}')
    for name in (
        "fifo",
        "link",
        "folder",
        "inner/x.json",
        "../x",
        "folder/../outside",
        "/etc/passwd",
        "",
        "a//b",
        "x\0",
    ):
        for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_RDWR | os.O_CREAT):
            with pytest.raises(OSError, match=r"symbolic link|regular file|Is a directory|not the name"):
                files.open_file(tmp_path, name, flags)
        assert files.read_json(tmp_path, name) == {}
        assert files.read_lines(tmp_path, name) == ([], 1)
        assert files.size_of(tmp_path, name) is None
    assert files.read_json(tmp_path, "folder/x.json") == {"a": 1}
    assert files.files_in(tmp_path, "folder/*.json") == ["folder/x.json"]
    assert files.files_in(tmp_path, "inner/*.json") == []
    assert files.files_in(tmp_path, "*") == ["outside"]
    with pytest.raises(OSError, match="symbolic link"):
        files.make_folder(tmp_path, "inner/more")


def test_replace_file_does_not_follow_links(tmp_path):
    (tmp_path / "outside").write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    pid = os.getpid()
    for name in ("x", f".x.{pid}.tmp"):  # the file, and the temporary one beside it
        for write in (
            lambda: files.replace_file(folder, "x", "new"),
            lambda: files.write_json(folder, "x", {"a": 1}),
            lambda: _write_by_path(folder / "x"),
        ):
            with contextlib.suppress(FileNotFoundError):
                (folder / name).unlink()
            (folder / name).symlink_to(tmp_path / "outside")
            write()
            assert not (folder / "x").is_symlink()
            assert sorted(os.listdir(folder)) == ["x"]
    assert (tmp_path / "outside").read_text() == "precious"
    (folder / "eval").symlink_to(tmp_path)
    with pytest.raises(StorageError, match="its folder eval is a symbolic link"):
        files.replace_file(folder, "eval/x.json", "{}")


def _write_by_path(path: Path) -> None:
    with files.replacing(path) as temporary:
        temporary.write_text("new")


def test_read_file_size_and_depth_limits(tmp_path, monkeypatch):
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 1 << 40)
    with pytest.raises(OSError, match="at most"):
        files.read_file(tmp_path, "huge")
    with pytest.raises(OSError, match="at most"):
        files.checked(tmp_path, "huge")
    assert files.read_lines(tmp_path, "huge") == ([], 1)
    assert files.parse('{"a":' * 49 + "1" + "}" * 49)
    for text in (
        '{"a":' * 60 + "1" + "}" * 60,
        '{"a": ' + "[" * 100_000,
        '{"a": [' + "[]," * 1_000_001 + "1]}",
        "[1]",
        "1",
    ):
        assert files.parse(text) == {}
    assert files.parse('{"a": ' + "9" * 400 + "}")["a"] == float("inf")
    loop: list[Any] = []
    loop += [loop, loop]
    assert not files.is_bounded(loop)


def test_log_escapes_line_breaks(tmp_path):
    run = Run.create(tmp_path / "r", {})
    run.write_log("name: x\nssh-ed25519 AAAA\r\x1b[2J\u2028stranger")
    run.event("odd", name="a\nb\u202e")
    run.close()
    assert len((run.path / "log.txt").read_bytes().splitlines()) == 1
    assert "\\nssh-ed25519" in (run.path / "log.txt").read_text()
    (event,) = records.events(run.path)
    assert event["name"] == "a\nb\u202e"


# ------------------------------------------------------------------------------------------------------- links in a run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_resume_does_not_write_through_links(cli, broken_off, tmp_path):
    outside = tmp_path / "home"
    outside.mkdir()
    for name in (".lock", "metrics.jsonl", "log.txt", "events.jsonl", "status.json", "config.yaml"):
        copy = tmp_path / "runs" / f"b{name}"
        shutil.copytree(broken_off, copy, symlinks=True)
        target = outside / name
        target.write_bytes((copy / name).read_bytes() + b"precious\n" * 100 if (copy / name).exists() else b"precious")
        (copy / name).unlink(missing_ok=True)
        (copy / name).symlink_to(target)
        before = target.read_bytes()
        result = cli("resume", str(copy), "-q")
        assert target.read_bytes() == before, name
        assert result.code in (0, 2, 5), (name, result)
        assert "symbolic link" in result.err or result.code == 0, (name, result)


@pytest.mark.parametrize("name", ["eval", "checkpoints", "pictures", "debug", "tensorboard", "cache"])
def test_resume_linked_subfolder_is_not_written(name, cli, broken_off, tmp_path):
    """Whatever a run writes into its subfolders; a linked folder of checkpoints is not read either."""
    elsewhere = tmp_path / "elsewhere"
    if (broken_off / name).is_dir():
        shutil.move(broken_off / name, elsewhere)
    else:
        elsewhere.mkdir()
    (broken_off / name).symlink_to(elsewhere)
    before = contents(elsewhere)
    results = [cli("eval", "knn", "run=a", "evaluator.baselines=false", *FAST)]
    if name == "checkpoints":
        results += [cli("resume", "a", "-q"), cli("select", "a", *FAST)]
        assert [r.code for r in results] == [0, 4, 4]
    elif name == "eval":
        assert "knn.top1" in results[0].out  # the number is printed, whatever can be saved
        assert results[0].code == 5
    else:
        with pytest.raises(StorageError, match="symbolic link"):
            Run(broken_off).make_folder(name)
    assert contents(elsewhere) == before
    assert all("symbolic link" in r.err for r in results if r.code)


def test_pretrain_linked_hydra_folder(cli, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / ".hydra").symlink_to(tmp_path / "precious")
    result = cli("pretrain", *SMOKE, "train.steps=1", "hydra.run.dir=runs/mine")
    assert result.code == 5
    assert list((tmp_path / "precious").iterdir()) == []


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_pretrain_linked_hydra_files(link, cli, tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "runs" / "mine" / ".hydra").mkdir(parents=True)
    for name in ("config", "hydra", "overrides"):
        link(tmp_path / "runs" / "mine" / ".hydra" / f"{name}.yaml", tmp_path / "precious")
    assert cli("pretrain", *SMOKE, "train.steps=1", "hydra.run.dir=runs/mine").code == 0
    assert (tmp_path / "precious").read_text() == "mine"
    assert "train.steps=1" in (tmp_path / "runs" / "mine" / ".hydra" / "overrides.yaml").read_text()


def test_sweep_linked_files(cli, tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    sweep = tmp_path / "runs" / "theirs"
    sweep.mkdir(parents=True)
    (sweep / "multirun.yaml").symlink_to(tmp_path / "precious")
    (sweep / "0_simsiam_convnet_digits").symlink_to(tmp_path / "elsewhere")
    result = cli("pretrain", "-m", *SMOKE, "train.steps=1", "seed=0", "hydra.sweep.dir=runs/theirs", "resume=auto")
    assert (result.code, (tmp_path / "precious").read_text()) == (2, "mine")
    assert "symbolic link" in result.err
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_sweep_with_runs_outside_root(cli, run, tmp_path):
    mine = tmp_path / "mine"
    run.rename(mine)
    (mine / "encoder.safetensors").unlink()
    sweep = tmp_path / "runs" / "theirs"
    (sweep / "jobs").mkdir(parents=True)
    for number, named in ((0, str(mine)), (1, "")):
        job = {"job": number, "status": "done", "overrides": [f"seed={number}"], "run": named}
        (sweep / "jobs" / f"{number}.json").write_text(json.dumps(job))
    (sweep / "1_linked").symlink_to(mine)
    assert cli("runs", "report", str(sweep)).code == 0
    assert not (mine / "report.html").exists()


# -------------------------------------------------------------------------------------------------- lies with right sums


def lie(run: Path, edit: str) -> None:
    """Changes the newest checkpoint's manifest `m` or state `s`, and makes the sums right."""
    folder = run / fuzz.CHECKPOINT
    m, s = (json.loads((folder / f"{name}.json").read_text()) for name in ("manifest", "state"))
    m.pop("sha256")
    exec(edit, {"m": m, "s": s})
    (folder / "state.json").write_text(json.dumps(s))
    with contextlib.suppress(KeyError, TypeError):
        content = (folder / "state.json").read_bytes()
        m["files"]["state.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    own = hashlib.sha256(json.dumps(m, sort_keys=True).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({**m, "sha256": own}))


LIES = [
    *('del m["files"]', 'm["files"] = "x"', 'm["files"] = {}', 'm["files"]["model.safetensors"] = 1'),
    *('del m["files"]["model.safetensors"]', 'del m["files"]["model.safetensors"]["bytes"]', 'm["format"] = "1"'),
    *(
        'm["files"]["../../../x"] = m["files"]["model.safetensors"]',
        'del m["step"]',
        'm["step"] = 10**40',
        'm["step"] = -1',
    ),
    *('del s["plan"]', 's["plan"] = [1]', 's["plan"] = {"total": 4}', 's["plan"]["total"] = 0', 's["step"] = 3'),
    *('s["plan"]["anchor_progress"] = 7.0', 'del s["fingerprint"]', 's["fingerprint"] = 1', 's["meters"] = "x"'),
    *('s["meters"] = [{"sums": {"loss": "x"}, "count": 1}]', 's["seconds"] = None', 's["metrics_bytes"] = -5'),
    *('s["optimizer_numbers"] = {"x": "y"}', 's["config"] = []', 's["skipped"] = 1.5'),
]


@pytest.mark.parametrize("edit", LIES)
def test_checkpoint_invalid_state_is_damaged(edit, made, tmp_path):
    shutil.copytree(made / "runs" / "a", tmp_path / "a")
    lie(tmp_path / "a", edit)
    bad = []
    found = checkpoint.load_newest(
        tmp_path / "a" / "checkpoints", lambda path, why: bad.append(path.name), state.find_damage
    )
    assert found is not None
    assert found[1]["step"] == 2
    assert bad == [Path(fuzz.CHECKPOINT).name]


def test_resume_falls_back_to_previous_checkpoint(cli, broken_off):
    lie(broken_off, 'del s["plan"]')
    result = cli("resume", "a")
    assert result.code == 0, result.err
    assert "step-0000000004 is not valid (state.json: plan" in result.err
    assert "resuming at step 2" in result.err


def test_checkpoint_invalid_tensors_fall_back(made, tmp_path):
    shutil.copytree(made / "runs" / "a", tmp_path / "a")
    (tmp_path / "a" / fuzz.CHECKPOINT / "model.safetensors").write_bytes(b"nonsense" * 100)
    fuzz.sign(tmp_path / "a")
    found = checkpoint.load_newest(tmp_path / "a" / "checkpoints")
    assert found is not None
    assert found[1]["step"] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"input_shape": [8]},
        {"input_shape": [0, 8, 8]},
        {"input_shape": [1, 8, 10**9]},
        {"values": {"kind": "continuous", "mean": [0.5, 0.5], "std": [0.5]}},
        {"values": {"kind": "continuous", "mean": [0.5], "std": [0.0]}},
        {"values": {"kind": "continuous", "mean": [0.5], "std": [float("nan")]}},
        {"values": {"kind": "columns", "categories": [0]}},
        {"values": {"kind": "others"}},
        {"values": None},
        {"format": 1, "values": None, "mean": [0.5, 0.5], "std": [0.5]},
        {"format": 1, "values": None, "mean": [0.5], "std": [0.0]},
        {"format": 1, "values": None, "mean": [0.5]},
        {"backbone": {}},
        {"dataset": 3},
        {"sha256": None},
    ],
    ids=str,
)
def test_load_encoder_invalid_json(change, made, tmp_path):
    from sslcli.runs.encoder import load_encoder

    folder = tmp_path / "exported"
    folder.mkdir()
    for name in ("encoder.json", "encoder.safetensors"):
        shutil.copy(made / "runs" / "a" / name, folder)
    load_encoder(folder)
    info = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({**info, **change}))
    with pytest.raises(TrainingError, match="does not define how to build the encoder"):
        load_encoder(folder)


# ------------------------------------------------------------------------------------ configurations that lack something


def test_configuration_missing_key_has_default(made, tmp_path):
    shutil.copytree(made / "runs" / "a", tmp_path / "a")
    whole = records.configuration(tmp_path / "a")
    defaults = schema.with_defaults({})
    for group, key in [("", "seed"), ("", "init"), *((g, k) for g in ("train", "device") for k in defaults[g])]:
        cfg = json.loads(json.dumps(whole))
        del (cfg[group] if group else cfg)[key]
        (tmp_path / "a" / "config.yaml").write_text(yaml.safe_dump(cfg))
        found = records.configuration(tmp_path / "a")
        assert found.keys() == whole.keys()
        assert (found[group] if group else found)[key] == (defaults[group] if group else defaults)[key], key


def test_resume_config_missing_keys(cli, broken_off):
    """The keys whose values are the defaults: it is the same run."""
    cfg = yaml.safe_load((broken_off / "config.yaml").read_text())
    assert cfg.pop("seed") == 0
    for key in ("strategy", "accumulate", "clip", "budget", "keep", "classes"):
        cfg["train"].pop(key, None)
    for key in ("workers", "channels_last", "compile"):
        cfg["device"].pop(key, None)
    (broken_off / "config.yaml").write_text(yaml.safe_dump(cfg))
    result = cli("resume", "a", "-q")
    assert result.code == 0, result.err
    assert cli("eval", "knn", "run=a", "evaluator.baselines=false", *FAST).code == 0


@pytest.mark.parametrize("group", ["dataset", "augmentation", "logger", "backbone"])
def test_resume_config_missing_group(group, cli, broken_off):
    cfg = yaml.safe_load((broken_off / "config.yaml").read_text())
    del cfg[group]
    (broken_off / "config.yaml").write_text(yaml.safe_dump(cfg))
    for words in (["resume", "a"], ["eval", "knn", "run=a", *FAST], ["select", "a", *FAST]):
        result = cli(*words)
        assert result.code == 2, (words, result)
        assert f"missing group: {group}" in result.err


def test_configuration_recursive_yaml(cli, broken_off):
    text = (broken_off / "config.yaml").read_text()
    for more in ("loop: &a [*a]\n", "loop: &a {b: *a}\n"):
        (broken_off / "config.yaml").write_text(text + more)
        for words in (["resume", "a"], ["eval", "knn", "run=a", *FAST], ["runs", "show", "a", "--json"]):
            result = cli(*words)
            assert result.code == 2, (words, result)


# ---------------------------------------------------------------------------------------- a run that changes meanwhile


def test_select_checkpoint_that_disappears(cli, run, monkeypatch):
    load = checkpoint.load

    def late(path: Path) -> Any:
        if path.name.endswith("2"):
            shutil.rmtree(path)
        return load(path)

    monkeypatch.setattr(checkpoint, "load", late)
    result = cli("select", "a", *FAST[1:], "evaluator.groups=20", "evaluator.views=2")
    assert result.code == 2, result
    assert "step-0000000002 is left out" in result.err
    assert "two or more are needed" in result.err
    result = cli("export", "a", "checkpoint=4", "out=encoder")
    assert result.code == 0, result


def test_export_checkpoint_that_disappears(cli, run, monkeypatch):
    verify = checkpoint.verify

    def late(path: Path) -> Any:
        found = verify(path)
        shutil.rmtree(path)
        return found

    monkeypatch.setattr(checkpoint, "verify", late)
    result = cli("export", "a", "checkpoint=4", "out=encoder")
    assert result.code == 4, result
    assert "train.keep=10" in result.err


@pytest.mark.parametrize("harm", ["cut", "no json", "lying", "link", "fifo"])
def test_resume_rewrites_damaged_encoder(harm, cli, run, tmp_path):
    encoder = run / "encoder.safetensors"
    before = encoder.read_bytes()
    if harm == "cut":
        os.truncate(encoder, 1000)
    elif harm == "lying":
        encoder.write_bytes(b"nonsense" * 99)
        fuzz.sign(run)
    else:
        target = run / "encoder.json" if harm == "no json" else encoder
        target.unlink()
        if harm == "link":
            (tmp_path / "outside").write_bytes(before)
            target.symlink_to(tmp_path / "outside")
        elif harm == "fifo":
            os.mkfifo(target)
    refused = cli("eval", "knn", "run=a", *FAST)
    assert refused.code == 4, refused
    assert "sslcli resume" in refused.err
    assert cli("resume", "a").code == 0
    assert encoder.read_bytes() == before
    assert not encoder.is_symlink()
    assert cli("eval", "knn", "run=a", "evaluator.baselines=false", *FAST).code == 0
    assert "nothing to resume" in cli("resume", "a").err


def test_resume_damaged_encoder_without_checkpoints(cli, run):
    """Nothing to write it from: said, and not trained from the start in silence."""
    os.truncate(run / "encoder.safetensors", 1000)
    shutil.rmtree(run / "checkpoints")
    result = cli("resume", "a")
    assert result.code == 4, result
    assert "has no checkpoint" in result.err


# --------------------------------------------------------------------------------------------------------- one way in

OPENERS = {
    *("open", "os.open", "io.open", "os.fdopen", "os.truncate", "json.load", "torch.load", "np.load", "np.memmap"),
    *(
        "load_file",
        "save_file",
        "safe_open",
        "Image.open",
        "OmegaConf.load",
        "np.fromfile",
        "shutil.copy",
        "shutil.copyfile",
    ),
}
METHODS = {"read_text", "read_bytes", "write_text", "write_bytes", "touch", "savefig", "mkdir"}
ELSEWHERE = {  # modules that open files of their own, and which
    "training/benchmark.py": "/proc",
    "runs/checkpoint.py": "makes the new folder that a checkpoint is written to",
    "evals/base/request.py": "shipped YAML",
    "runs/encoder.py": "creates the new folder that is renamed",
    "cli/hydra_task.py": "makes the folder of a sweep",
    "config/compose.py": "YAML of --config-dir, looked at before",
    "config/registry.py": "YAML that is shipped or of --config-dir",
    "config/safe_yaml.py": "YAML of --config-dir",
    "runtime/resources.py": "/proc and /sys",
    "runs/files.py": "this is the way in",
    "evals/inputs/label_rows.py": "labels=FILE of the command line",
    "inference/zero_shot.py": "classes=FILE of the command line",
    "evals/inputs/label_file.py": "labels=FILE of the command line",
    "runs/environment.py": "the .git of the working folder",
    "cli/help.py": "shipped YAML",
    "cli/key_docs.py": "shipped YAML",
    "report/model_figures.py": "a temporary folder of its own",
    "report/html/page.py": "shipped files",
    "report/html/images.py": "memory",
    "runs/results.py": "labels=FILE of the command line",
    "runtime/streams.py": "/dev/null",
    "runtime/folders.py": "a folder of its own for temporary files",
    "backbones/weights/reading.py": "init=FILE of the command line",
    "inference/embeddings/reader.py": "embeddings that the command line names",
    "inference/embeddings/staging.py": "a folder of its own beside out=FILE",
    "inference/row_file.py": "a temporary file beside out=FILE",
    "pick/page.py": "shipped files",
    "formats/hub.py": "the revision in the cache of the Hugging Face Hub, a hexadecimal number",
    "formats/huggingface/files.py": "init=hf:FOLDER of the command line; regular files of bounded size",
}


def test_only_runs_files_opens_run_folders():
    """Any other call that opens a file takes a path from disk.checked or disk.replacing."""
    own = {"data/sources/pack.py", "data/sources/pack_writer.py", "data/sources/pack_journal.py"}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name in ELSEWHERE or (name.startswith(("data/", "views/")) and name not in own):
            continue  # data sets have rules of their own: docs/explanation/security.md
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called in OPENERS or (isinstance(node.func, ast.Attribute) and node.func.attr in METHODS):
                given = " ".join(ast.unparse(a) for a in node.args)
                by_disk = "checked(" in given or "temporary" in given or "open_file(" in given or "io.BytesIO(" in given
                by_disk = by_disk or (called == "np.memmap" and given.startswith("file"))
                assert by_disk, f"{name}:{node.lineno}: {ast.unparse(node)[:100]}"
    assert all((PACKAGE / name).is_file() for name in ELSEWHERE)


_opened: list[tuple[str, int]] | None = None


def _listen(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(args[0], (str, bytes)):
        _opened.append((os.path.abspath(os.fsdecode(args[0])), int(args[2])))


@contextlib.contextmanager
def listening() -> Iterator[list[tuple[str, int]]]:
    """The files that Python opens meanwhile, and with which flags."""
    global _opened
    if not getattr(_listen, "added", False):
        sys.addaudithook(_listen)  # there is no way to remove one: it is silent outside of this
        _listen.added = True  # type: ignore[attr-defined]
    _opened = found = []
    try:
        yield found
    finally:
        _opened = None


def test_commands_do_not_follow_links_in_runs(cli, broken_off):
    """Whatever Python itself opens below a run folder is opened with O_NOFOLLOW, or is a file that was just made."""
    with listening() as found:
        for words in (
            ["resume", "a", "-q"],
            ["eval", "probe", "run=a", "evaluator.baselines=false", "evaluator.strengths=[0.1]", *FAST],
            ["runs"],
            ["runs", "show", "a"],
            ["runs", "report", "a"],
            ["select", "a", *FAST, "evaluator.groups=20", "evaluator.views=2"],
            ["export", "a", "checkpoint=4", "out=encoder"],
        ):
            assert cli(*words).code == 0, words
    place = os.path.abspath(broken_off)
    ours = [(path, flags) for path, flags in found if path.startswith(place + os.sep)]
    names = {os.path.basename(path) for path, _ in ours}
    assert {"status.json", "config.yaml", "metrics.jsonl", "manifest.json", "encoder.safetensors", ".lock"} <= names
    followed = {p for p, flags in ours if not flags & os.O_NOFOLLOW and not os.path.isdir(p) and ".tmp" not in p}
    assert followed == set()


def test_runs_modules_do_not_import_torch():
    """`sslcli runs` reads records without it."""
    modules = ", ".join(f"sslcli.runs.{name}" for name in ("files", "records", "results", "run"))
    code = f"import sys; import {modules}; assert 'torch' not in sys.modules"
    import subprocess

    subprocess.run([sys.executable, "-c", code], check=True)


def test_configuration_request_errors(tmp_path):
    with pytest.raises(RequestError, match="cannot be read"):
        records.configuration(tmp_path)
    (tmp_path / "config.yaml").write_text("- 1\n")
    with pytest.raises(RequestError, match="holds no configuration"):
        records.configuration(tmp_path)
