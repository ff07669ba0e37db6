"""The classes of the ground truth: one list for streets and rooms, in the order of the mask's values.

It is the default of FusionConfig's ``model.classes``; a test holds the two equal.
"""

from __future__ import annotations

CLASS_NAMES = (
    "road",
    "lane_marking",
    "ground",
    "building",
    "pole",
    "tree",
    "car",
    "pedestrian",
    "sky",
    "sidewalk",
    "truck",
    "two_wheeler",
    "traffic_sign",
    "wall",
    "floor",
    "ceiling",
    "door",
    "table",
    "chair",
    "cabinet",
)
(
    ROAD,
    LANE_MARKING,
    GROUND,
    BUILDING,
    POLE,
    TREE,
    CAR,
    PEDESTRIAN,
    SKY,
    SIDEWALK,
    TRUCK,
    TWO_WHEELER,
    TRAFFIC_SIGN,
    WALL,
    FLOOR,
    CEILING,
    DOOR,
    TABLE,
    CHAIR,
    CABINET,
) = range(len(CLASS_NAMES))

BOXED = (CAR, PEDESTRIAN, TRUCK, TWO_WHEELER, TABLE, CHAIR, CABINET)
"""Classes whose things get 3D boxes."""
