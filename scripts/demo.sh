#!/usr/bin/env bash
# Install, then bring a real image back into focus: results and their figures in ./demo-output.
source "$(dirname "$0")/setup.sh"
install_system_packages
install all
"$VENV/bin/mpt-deblur" demo --output demo-output
