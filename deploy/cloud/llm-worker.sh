#!/bin/sh
# A GPU worker on EC2: rent it, look at it, give it back. A thin wrapper of `muster cloud`, which does more.
#
#   LLM_INSTANCE_TYPE=g6.xlarge ./llm-worker.sh start
#
# Settings come from the environment (MUSTER_CLOUD_*, AWS_*) or muster.toml: docs/guides/ec2.md.
set -eu

usage() {
  echo "usage: $0 start|stop|status" >&2
  exit 2
}

[ $# -eq 1 ] || usage
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
muster=${MUSTER:-muster}
if ! command -v "$muster" > /dev/null 2>&1; then
  muster=$here/../../.venv/bin/muster
fi
export MUSTER_CLOUD_PROVIDER="${MUSTER_CLOUD_PROVIDER:-ec2}"

case $1 in
  start) exec "$muster" cloud up --name llm-worker ;;
  # The machine and its disk are given back; `muster cloud stop` keeps the disk for the next start.
  stop) exec "$muster" cloud down --yes llm-worker-0 ;;
  status) exec "$muster" cloud status ;;
  *) usage ;;
esac
