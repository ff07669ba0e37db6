"""``python -m gemini_core.cli``."""

import sys

from gemini_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
