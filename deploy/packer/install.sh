#!/bin/sh
# What is in the image: NVIDIA's driver, Muster in /opt/worker-agent and the agent's service, which starts once the machine has
# its settings. Run by Packer as root, with its files in /tmp/muster.
set -eu

export DEBIAN_FRONTEND=noninteractive
cloud-init status --wait >/dev/null || true # it works on apt's sources at first boot
sed -i 's/^Components: main$/Components: main contrib non-free non-free-firmware/' /etc/apt/sources.list.d/debian.sources
apt-get update -q
apt-get install -y -q --no-install-recommends "linux-headers-$(uname -r)" nvidia-driver nvidia-smi python3-venv libgomp1

python3 -m venv /opt/worker-agent
wheel=$(ls /tmp/muster/muster-*.whl)
/opt/worker-agent/bin/pip install --no-cache-dir -c /tmp/muster/constraints.txt "${wheel}[amqp,grpc,llamacpp]"

install -D -m 644 /tmp/muster/sysusers.conf /etc/sysusers.d/muster.conf
systemd-sysusers
install -D -m 644 /tmp/muster/worker-agent.service /etc/systemd/system/worker-agent.service
# Without settings it must not start: a machine that cannot reach its control plane would only fail again and again.
mkdir -p /etc/systemd/system/worker-agent.service.d
printf '[Unit]\nConditionPathExists=/etc/worker-agent/env\n' >/etc/systemd/system/worker-agent.service.d/settings.conf
systemctl enable worker-agent.service

rm -rf /tmp/muster /var/lib/apt/lists/*
cloud-init clean --logs # the next machine is another one
