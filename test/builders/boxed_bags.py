"""Small bags with labelled 3D boxes, and runs on them that take seconds: one thing stands on the ground before a wall."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from gemini_core.bag import messages
from gemini_core.bag.kitti import POINT_DTYPE
from gemini_core.bag.writer import BagWriter
from gemini_core.evaluate.detection_labels import LEVEL_FROM_OPTICAL
from gemini_core.types import Detection3D, StampedTransform
from labelled_bags import CAMERA, CLASSES, SIZE, STEP_NS, TOPICS

BOXES = "/ground_truth/detections"
BOX_CLASSES = ("box", "post")
OPTICAL_FROM_LEVEL = np.linalg.inv(LEVEL_FROM_OPTICAL)
WALL_M = 11.0
FUSION = f"""
modalities: [rgb, depth, lidar]
grid: {{height: {SIZE}, width: {SIZE}}}
motion: {{fixed_frame: ""}}
model: {{classes: [{", ".join(CLASSES)}]}}
detections: {{classes: [{", ".join(BOX_CLASSES)}]}}
"""
RECIPE = """
data: {{fusion: {folder}/fusion.yaml, train: ["{folder}/train"], val: ["{folder}/val"], cache: {folder}/cache, workers: 0}}
model: {{modalities: [rgb, depth, lidar], head_width: 32, drop_path: 0.1}}
detection: {{enabled: true, x_max_m: 12.8, y_max_m: 6.4, z_min_m: -2.0, z_max_m: 2.0}}
augment: {{scale_min: 0.9, scale_max: 1.2, modality_dropout: 0.3, turn_deg: 10.0, stretch: 0.05, paste: 2}}
optimizer: {{lr: 5.0e-4, steps: 4, warmup_steps: 1, batch_size: 2, ema_decay: 0.5}}
run: {{out: {folder}/run, validate_every: 4, checkpoint_every: 2, log_every: 1, threads: 1}}
"""


def detection(box, name, frame_from_base=OPTICAL_FROM_LEVEL):
    """A box (7,) of the base frame as a message in another frame has it."""
    center = frame_from_base[:3, :3] @ box[:3] + frame_from_base[:3, 3]
    turn = frame_from_base[:3, :3] @ Rotation.from_euler("z", box[6]).as_matrix()
    return Detection3D(name, 1.0, tuple(center), tuple(float(each) for each in box[3:6]), messages.quaternion_xyzw(turn))


def scene(rng):
    """A thing's box in the base frame and its class; picture, depth in millimetres, label, and points in the base frame."""
    named = int(rng.integers(2))
    size = ((1.6, 1.0, 1.2), (0.6, 0.6, 1.8))[named]
    box = np.array([rng.uniform(4.0, 8.0), rng.uniform(-1.5, 1.5), 0.0, *size, rng.uniform(-0.5, 0.5)])
    own = rng.uniform(-0.49, 0.49, (80, 3)) * box[3:6]
    cos, sin = np.cos(box[6]), np.sin(box[6])
    points = np.stack([cos * own[:, 0] - sin * own[:, 1], sin * own[:, 0] + cos * own[:, 1], own[:, 2]], axis=1) + box[:3]
    wall = np.stack([np.full(200, WALL_M), rng.uniform(-5, 5, 200), rng.uniform(-1.9, 1.9, 200)], axis=1)
    label = np.zeros((SIZE, SIZE), np.uint8)
    u = np.rint(CAMERA.cx - CAMERA.fx * points[:, 1] / points[:, 0]).astype(int)
    v = np.rint(CAMERA.cy - CAMERA.fy * points[:, 2] / points[:, 0]).astype(int)
    seen = (u >= 0) & (u < SIZE) & (v >= 0) & (v < SIZE)
    if seen.any():
        label[v[seen].min() : v[seen].max() + 1, u[seen].min() : u[seen].max() + 1] = 1
    pixels = np.where(label[..., None] == 1, 170, 90) + rng.integers(-40, 40, (SIZE, SIZE, 3))
    depth = np.where(label == 1, 1000 * box[0], 1000 * WALL_M).astype(np.uint16)
    return box, BOX_CLASSES[named], pixels.astype(np.uint8), depth, label, np.vstack([points, wall])


def write_boxed(path, seed, *, frames=4, lidar=True, depth=True, masks=True, topics=(BOXES,), boxes_frame="camera"):
    """A bag of colour and depth images, sweeps, label images and boxes."""
    rng = np.random.default_rng(seed)
    with BagWriter(path) as bag:
        if masks:
            bag.write(TOPICS.names, messages.label_info(CLASSES, 0, "camera"), 1)
        bag.write("/tf_static", messages.tf_message([StampedTransform(STEP_NS, "lidar", "camera", LEVEL_FROM_OPTICAL)]), 1)
        for topic in ("/rgb/camera_info", "/depth/camera_info"):
            bag.write(topic, messages.camera_info(CAMERA, STEP_NS, "camera"), 2)
        for index in range(frames):
            stamp = (index + 1) * STEP_NS
            box, named, pixels, far, label, points = scene(rng)
            bag.write("/rgb/image", messages.image(pixels, "rgb8", stamp, "camera"), stamp)
            if depth:
                bag.write("/depth/image", messages.image(far, "16UC1", stamp, "camera"), stamp + 1)
            if lidar:
                sweep = np.zeros(len(points), POINT_DTYPE)
                sweep["x"], sweep["y"], sweep["z"] = points.T
                sweep["intensity"] = 0.5
                bag.write("/lidar/points", messages.point_cloud(sweep, stamp, "lidar"), stamp + 2)
            if masks:
                bag.write(TOPICS.images, messages.mask(label, stamp, "camera"), stamp + 3)
            for topic in topics:
                bag.write(topic, messages.detections([detection(box, named)], stamp, boxes_frame), stamp + 4)
    return path


def write_boxed_training(folder):
    """Bags to train on and to validate with, and the files that say how."""
    write_boxed(folder / "train", 1, frames=6)
    write_boxed(folder / "val", 2, frames=3)
    (folder / "fusion.yaml").write_text(FUSION)
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    return folder
