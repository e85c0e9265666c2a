# Unpack a Debian package into a folder, without root and without installing it: unpack_package.sh PACKAGE FOLDER
set -eu

package=$1
target=$(mkdir -p "$2" && cd "$2" && pwd)
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial"
own="-q -o Dir::State::lists=$work/lists -o Dir::Cache=$work -o APT::Sandbox::User= -o Debug::NoLocking=1"
cd "$work"
# shellcheck disable=SC2086 # several words
{ apt-get $own update && apt-get $own download "$package"; } >"$work/log" 2>&1
dpkg-deb -x "$work/$package"_*.deb "$target"
