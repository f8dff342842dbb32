"""``python -m showtell`` is ``showtell``."""

import sys

from showtell.cli import main

sys.exit(main())
