"""`make bench`: the gateway's table, then the queue's and the links'. Options go to all (`--quick`)."""

import subprocess
import sys

codes = [
    subprocess.call([sys.executable, "-m", f"bench.{name}", *sys.argv[1:]]) for name in ("gateway", "queue", "links")
]
sys.exit(max(codes))
