#!/bin/sh
# Ask the machine's metadata (version 2, which wants a token) who it is, and write it where systemd reads it.
set -eu
metadata=http://169.254.169.254/latest
token=$(curl --fail --silent --show-error --max-time 5 --retry 5 --retry-connrefused \
  --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$metadata/api/token")
about() {
  value=$(curl --fail --silent --max-time 5 --header "X-aws-ec2-metadata-token: $token" "$metadata/meta-data/$2") || return 0
  echo "$1=$value"
}
{
  about INSTANCE_ID instance-id
  about MUSTER_ADDRESS local-ipv4
  about MUSTER_PUBLIC_IP public-ipv4
  about MUSTER_REGION placement/region
  about MUSTER_AZ placement/availability-zone
} > /run/worker-agent-identity.new
mv /run/worker-agent-identity.new /run/worker-agent-identity
