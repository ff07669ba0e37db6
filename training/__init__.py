"""Training and evaluation from recorded bags; see docs/training.md."""

import sys

from gemini_core.runtimes.process_settings import prepare_process
from gemini_core.runtimes.programs import end_at_once

if sys.argv[:1] == ["-m"]:  # Python looks for the program that it is to run, which takes seconds to import
    end_at_once()
# Both programs share a few cores between the network and the processes that load frames; it works before torch is loaded only.
prepare_process()
