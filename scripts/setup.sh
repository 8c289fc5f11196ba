# Sourced by demo.sh and test.sh: system packages, then a virtual environment with the tested versions.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python3} VENV=${VENV:-.venv}
"$PYTHON" -c "import sys; sys.exit(sys.version_info < (3, 11))" || {
    echo "Python 3.11 or newer is needed; $PYTHON is missing or older. Name another: PYTHON=python3.12 bash $0" >&2
    exit 1
}

# What Qt 6 needs to draw without and with a window, and a virtual display for the second.
SYSTEM_PACKAGES=(
    libegl1 libgl1 libgl1-mesa-dri libopengl0 libglib2.0-0 libdbus-1-3 libfontconfig1 fonts-dejavu-core
    libxkbcommon0 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0
    libxcb-render-util0 libxcb-shape0 libxcb-xfixes0 libxcb-xinerama0 xvfb xauth
)

install_system_packages() {
    local missing=()
    if ! command -v apt-get >/dev/null; then
        echo "Not a Debian system: install what provides Qt 6's xcb platform, OpenGL, Xvfb and Python's venv yourself."
        return
    fi
    for package in "${SYSTEM_PACKAGES[@]}"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing+=("$package")
    done
    "$PYTHON" -c "import ensurepip, venv" 2>/dev/null || missing+=(python3-venv)
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        echo "Not root: system packages are left alone. If Qt does not start: sudo apt-get install ${missing[*]}"
        return
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

# install EXTRAS: this checkout with its extras, in the tested versions, into $VENV; quick when all is there.
install() {
    [ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
    rm -rf build # setuptools would pack what an earlier build left there
    "$VENV/bin/python" -m pip install --quiet -c constraints.txt ".[$1]"
}
