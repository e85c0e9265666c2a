# Install Debian packages where that is allowed without asking; otherwise say the exact command and fail.
set -eu

if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    as_root=no
fi

if ! command -v apt-get >/dev/null 2>&1; then
    echo "Missing on this machine: $*. It has no apt-get." >&2
    echo "Next: install the same programs with your system's package manager, then run the same command again" >&2
    exit 1
fi
if [ "$as_root" = no ]; then
    echo "Missing on this machine: $*. Installing needs root, and sudo asks for a password." >&2
    echo "Next: sudo apt-get install -y --no-install-recommends $*" >&2
    exit 1
fi

echo "Installing with apt-get: $* ..."
log=$(mktemp)
# RUNLEVEL=1 keeps a package's own service (redis, rabbitmq) from starting: tests start their servers themselves.
if ! { $as_root apt-get update -q && $as_root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends "$@"; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    rm -f "$log"
    echo "apt-get could not install: $*" >&2
    echo "Next: see why with: ${as_root:+sudo }apt-get install -y --no-install-recommends $*" >&2
    exit 1
fi
rm -f "$log"
