"""Draw docs/images/sensors-*.jpg, the pictures of docs/sensors.md: each sensor of the simulated street on the camera's pixels.

gemini-fusion simulate --no-clutter --seconds 1 --seed 1 --out out/street
python docs/draw_sensors.py out/street
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2

from gemini_core.bag.reader import BagReader
from gemini_core.config.fusion import from_flat
from gemini_core.project.projector import Projector
from gemini_core.render import grid_image
from gemini_core.replay import Replay

FOLDER = Path(__file__).with_name("images")
WIDTH = 480  # of a picture, pixels
QUALITY = 82


def main() -> None:
    """Draw the last frame of the bag that has every sensor."""
    config = from_flat({"model.enabled": False, "sync.max_wait_ms": 2000.0})
    with BagReader(sys.argv[1]) as bag:
        frame = [frame for frame in Replay(bag, config).frames() if all(status.present for status in frame.status)][-1]
    grids = Projector(config).project(frame)
    for grid in grids.grids:
        picture = grid_image(grids, grid)
        size = WIDTH, round(WIDTH * picture.shape[0] / picture.shape[1])
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        path = FOLDER / f"sensors-{grid.modality}.jpg"
        cv2.imwrite(str(path), cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        print(f"{path}: {path.stat().st_size // 1024} KiB, {100 * grid.coverage:.0f} % of the pixels")  # noqa: T201 - a command


if __name__ == "__main__":
    main()
