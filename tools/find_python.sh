# Print a Python that is new enough, or say what to do and fail. A chosen one (make PYTHON=...) is used or refused, a
# default `python3` that is too old is replaced by a newer one from the PATH. Run by tools/install.sh.
set -eu

version_of() { # empty where it does not run
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

newer_on_path() {
    for name in python3.14 python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null 2>&1 && new_enough "$name"; then
            echo "$name"
            return
        fi
    done
}

wanted=${MAKE_CHOSE_PYTHON:-python3}
if new_enough "$wanted"; then
    echo "$wanted"
    exit 0
fi

version=$(version_of "$wanted")
if [ -n "$version" ]; then
    found="$wanted is Python $version"
else
    found="$wanted does not run"
fi
other=$(newer_on_path)
if [ -n "$other" ] && [ -z "${MAKE_CHOSE_PYTHON:-}" ]; then
    echo "$found; Muster needs 3.11 or newer and takes $other instead." >&2
    echo "$other"
    exit 0
fi
echo "Muster needs Python 3.11 or newer, and $found." >&2
if [ -n "$other" ]; then
    echo "Next: make up PYTHON=$other" >&2
else
    echo "Next: install a newer Python (Debian, Ubuntu: sudo apt-get install python3.12 python3.12-venv), then: make up PYTHON=python3.12" >&2
fi
exit 1
