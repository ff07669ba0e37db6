#!/bin/sh
# install_packages.sh PACKAGE...: bring these packages of the distribution, or say in one line what to type.
# Installs them by itself, after saying so, where there is apt-get and it may: as root, or through sudo that asks no password.
# SYSTEM_PACKAGES=no in the environment: never installs. Ends with 0 if the packages are there now, else with 1.
set -u
command="apt-get install -y --no-install-recommends $*"

refuse() { # refuse [REASON]: why nothing was installed, and what to type
    echo "set-up: expected these packages of the distribution${1:-}, please install them: sudo $command" >&2
    exit 1
}
apt_get() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@"; }

command -v apt-get >/dev/null 2>&1 || refuse " (by Debian's names; there is no apt-get here)"
[ "${SYSTEM_PACKAGES:-yes}" != no ] || refuse
if [ "$(id -u)" = 0 ]; then
    as_root=
elif sudo -n true >/dev/null 2>&1; then
    as_root="sudo -n"
else
    refuse
fi

echo "set-up: installs packages of the distribution (SYSTEM_PACKAGES=no: leaves that to you): ${as_root:+$as_root }$command"
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
trap 'exit 1' INT TERM
# The lists may be empty (containers) or old. A source that does not answer is no reason to stop, since the others may do, but its error
# comes first in the log, as the reason if the installation fails as well.
apt_get -o APT::Update::Error-Mode=any update >"$log" 2>&1
if ! apt_get install -y --no-install-recommends "$@" >>"$log" 2>&1 </dev/null; then
    reason=$(grep -m 1 '^E: ' "$log" || tail -n 1 "$log")
    refuse ", apt-get could not install them ($reason)"
fi
