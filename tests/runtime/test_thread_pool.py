"""The parallel map over daemon threads at the exit of the interpreter."""

from __future__ import annotations

import subprocess
import sys
import time

BUSY = """
import os, sys, torch
from torch.nn import functional as F
from sslcli.runtime.thread_pool import ordered_map

torch.set_num_threads(1)
for _ in range(2):  # three times, with one import
    if pid := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code == 75, code
    else:
        break

def resize(i):
    x = torch.rand(1, 3, 64, 64)
    for _ in range(20):
        x = F.interpolate(x, (48 + i % 2, 48), mode="bilinear", antialias=True)
    return x

for i, _ in enumerate(ordered_map(resize, range(10_000), 4)):
    if i == 40:
        sys.exit(75)
"""
BLOCKED = """
import sys, threading
from sslcli.runtime.thread_pool import ordered_map

for i, _ in enumerate(ordered_map(lambda i: i if i < 3 else threading.Event().wait(), range(10), 2, ahead=4)):
    if i == 1:
        sys.exit(7)
"""


def test_exit_while_threads_compute():
    assert subprocess.run([sys.executable, "-c", BUSY], check=False).returncode == 75


def test_exit_while_threads_are_blocked():
    began = time.monotonic()
    assert subprocess.run([sys.executable, "-c", BLOCKED], check=False, timeout=60).returncode == 7
    assert time.monotonic() - began < 30
