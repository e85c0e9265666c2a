#!/bin/sh
# Run once, at first boot: install what is missing (an image of one's own may have it all) and start the agent.
set -eu
package=$1
home=/opt/worker-agent
if [ ! -x "$home/bin/muster" ]; then
  apt-get update -q
  apt-get install -y -q --no-install-recommends curl libgomp1 python3-venv
  python3 -m venv "$home"
  "$home/bin/pip" install --no-cache-dir --disable-pip-version-check --retries 10 "$package"
fi
systemd-sysusers
systemctl daemon-reload
systemctl enable worker-agent.service
systemctl restart worker-agent.service
