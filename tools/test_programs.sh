# The tests need two programs that are no Python packages: a browser for the monitor, and Redis, so that every store
# test runs on a second server than the one that Muster ships. Nothing is skipped without them: they are installed.
set -eu

missing=
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
# shellcheck disable=SC2086 # several words
[ -z "$missing" ] || exec sh tools/apt_install.sh $missing
