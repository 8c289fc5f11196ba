#!/usr/bin/env bash
# Install, then check everything: style, types, import contracts, tests in real windows, the test suite.
source "$(dirname "$0")/setup.sh"
install_system_packages
install all,test
source "$VENV/bin/activate"

ruff check .
ruff format --check .
mypy
lint-imports --no-logo
xvfb-run -a -s "-screen 0 1600x1200x24" env QT_QPA_PLATFORM=xcb pytest -q -m "not slow" tests/gui
QT_QPA_PLATFORM=offscreen pytest -q
