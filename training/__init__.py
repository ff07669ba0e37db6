"""Training and evaluation from recorded bags; see docs/training.md."""

from gemini_core.runtimes.process_settings import prepare_process

# Both programs share a few cores between the network and the processes that load frames; it works before torch is loaded only.
prepare_process()
