"""`sslcli` for scripts in tests, without the time of imports: one process imports everything and forks for each command.

`python zygote.py SOCKET` is that process; `client(...)` is the text of a program that replaces `sslcli`."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

CLIENT = """\
#!{python} -ISu
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
request = json.dumps({{"argv": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}}).encode()
socket.send_fds(server, [len(request).to_bytes(4, "little")], [0, 1, 2])
server.sendall(request)
answers = server.makefile()
pid = int(answers.readline())
for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"):
    signal.signal(getattr(signal, name), lambda number, frame: os.kill(pid, number))
sys.exit(int(answers.readline()))
"""


def client(path: str) -> str:
    return CLIENT.format(python=sys.executable, path=path)


def serve(path: str) -> None:
    import torch._dynamo  # noqa: F401

    import sslcli.cli.commands.eval
    import sslcli.evals.base.evaluation
    import sslcli.evals.probe
    import sslcli.training.run_training  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    while True:
        connection, _ = server.accept()
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            attend(connection)
        connection.close()


def attend(connection: socket.socket) -> None:
    """One command: its process, and the message of how that ended."""
    head, files, _, _ = socket.recv_fds(connection, 4, 3)
    request = json.loads(connection.recv(int.from_bytes(head, "little"), socket.MSG_WAITALL))
    pid = os.fork()
    if pid == 0:
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.closerange(3, 100)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        from sslcli.cli import main

        code = main(request["argv"])
        sys.stdout.flush()
        os._exit(code)
    for file in files:
        os.close(file)
    connection.sendall(f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
