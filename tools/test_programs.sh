# The tests need programs that are no Python packages: a browser for the monitor; Redis, so that every store test runs on
# a second server than the one that Muster ships; RabbitMQ, for the links over a broker; ip and iptables, for networks
# that are cut; a C compiler, for a made driver of GPUs; Prometheus' promtool, for metrics and alerts. Nothing is skipped
# without them: they are installed.
set -eu

missing=
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
command -v promtool >/dev/null 2>&1 || missing="$missing prometheus"
command -v gcc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
# Debian's are where only the path of root leads.
[ -x /usr/sbin/ip ] || command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
[ -x /usr/sbin/iptables ] || command -v iptables >/dev/null 2>&1 || missing="$missing iptables"
[ -x /usr/sbin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null 2>&1 || missing="$missing rabbitmq-server"
# shellcheck disable=SC2086 # several words
[ -z "$missing" ] || exec sh tools/apt_install.sh $missing
