"""Bags of one or two frames, and a recipe by which MVX-Net learns the one by heart in seconds."""

from __future__ import annotations

from boxed_bags import write_boxed
from labelled_bags import CLASSES

SEED = 6  # of a bag whose first frame has a box, and its second a post
FUSION = f"""
modalities: [rgb, depth, lidar]
grid: {{height: 64, width: 64}}
motion: {{fixed_frame: ""}}
model: {{classes: [{", ".join(CLASSES)}]}}
detections: {{classes: [box]}}
"""
RECIPE = """
data: {{fusion: {folder}/fusion.yaml, train: ["{folder}/bag"], cache: {folder}/cache, workers: 0, labels: ""}}
model: {{modalities: [rgb, lidar]}}
detection:
  {{enabled: true, alone: true, detector: mvxnet, x_min_m: 3.2, x_max_m: 9.6, y_max_m: 2.4, z_min_m: -1.6, z_max_m: 1.6,
    channels: 0.125, lr_factor: 1.0}}
augment: {{flip: 0.0, scale_min: 1.0, scale_max: 1.0, color_jitter: 0.0, blur: 0.0, modality_dropout: 0.0}}
optimizer: {{lr: 8.0e-3, steps: 40, warmup_steps: 2, power: 2.0, batch_size: 1, clip_norm: 10.0}}
run: {{out: {folder}/run, checkpoint_every: 1000, threads: 1}}
"""


def write_mvxnet_training(folder):
    """A bag of one frame, one of two (a box and a post), and the files that say how."""
    write_boxed(folder / "bag", SEED, frames=1, masks=False)
    write_boxed(folder / "pair", SEED, frames=2, masks=False)
    (folder / "fusion.yaml").write_text(FUSION)
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    return folder
