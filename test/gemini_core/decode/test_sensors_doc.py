"""docs/sensors.md names everything that is read, and every reason for which something is not."""

from __future__ import annotations

import re

import pytest

from gemini_core.config.sections import EVENT_TYPES
from gemini_core.decode import cloud, event_clouds
from gemini_core.decode.camera_info import ALIASES, COEFFICIENTS
from gemini_core.decode.cloud_times import TIME_NAMES
from gemini_core.decode.color import LAYOUTS
from gemini_core.decode.event_packets import CODECS
from gemini_core.decode.image import DEPTH_ENCODINGS
from source_imports import REPOSITORY

TEXT = (REPOSITORY / "docs" / "sensors.md").read_text(encoding="utf-8")
NAMES = {
    "colour encodings": LAYOUTS,
    "depth encodings": DEPTH_ENCODINGS,
    "lenses": (*COEFFICIENTS, *ALIASES),
    "event types": EVENT_TYPES,
    "packet encodings": CODECS,
    "cloud fields": (*cloud.INTENSITY_NAMES, *cloud.RING_NAMES, *TIME_NAMES),
    "event cloud fields": (*event_clouds.TIME_NAMES, *event_clouds.POLARITY_NAMES),
}


@pytest.mark.parametrize("what", NAMES)
def test_everything_that_is_read_is_in_the_tables(what):
    assert [name for name in NAMES[what] if f"`{name}`" not in TEXT] == []


def test_every_reason_of_a_refusal_is_in_the_table():
    sources = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "gemini_core" / "decode").glob("*.py"))
    reasons = set(re.findall(r'reason="(\w+)"', sources)) | {"wrong_k", "wrong_p"}
    reasons -= {"no_transforms"}  # counted as empty
    assert len(reasons) > 20
    assert sorted(reason for reason in reasons if f"`{reason}`" not in TEXT) == []


def test_its_pictures_are_there_and_small():
    pictures = [REPOSITORY / "docs" / name for name in re.findall(r"\((images/[\w.-]+)\)", TEXT)]
    assert len(pictures) == 4
    assert sum(path.stat().st_size for path in pictures) < 400_000
