"""Aligned grids and points of one frame, as a predictor takes them."""

from __future__ import annotations

import hashlib

import numpy as np
from scipy.spatial.transform import Rotation

from gemini_core.config.fusion import from_flat
from gemini_core.rig.geometry import OPTICAL_FROM_BODY, invert_transform, transform_matrix
from gemini_core.types import MODALITIES, AlignedGrid, AlignedGrids, AlignedPoints, GridGeometry

GEOMETRY = GridGeometry(
    reference_width=200, reference_height=100, width=96, height=64, left=25, top=0, crop_width=150, crop_height=100
)


CLASSES = [f"class {number}" for number in range(9)]


def configured(modalities=("rgb", "depth"), **model):
    options = {f"model.{key}": value for key, value in {"classes": CLASSES, **model}.items()}
    return from_flat({"modalities": list(modalities), **options})


def grids_of(modalities=MODALITIES, geometry=GEOMETRY, seed=0):
    rng = np.random.default_rng(seed)
    shape = (geometry.height, geometry.width)
    grids = []
    for modality in modalities:
        channels = rng.random((3, *shape), dtype=np.float32)
        channels.setflags(write=False)
        grids.append(AlignedGrid(modality, channels, np.ones(shape, bool)))
    return AlignedGrids(0, 0, "camera", geometry, None, tuple(grids), ())


def digest(mask):
    return hashlib.sha256(mask.tobytes()).hexdigest()


REFERENCE_FROM_BASE = OPTICAL_FROM_BODY @ invert_transform(
    transform_matrix((0.9, 0.1, 1.6), Rotation.from_euler("zyx", [0.1, 0.2, 0.05]).as_quat())
)


def points_of(count=400, seed=0):
    rng = np.random.default_rng(seed)
    places = rng.uniform((1, -9, -0.5), (18, 9, 2.5), (count, 3)).astype(np.float32)
    pixels = rng.uniform((0, 0), (GEOMETRY.width - 1, GEOMETRY.height - 1), (count, 2)).astype(np.float32)
    visible = rng.random(count) < 0.6
    intensity = rng.random(count, dtype=np.float32)
    return AlignedPoints("lidar", places, intensity, pixels, visible, np.arange(count, dtype=np.int32), REFERENCE_FROM_BASE)
