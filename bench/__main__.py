"""`make bench`: all tables, or those that are named (`python -m bench links`). Options go to each (`--quick`)."""

import subprocess
import sys

ALL = ("gateway", "queue", "links", "tasks", "telemetry", "monitor")

wanted = [name for name in ALL if name in sys.argv[1:]] or ALL
options = [argument for argument in sys.argv[1:] if argument not in ALL]
codes = [subprocess.call([sys.executable, "-m", f"bench.{name}", *options]) for name in wanted]
sys.exit(max(codes))
