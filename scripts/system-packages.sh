#!/usr/bin/env bash
# Installs the named Debian or Fedora packages where this user may, and says plainly where not.
# Usage: scripts/system-packages.sh COMMAND[=PACKAGE] ...   (only what is missing is installed)
set -u
missing=()
for entry in "$@"; do
    command -v "${entry%%=*}" >/dev/null 2>&1 || missing+=("${entry#*=}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if sudo -n true 2>/dev/null; then
        as_root=(sudo -n)
    else
        echo "note: ${missing[*]} not installed, and this user may not install packages" >&2
        exit 0
    fi
fi
if command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    "${as_root[@]}" apt-get update -qq &&
        "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
elif command -v dnf >/dev/null 2>&1; then
    "${as_root[@]}" dnf install -y -q "${missing[@]}"
else
    echo "note: no apt-get or dnf here; install by hand: ${missing[*]}" >&2
fi
exit 0
