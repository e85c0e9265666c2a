#!/bin/sh
# Ask the machine's metadata (version 2, which wants a token) who it is. At every start: addresses change with a stop.
set -eu
metadata=http://169.254.169.254/latest
token=$(curl --fail --silent --show-error --max-time 5 --retry 5 --retry-connrefused \
  --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$metadata/api/token")
ask() {
  curl --fail --silent --max-time 5 --header "X-aws-ec2-metadata-token: $token" "$metadata/meta-data/$1" || true
}
umask 022
mkdir -p /run/worker-agent
{
  echo "INSTANCE_ID=$(ask instance-id)"
  echo "MUSTER_ADDRESS=$(ask local-ipv4)"
  echo "MUSTER_PUBLIC_IP=$(ask public-ipv4)"
  echo "MUSTER_REGION=$(ask placement/region)"
  echo "MUSTER_AZ=$(ask placement/availability-zone)"
} > /run/worker-agent/identity.new
mv /run/worker-agent/identity.new /run/worker-agent/identity
