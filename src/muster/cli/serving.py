"""What `muster server` becomes: a process without the command line, of which it would keep 10 MB for good.

Its settings come from the environment, into which the command puts what it was given.
"""

import sys

from muster.app.serve import run_server
from muster.cli.errors import tell_errors
from muster.settings import load_settings


def main() -> None:
    tell_errors("muster", lambda: sys.exit(run_server(load_settings())))


if __name__ == "__main__":
    main()
