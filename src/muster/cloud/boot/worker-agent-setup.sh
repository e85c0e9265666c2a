#!/bin/sh
# Install what is missing (an image of one's own may have it all) and start the agent.
set -eu
package=$1
home=/opt/worker-agent
if [ ! -x "$home/bin/muster" ]; then
  python3 -m venv "$home"
  "$home/bin/pip" install --no-cache-dir --disable-pip-version-check --retries 10 "$package"
fi
systemctl daemon-reload
systemctl enable worker-agent.service
systemctl restart worker-agent.service
