"""python -m sslcli"""

import os
import sys

if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()] and not os.path.isfile("sslcli/__main__.py"):
    del sys.path[0]  # `python -m` puts the working folder first: a file torch.py beside the data would be run

from sslcli.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
