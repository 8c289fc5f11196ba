#!/usr/bin/env bash
# Install, then check everything: style, types, import contracts, the viewer in real windows (on a virtual
# display, which pytest-xvfb starts), then all other tests.
source "$(dirname "$0")/setup.sh"
install_system_packages
install all,test
source "$VENV/bin/activate"

ruff check .
ruff format --check .
mypy
lint-imports --no-logo
QT_QPA_PLATFORM=xcb pytest -q -n auto -m "not slow" tests/gui
QT_QPA_PLATFORM=offscreen pytest -q -n auto --ignore tests/gui
