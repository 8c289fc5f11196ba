#!/usr/bin/env bash
# Install, then check everything: style, types, import contracts and tests, those of the viewer in real windows (on
# virtual displays, which pytest-xvfb starts).
source "$(dirname "$0")/setup.sh"
install_system_packages
install all,test
source "$VENV/bin/activate"
# networks of others, without torchvision, which they declare and hardly use: it wants a torch of its own
pip install --quiet --no-deps -c constraints.txt spandrel spandrel-extra-arches einops

ruff check .
ruff format --check .
mypy
lint-imports --no-logo
# the viewer in real windows, on a virtual display; all cores, each of which begins with files of its own and makes what
# their tests share once
QT_QPA_PLATFORM=xcb pytest -q -n auto --dist worksteal -m "not slow"
