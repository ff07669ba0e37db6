"""Small labelled bags, and a run on them that takes seconds: boxes that are nearer and brighter than the ground."""

from __future__ import annotations

import numpy as np

from configs import dotted
from gemini_core.bag import messages
from gemini_core.bag.labels import LabelTopics
from gemini_core.bag.writer import BagWriter
from gemini_core.types import CameraModel
from training.config import load_training_config

SIZE = 64
CLASSES = ("ground", "box")
TOPICS = LabelTopics("/ground_truth/segmentation", "/ground_truth/label_info")
CAMERA = CameraModel(SIZE, SIZE, 60.0, 60.0, 31.5, 31.5)
STEP_NS = 100_000_000
FUSION = f"""
modalities: [rgb, depth]
grid: {{height: {SIZE}, width: {SIZE}}}
motion: {{fixed_frame: ""}}
model: {{classes: [{", ".join(CLASSES)}]}}
"""
RECIPE = """
data: {{fusion: {folder}/fusion.yaml, train: ["{folder}/train"], val: ["{folder}/val"], cache: {folder}/cache, workers: 0}}
model: {{modalities: [rgb, depth], head_width: 32, drop_path: 0.1}}
augment: {{scale_min: 0.9, scale_max: 1.2, noise: 0.05, modality_dropout: 0.3}}
optimizer: {{lr: 5.0e-4, steps: 6, warmup_steps: 1, batch_size: 2, ema_decay: 0.5}}
run: {{out: {folder}/run, validate_every: 3, checkpoint_every: 2, log_every: 1, threads: 1}}
"""


def picture(rng):
    """A box nearer than the ground, brighter too; what it is, and how far."""
    label = np.zeros((SIZE, SIZE), np.uint8)
    top, left = rng.integers(4, 34, 2)
    label[top : top + 24, left : left + 24] = 1
    pixels = np.where(label[..., None] == 1, 170, 90) + rng.integers(-40, 40, (SIZE, SIZE, 3))
    return pixels.astype(np.uint8), np.where(label == 1, 2000, 4000).astype(np.uint16), label


def write_bag(path, seed, *, frames=6, names=CLASSES, label_size=SIZE, largest=None, labels=True):
    """A bag of colour and depth images with labels; ``label_size``, ``largest`` and ``names`` make them wrong."""
    rng = np.random.default_rng(seed)
    with BagWriter(path) as bag:
        if labels:
            bag.write(TOPICS.names, messages.label_info(names, 0, "camera"), 1)
        for topic in ("/rgb/camera_info", "/depth/camera_info"):
            bag.write(topic, messages.camera_info(CAMERA, STEP_NS, "camera"), 2)
        for index in range(frames):
            stamp = (index + 1) * STEP_NS
            pixels, depth, label = picture(rng)
            bag.write("/rgb/image", messages.image(pixels, "rgb8", stamp, "camera"), stamp)
            bag.write("/depth/image", messages.image(depth, "16UC1", stamp, "camera"), stamp + 1)
            if labels:
                label = label[:label_size, :label_size].copy()
                if largest is not None:
                    label[0, 0] = largest
                bag.write(TOPICS.images, messages.mask(label, stamp, "camera"), stamp + 2)
    return path


def write_training(folder):
    """Bags to train on and to validate with, and the files that say how."""
    write_bag(folder / "train", 1)
    write_bag(folder / "val", 2, frames=2)
    (folder / "fusion.yaml").write_text(FUSION)
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    return folder


def recipe_of(folder, out):
    """Load the recipe in a folder, to run into ``out``, with options (section__option=value) that win over it."""

    def load(**options):
        overrides = {"run.out": str(out), **dotted(options)}
        return load_training_config(str(folder / "recipe.yaml"), overrides)

    return load
