#!/bin/sh
# Set-up, first part: look for what only the distribution can bring, have all that is missing installed or named in one line
# (install_packages.sh), then hand over to setup_environment.py. Plain sh, so that it also speaks where Python is missing or too old.
# PYTHON names the interpreter; where a ROS installation is sourced, no compiler is needed, since nothing is built.
set -u
PYTHON=${PYTHON:-python3}
PATH=$PATH:/usr/sbin:/sbin # ldconfig
tools=$(dirname "$0")

need() { # need PACKAGE COMMAND...: remember the package if the command fails
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
library() { ldconfig -p | grep -q "^[[:space:]]*$1 "; }
builds() { [ -z "${ROS_DISTRO:-}" ] || [ -z "${AMENT_PREFIX_PATH:-}" ]; }

look() { # set $missing to the packages that are missing; ends set-up where this Python cannot serve
    missing=
    if command -v "$PYTHON" >/dev/null 2>&1; then
        if ! "$PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'; then
            echo "set-up: expected Python 3.10 to 3.13, got $("$PYTHON" --version 2>&1) from $(command -v "$PYTHON");" \
                "name another one, such as: make setup PYTHON=python3.12" >&2
            exit 1
        fi
        need python3-venv "$PYTHON" -c 'import ensurepip, venv'
        headers='import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
        builds && need python3-dev "$PYTHON" -c "$headers"
    else
        missing=" python3 python3-venv python3-dev"
    fi
    if builds; then
        need g++ command -v g++
        need cmake command -v cmake
        need make command -v make
    fi
    need libusb-1.0-0 library libusb-1.0.so.0
    need libgl1 library libGL.so.1
    need libgomp1 library libgomp.so.1
}

look
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086 # one word per package
    sh "$tools/install_packages.sh" $missing || exit 1
    look
    if [ -n "$missing" ]; then
        echo "set-up: expected$missing to be enough, now that apt-get has installed them, but $PYTHON or the linker does not find" \
            "what they bring; name the distribution's own Python: make setup PYTHON=/usr/bin/python3" >&2
        exit 1
    fi
fi
exec "$PYTHON" "$tools/setup_environment.py"
