"""sslcli resume RUN: the same folder, the same configuration, the next step."""

from __future__ import annotations

from sslcli import console
from sslcli.cli import Request, take_config_dir
from sslcli.errors import RequestError


def main(request: Request) -> int:
    if request.overrides:
        name = request.words[0] if request.words else "RUN"
        raise RequestError(
            f"resume takes no `{request.overrides[0]}`: a run goes on as it was begun",
            f"to start a new run from its weights: sslcli pretrain init={name} {request.overrides[0]}",
        )
    if len(request.words) != 1:
        raise RequestError("resume which run?", "sslcli resume latest, or a run's folder or the start of its name")
    for folder in request.config_dirs:
        take_config_dir(folder)

    from sslcli.commands.pretrain import end_screen, pictures
    from sslcli.job import prepare, screen
    from sslcli.run import Run, find
    from sslcli.state import restore
    from sslcli.train import run_job

    run = Run.open(find(request.words[0]))
    run.lock()
    try:
        if run.status.get("status") == "done":
            console.say(f"{run.path} is done (step {run.status['step']:,}); nothing to resume")
            console.say(f"next  sslcli eval probe run={run.path.name}")
            console.out(run.path)
            return 0
        job = prepare(run.config)
        state = restore(job, run, console.say)
        console.rows(screen(job, run.path))
        import os

        run.event("resumed", step=state.step, pid=os.getpid())
        run.set_status("running", pid=os.getpid())
        state = run_job(job, run, state)
        pictures(job, run)
        end_screen(run, state.seconds)
    finally:
        run.close()
    console.out(run.path)
    return 0
