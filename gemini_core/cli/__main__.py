"""``python -m gemini_core.cli``."""

import sys

from gemini_core.cli import main

sys.exit(main())
