"""`make bench`: the gateway's table, then the queue's. Options go to both (`--quick`)."""

import subprocess
import sys

codes = [subprocess.call([sys.executable, "-m", f"bench.{name}", *sys.argv[1:]]) for name in ("gateway", "queue")]
sys.exit(max(codes))
