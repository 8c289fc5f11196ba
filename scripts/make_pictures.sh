#!/usr/bin/env bash
# Draw the README's pictures anew, after the model in the box or the panel has changed.
source "$(dirname "$0")/setup.sh"
install_system_packages
install all,test
source "$VENV/bin/activate"
mkdir -p docs/images
mpt-deblur demo --output demo-output
cp demo-output/comparison.png docs/images/before-after.png
xvfb-run -a -s "-screen 0 1600x1200x24" env QT_QPA_PLATFORM=xcb python scripts/make_screenshots.py
