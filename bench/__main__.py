"""`make bench`: the gateway's table, then the queue's, the links' and the tasks'. Options go to all (`--quick`)."""

import subprocess
import sys

codes = [
    subprocess.call([sys.executable, "-m", f"bench.{name}", *sys.argv[1:]])
    for name in ("gateway", "queue", "links", "tasks")
]
sys.exit(max(codes))
