"""Networks that find boxes in the bags of ``boxed_bags``: untrained, and one that knows the labels."""

from __future__ import annotations

import torch

from boxed_bags import BOX_CLASSES
from gemini_core.model.checkpoints import CheckpointInfo, default_normalization
from gemini_core.model.detection.interface import Found
from gemini_core.model.detection.pillars.detector import DetectorConfig
from gemini_core.model.segmentation import Segmenter, SegmenterConfig
from labelled_bags import CLASSES
from networks import TINY
from training.box_finders import pillar_subsets
from training.detection import beside

MODALITIES = ("rgb", "depth", "lidar")


def boxes_config(classes=BOX_CLASSES):
    return DetectorConfig(classes, (0.0, -6.4, -2.0, 12.8, 6.4, 2.0), 0.4)


def boxed_segmenter(modalities=MODALITIES, classes=BOX_CLASSES, *, detector=True):
    torch.manual_seed(0)
    boxes = boxes_config(classes) if detector else None
    return Segmenter(SegmenterConfig(TINY, modalities, len(CLASSES), head_width=16, detector=boxes)).eval()


def boxed_info(modalities=MODALITIES):
    return CheckpointInfo(CLASSES, default_normalization(modalities), trained=True, description="of a test")


class LabelFinder:
    """Finds the labelled boxes themselves."""

    modalities, config, info = MODALITIES, boxes_config(), boxed_info()

    def subsets(self, _sources, points="auto", given=()):
        return pillar_subsets(self.modalities, points, given)

    def find(self, batch, _subset):
        frame = batch.labelled_clouds[0]
        real = frame.classes >= 0
        found = Found(frame.boxes[real], torch.full((int(real.sum()),), 0.9), frame.classes[real])
        return beside(frame, found, self.config)
