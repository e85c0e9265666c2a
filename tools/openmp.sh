# llama.cpp needs libgomp, the run-time library of OpenMP, which a bare Debian lacks and no Python package brings. It is
# taken from Debian's own package into $VENV, which needs no root; only where that fails it is to be installed.
set -eu

loads() {
    "$VENV/bin/python" -c 'import xllamacpp' 2>/dev/null
}

into_the_environment() {
    sh tools/unpack_package.sh libgomp1 "$VENV/libgomp1" || return 1
    cp "$VENV"/libgomp1/usr/lib/*/libgomp.so.1 "$VENV/lib/libgomp.so.1" || return 1
    rm -rf "$VENV/libgomp1"
    # Found by its name once it is in memory, so it is loaded with the interpreter: the loader does not look into $VENV.
    site=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo 'import ctypes, sys; ctypes.CDLL(sys.prefix + "/lib/libgomp.so.1", ctypes.RTLD_GLOBAL)' >"$site/openmp.pth"
    loads || { rm "$site/openmp.pth" && return 1; }
}

if ! loads; then
    echo "llama.cpp, the model server, needs the library libgomp; fetching it ..."
    into_the_environment || sh tools/apt_install.sh libgomp1
fi
