"""sslcli export RUN [checkpoint=STEP|best|last] out=FOLDER: export the backbone weights of a run or of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sslcli import console
from sslcli.cli.arguments import Request, read_options, run_argument
from sslcli.cli.command_table import COMMANDS
from sslcli.errors import RequestError, TrainingError, command, listing, target
from sslcli.runs import Record

if TYPE_CHECKING:
    from torch import nn

    from sslcli.runs.run import Run


def main(request: Request) -> int:
    name = run_argument(request, COMMANDS["export"])
    options = read_options(request.overrides, COMMANDS["export"].options, "export")
    out = output_folder(options.get("out", ""))

    from sslcli.data import preprocess
    from sslcli.runs.encoder import FILES, backbone_overrides, write_new_folder
    from sslcli.runs.find import find
    from sslcli.runs.run import Run

    run = Run.open(find(name))
    backbone, info = load_backbone(run, options.get("checkpoint", "last"))
    preprocessor = preprocess.of_encoder(run.path, info)
    write_new_folder(out, backbone.state_dict(), {**info, "run": run.path.resolve().name}, preprocessor.files())
    parameters = console.human_count(sum(p.numel() for p in backbone.parameters()))
    about = f"step {info['step']:,}; {type(backbone).__name__}, dim {info['dim']}, {parameters} parameters"
    console.say(f"saved {out}/{FILES[0]} ({about})")
    start = f"./{out}" if str(out) == "null" else out  # `init=null` starts from no weights
    console.say(f"next  {command('pretrain', f'init={start}', *backbone_overrides(info['backbone']))}")
    console.say(f"or    safetensors.torch.load_file({str(out / FILES[0])!r})")
    if console.flag(console.JSON):
        console.out_json({"encoder": str(out), "run": str(run.path), "step": info["step"]})
    else:
        console.out(out)
    return 0


def output_folder(text: str) -> Path:
    """The folder `out=`: new, empty, or with an encoder in it. RequestError for any other."""
    from sslcli.runs.encoder import FILES, PREPROCESSOR

    out = target(text, "out=FOLDER, a new one")
    if out.exists() and not out.is_dir():
        raise RequestError(f"out={text} is a file", "out=FOLDER, a new one")
    if out.is_dir() and (other := sorted({p.name for p in out.iterdir()} - {*FILES, PREPROCESSOR})):
        raise RequestError(f"out={text} is a folder with other files: {listing(other, 3)}", "out=FOLDER, a new one")
    return out


def load_backbone(run: Run, which: str) -> tuple[nn.Module, Record]:
    """The verified backbone, on the CPU, and its encoder.json. `which`: a step, `best`, or `last` (the run's encoder)."""
    from sslcli.builders import load_checkpoint_encoder
    from sslcli.runs import checkpoint
    from sslcli.runs.encoder import load_encoder
    from sslcli.runs.run import require_done

    if which == "last":
        require_done(run)
        return load_encoder(run.path)
    steps = {int(p.name.partition("-")[2]): p for p in reversed(checkpoint.existing(run.path / "checkpoints"))}
    if not steps:
        raise RequestError(f"{run.path} has no checkpoint", "leave out checkpoint= for its last weights")
    if which == "best":
        from sslcli.cli.commands.select import best_step

        which = str(best_step(run))
    number = which.removeprefix("step-")
    path = steps.get(int(number)) if number.isdecimal() else None
    if path is None:
        choices = listing([*map(str, steps), "best", "last"], 20)
        raise RequestError(f"checkpoint={which}: {run.path} has no such checkpoint", f"one of {choices}")
    if (reason := checkpoint.verify(path)) is not None:
        raise TrainingError(f"{path} is corrupt: {reason}", f"available: {listing(map(str, steps), 20)}")
    return load_checkpoint_encoder(run, path)
