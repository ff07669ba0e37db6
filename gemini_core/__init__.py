"""gemini_core: the GeminiFusion perception pipeline without ROS (docs/architecture.md)."""

import re
from importlib.metadata import version
from pathlib import Path

_PACKAGE_XML = Path(__file__).parents[1] / "package.xml"
_IN_CHECKOUT = (
    re.search("<version>(.+)</version>", _PACKAGE_XML.read_text(encoding="utf-8")) if _PACKAGE_XML.is_file() else None
)
__version__ = _IN_CHECKOUT[1] if _IN_CHECKOUT else version("gemini_ros")
"""That of package.xml: read there in a checkout, elsewhere from the metadata that setup.py made of it."""
