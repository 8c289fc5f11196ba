"""``python -m napari_mpt_deblur.cli``."""

import sys

from napari_mpt_deblur.cli.main import main

sys.exit(main())
