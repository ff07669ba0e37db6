"""Grid geometry: crop and resize of the reference image, and the intrinsics of the camera that sees exactly the grid."""

from __future__ import annotations

import dataclasses

from gemini_core.config.sections import GridConfig
from gemini_core.types import CameraModel, GridGeometry


def grid_geometry(grid: GridConfig, width: int, height: int) -> GridGeometry:
    """Lay the grid into a reference image of ``width`` x ``height`` pixels.

    "stretch" shows the whole image; "crop" shows the largest centred part with the grid's aspect ratio, to a whole pixel.
    """
    crop_width, crop_height = width, height
    if grid.resize == "crop":
        crop_width = min(width, max(1, round(height * grid.width / grid.height)))
        crop_height = min(height, max(1, round(width * grid.height / grid.width)))
    return GridGeometry(
        reference_width=width,
        reference_height=height,
        width=grid.width,
        height=grid.height,
        left=(width - crop_width) // 2,
        top=(height - crop_height) // 2,
        crop_width=crop_width,
        crop_height=crop_height,
    )


def grid_camera(camera: CameraModel, geometry: GridGeometry) -> CameraModel:
    """Give the reference camera's model for the grid's pixels; the lens, and so the distortion, stays.

    Pixel centres are whole numbers on both sides: ``u_grid = (u_ref - left + 0.5) * scale_x - 0.5``.
    """
    return dataclasses.replace(
        camera,
        width=geometry.width,
        height=geometry.height,
        fx=camera.fx * geometry.scale_x,
        skew=camera.skew * geometry.scale_x,
        fy=camera.fy * geometry.scale_y,
        cx=(camera.cx - geometry.left + 0.5) * geometry.scale_x - 0.5,
        cy=(camera.cy - geometry.top + 0.5) * geometry.scale_y - 0.5,
    )
