#!/bin/sh
# A RabbitMQ of your own in a folder, on this machine's loopback alone, for trying things out: no root, no system service.
#   sh deploy/rabbitmq/broker.sh start FOLDER      and prints its address; the password is made the first time
#   sh deploy/rabbitmq/broker.sh stop FOLDER
# AMQP is at BROKER_PORT (5672), the console 10000 above it. What is stored stays in the folder.
set -eu

usage() {
    echo "usage: sh deploy/rabbitmq/broker.sh start|stop FOLDER" >&2
    exit 2
}
[ $# -eq 2 ] || usage
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$2"
folder=$(cd "$2" && pwd)
port=${BROKER_PORT:-5672}
# Debian's own start script wants root and the system's folders; the one behind it does not.
server=/usr/lib/rabbitmq/bin/rabbitmq-server
[ -x "$server" ] || server=$(command -v rabbitmq-server) || {
    echo "RabbitMQ is not installed." >&2
    echo "Next: sudo apt-get install -y --no-install-recommends rabbitmq-server (its own service may stay off)" >&2
    exit 1
}

configure() {
    umask 077
    [ -s "$folder/password" ] || od -An -N20 -tx1 /dev/urandom | tr -d ' \n' >"$folder/password"
    sed -e "s|\${RABBITMQ_USER}|muster|g" -e "s|\${RABBITMQ_PASSWORD}|$(cat "$folder/password")|g" \
        "$here/../helm/muster/files/definitions.json" >"$folder/definitions.json"
    cat >"$folder/rabbitmq.conf" <<END
listeners.tcp.local = 127.0.0.1:$port
management.tcp.ip = 127.0.0.1
management.tcp.port = $((port + 10000))
load_definitions = $folder/definitions.json
log.console = true
END
    echo '[rabbitmq_management].' >"$folder/enabled_plugins"
}

running() { # the broker takes its pid file away before it ends
    pid=$(cat "$folder/pid" 2>/dev/null) && [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null
}

tell() {
    echo "amqp://muster:$(cat "$folder/password")@127.0.0.1:$port/agents"
    echo "Console: http://127.0.0.1:$((port + 10000)), user muster, password in $folder/password" >&2
}

start() {
    if running; then
        tell
        return
    fi
    configure
    : >"$folder/broker.log"
    HOME=$folder RABBITMQ_NODENAME=muster$port@localhost RABBITMQ_NODE_PORT=$port \
        RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_DIST_PORT=$((port + 1)) \
        ERL_EPMD_PORT=$((port + 2)) ERL_EPMD_ADDRESS=127.0.0.1 \
        RABBITMQ_MNESIA_BASE=$folder/mnesia RABBITMQ_LOG_BASE=$folder/log RABBITMQ_LOGS=- \
        RABBITMQ_CONFIG_FILE=$folder/rabbitmq.conf RABBITMQ_ENABLED_PLUGINS_FILE=$folder/enabled_plugins \
        RABBITMQ_PID_FILE=$folder/pid RABBITMQ_CONF_ENV_FILE=/dev/null \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}" \
        nohup "$server" >>"$folder/broker.log" 2>&1 </dev/null &
    server_pid=$!
    tries=60
    until grep -q 'Server startup complete' "$folder/broker.log"; do
        tries=$((tries - 1))
        if [ "$tries" = 0 ] || ! kill -0 "$server_pid" 2>/dev/null; then
            echo "It did not start; see $folder/broker.log" >&2
            exit 1
        fi
        sleep 1
    done
    tell
}

stop() {
    running || return 0
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
    rm -f "$folder/pid"
    ERL_EPMD_PORT=$((port + 2)) epmd -port $((port + 2)) -kill >/dev/null 2>&1 || true
}

case $1 in
    start) start ;;
    stop) stop ;;
    *) usage ;;
esac
