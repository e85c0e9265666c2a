# Make $VENV and install Muster into it: `run` is what `make up` needs, `dev` adds tests and checks.
# A stamp of everything that decides the outcome makes the second run a matter of milliseconds.
set -eu

kind=$1
VENV=${VENV:-.venv}
here=$(pwd)
log="$VENV/install.log"

fail() { # sentence, next step
    echo "$1" >&2
    echo "Next: $2" >&2
    exit 1
}

stamp() { # the path counts too: a virtual environment does not survive a move
    { echo "$here $1"; cat pyproject.toml requirements/constraints.txt; } | cksum
}

is_current() {
    [ -x "$VENV/bin/muster" ] && [ "$(cat "$VENV/.installed-$1" 2>/dev/null)" = "$(stamp "$1")" ]
}

free_mb() {
    df -Pm "$VENV" | awk 'NR == 2 { print $4 }'
}

explain_pip() { # what failed
    if grep -q "No space left" "$log" 2>/dev/null || [ "$(free_mb)" -lt 20 ]; then
        fail "The disk is full: the packages need about $size_mb MB in $here/$VENV." "free some space, then run the same command again"
    elif grep -qE "NewConnectionError|NameResolutionError|name resolution|ConnectTimeout|Max retries|ProxyError|Network is unreachable|from versions: none" "$log" 2>/dev/null; then
        fail "The package index could not be reached, and what Muster needs is not in pip's cache." \
            "check the network (or pip's own settings: pip config list), then run the same command again"
    else
        fail "pip could not install $1; its whole output is in $log." "read its last lines: tail -n 30 $log"
    fi
}

install_pip() { # the environment's own pip; its words go to the log, a person sees how far it is
    { "$VENV/bin/python" -m pip --disable-pip-version-check --no-input --retries 2 --log "$log" install \
        -c requirements/constraints.txt "$@" 2>/dev/null || touch "$VENV/.failed"; } |
        awk -v tty="$([ -t 1 ] && echo 1)" '
            /^Collecting / { n++; if (tty) printf "\r\033[K  %d: %s", n, $2; else if (n % 20 == 0) print "  " n " packages found" }
            /^Installing collected/ { if (tty) printf "\r\033[K"; print "  unpacking ..." }
            { fflush() }'
    [ ! -e "$VENV/.failed" ]
}

make_environment() {
    python=$(sh tools/find_python.sh) || exit 1
    # shellcheck disable=SC2015 # the last one ends the script either way
    mkdir -p "$VENV" 2>/dev/null && touch "$VENV/.writable" 2>/dev/null ||
        fail "$here cannot be written to, so no environment can be made in it (read-only, full, or another user's)." \
            "clone Muster into a directory of yours and run make there"
    echo "Making $VENV with $("$python" --version) ..."
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv --clear "$VENV" || fail "$python could not make a virtual environment in $here/$VENV." \
            "see the message above; a full disk is the usual cause"
    else
        make_without_ensurepip
    fi
}

make_without_ensurepip() { # Debian and Ubuntu ship pip apart from Python; its wheels install it without root
    "$python" -m venv --clear --without-pip "$VENV"
    wheels="$VENV/pip-wheels/usr/share/python-wheels"
    if sh tools/unpack_package.sh python3-pip-whl "$VENV/pip-wheels"; then
        "$VENV/bin/python" "$(ls "$wheels"/pip-*.whl)/pip" --quiet install --no-index --find-links "$wheels" pip
        rm -rf "$VENV/pip-wheels"
    else
        sh tools/apt_install.sh "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv" || exit 1
        "$python" -m venv --clear "$VENV"
    fi
}

environment_fits() { # runs, has pip, is new enough, was made here and not moved
    "$VENV/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
        grep -q -- "$here/$VENV" "$VENV/pyvenv.cfg"
}

if [ -n "${MAKE_CHOSE_PYTHON:-}" ]; then # refused when too old, and taken instead of the one in $VENV
    python=$(sh tools/find_python.sh) || exit 1
    asked=$("$python" -c 'import sys; print(sys.version)')
    if [ -x "$VENV/bin/python" ] && [ "$("$VENV/bin/python" -c 'import sys; print(sys.version)' 2>/dev/null)" != "$asked" ]; then
        rm -rf "$VENV"
    fi
fi

if is_current "$kind" || { [ "$kind" = run ] && is_current dev; }; then
    exit 0
fi

if ! environment_fits; then
    make_environment
fi

case $kind in
    run) extras=llamacpp,amqp,grpc,cloud size_mb=400 ;;
    dev) extras=llamacpp,amqp,grpc,cloud,otel,dev size_mb=1500 ;;
    *) fail "tools/install.sh takes run or dev, not '$kind'" "make install" ;;
esac
rm -f "$VENV/.failed" "$log"
if [ ! -e "$VENV/.installed-run" ] && [ "$(free_mb)" -lt "$size_mb" ]; then
    fail "Only $(free_mb) MB are free in $here, and the packages need about $size_mb MB." "free some space, or clone Muster where there is more"
fi
echo "Installing Muster's packages into $VENV (about $size_mb MB; the first time takes a minute or two) ..."
# The build backend comes pinned into the environment as well, so that an editable install asks the network for nothing.
install_pip hatchling editables || explain_pip hatchling
install_pip --no-build-isolation -e ".[$extras]" || explain_pip "Muster"
if ! VENV=$VENV sh tools/openmp.sh && [ "$kind" = dev ]; then
    exit 1 # the tests need it; without it Muster still runs, with other model servers or none
fi
stamp "$kind" >"$VENV/.installed-$kind"
echo "Installed: $("$VENV/bin/muster" version)"
