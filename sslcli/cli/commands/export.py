"""sslcli export RUN [checkpoint=STEP|best|last] out=FOLDER: the backbone alone, of a run or of a checkpoint of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from sslcli import console
from sslcli.cli.arguments import Request
from sslcli.errors import RequestError, StorageError, TrainingError, command, listing, nearest, target

FILES = ("encoder.safetensors", "encoder.json")
KEYS = ("checkpoint", "out")


def main(request: Request) -> int:
    if len(request.positional) != 1:
        raise RequestError("export which run?", "sslcli export latest out=encoder")
    given = dict(o.partition("=")[::2] for o in request.overrides)
    for key in given:
        if key not in KEYS:
            close = nearest(key, KEYS)
            raise RequestError(
                f"export takes no `{key}`", f"did you mean {close}=?" if close else "sslcli export --help"
            )
    out = new_folder(given.get("out", ""))

    from sslcli.runs.encoder import backbone_overrides
    from sslcli.runs.find import find
    from sslcli.runs.run import Run

    run = Run.open(find(request.positional[0]))
    backbone, info = chosen(run, given.get("checkpoint", "last"))
    write(out, backbone, {**info, "run": run.path.resolve().name})
    what = f"{type(backbone).__name__}, dim {info['dim']}, {console.human_count(sum(p.numel() for p in backbone.parameters()))}"
    console.say(f"saved {out}/{FILES[0]} (step {info['step']:,}; {what} parameters)")
    start = f"./{out}" if str(out) == "null" else out  # `init=null` starts from no weights
    console.say(f"next  {command('pretrain', f'init={start}', *backbone_overrides(info['backbone']))}")
    console.say(f"or    safetensors.torch.load_file({str(out / FILES[0])!r})")
    if console.flag(console.JSON):
        console.out_json({"encoder": str(out), "run": str(run.path), "step": info["step"]})
    else:
        console.out(out)
    return 0


def new_folder(text: str) -> Path:
    """The folder to write: new, empty, or with an encoder in it (`write` says whether that is the same). RequestError."""
    out = target(text, "out=FOLDER, a new one")
    if out.exists() and not out.is_dir():
        raise RequestError(f"out={text} is a file", "out=FOLDER, a new one")
    if out.is_dir() and (other := sorted({p.name for p in out.iterdir()} - set(FILES))):
        raise RequestError(
            f"out={text} is a folder with something else in it: {listing(other, 3)}", "out=FOLDER, a new one"
        )
    return out


def chosen(run: Any, which: str) -> tuple[Any, dict[str, Any]]:
    """The backbone, on the processor, and what encoder.json says of it; verified. `last` is the run's own encoder."""
    from sslcli.builders import encoder_in
    from sslcli.runs import checkpoint
    from sslcli.runs.encoder import load_encoder
    from sslcli.runs.run import require_done

    if which == "last":
        require_done(run)
        return load_encoder(run.path)
    steps = {int(p.name.partition("-")[2]): p for p in reversed(checkpoint.existing(run.path / "checkpoints"))}
    if not steps:
        raise RequestError(f"{run.path} keeps no checkpoint", "leave out checkpoint= for its last weights")
    if which == "best":
        from sslcli.cli.commands.select import best_step

        which = str(best_step(run))
    number = which.removeprefix("step-")
    saved = steps.get(int(number)) if number.isdecimal() else None
    if saved is None:
        raise RequestError(
            f"checkpoint={which}: {run.path} has none of that name",
            f"one of {listing([*map(str, steps), 'best', 'last'], 20)}",
        )
    if (reason := checkpoint.verify(saved)) is not None:
        raise TrainingError(f"{saved} does not verify: {reason}", f"there are {listing(map(str, steps), 20)}")
    return encoder_in(run, saved)


def write(out: Path, backbone: Any, info: dict[str, Any]) -> None:
    """The folder, whole or absent; one that holds the same already stays. RequestError where it holds another encoder."""
    from sslcli.runs.encoder import write_encoder
    from sslcli.runs.files import digest, size_of, sync_folder

    place = out.resolve()
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        write_encoder(temporary, backbone.state_dict(), info)
        if out.is_dir() and any(out.iterdir()):
            if any(size_of(out, f) != size_of(temporary, f) or digest(out, f) != digest(temporary, f) for f in FILES):
                raise RequestError(f"out={out} holds another encoder", "out=FOLDER, a new one")
            return
        sync_folder(temporary)
        os.rename(temporary, place)
        sync_folder(place.parent)
    except OSError as e:
        raise StorageError(f"cannot write {out}: {e.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
