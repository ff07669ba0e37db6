"""The predictor: same grids, same mask; the mask lies where the grids lie; wrong weights are named."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_core.config.fusion import from_flat
from gemini_core.errors import ConfigError, DataError, ShapeError, WeightsError
from gemini_core.model import checkpoints
from gemini_core.model.checkpoints import Normalization
from gemini_core.model.segmentation import Segmenter, SegmenterConfig
from gemini_core.predictor import Predictor, _untrained, to_reference
from gemini_core.types import MODALITIES, UNLABELLED, AlignedGrid, AlignedGrids, GridGeometry
from grids import GEOMETRY, configured, digest, grids_of


def test_mask_has_the_size_of_the_reference_image_and_says_nothing_outside_the_crop():
    mask = Predictor(configured()).predict(grids_of()).mask
    assert mask.dtype == np.uint8
    assert mask.shape == (100, 200)
    assert (mask[:, :25] == UNLABELLED).all()
    assert (mask[:, 175:] == UNLABELLED).all()
    assert (mask[:, 25:175] < 9).all()
    assert len(np.unique(mask[:, 25:175])) > 1


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_reference_pixel_takes_the_grid_pixel_under_its_centre(data):
    width, height = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    crop_width, crop_height = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    left, top = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))
    geometry = GridGeometry(left + crop_width + 3, top + crop_height + 2, width, height, left, top, crop_width, crop_height)
    mask = np.random.default_rng(0).integers(0, 250, (height, width), dtype=np.uint8)
    image = to_reference(mask, geometry)
    u_ref, v_ref = (
        data.draw(st.integers(0, geometry.reference_width - 1)),
        data.draw(st.integers(0, geometry.reference_height - 1)),
    )
    u_grid = (u_ref + 0.5 - left) * geometry.scale_x - 0.5
    v_grid = (v_ref + 0.5 - top) * geometry.scale_y - 0.5
    inside = left <= u_ref < left + crop_width and top <= v_ref < top + crop_height
    if not inside:
        assert image[v_ref, u_ref] == UNLABELLED
        return
    # A centre on the border of two grid pixels belongs to the right (lower) one; the formula's rounding is not exact there.
    columns = {int(np.floor(u_grid + 0.5 + error)) for error in (-1e-9, 1e-9)}
    rows = {int(np.floor(v_grid + 0.5 + error)) for error in (-1e-9, 1e-9)}
    assert image[v_ref, u_ref] in {mask[row, column] for row in rows for column in columns if row < height and column < width}


def test_grid_of_the_images_own_size_comes_back_unchanged():
    mask = np.random.default_rng(0).integers(0, 9, (48, 64), dtype=np.uint8)
    assert np.array_equal(to_reference(mask, GridGeometry(64, 48, 64, 48, 0, 0, 64, 48)), mask)


def test_mask_is_the_argmax_of_upsampled_ensemble_logits(tmp_path):
    segmenter = Segmenter(SegmenterConfig("mit_b0", ("rgb", "depth"), 9)).eval()
    normalization = (Normalization((0.2, 0.3, 0.4), (0.5, 0.6, 0.7)), Normalization())
    config = configured(weights=str(tmp_path / "weights"), device="cpu")
    checkpoints.save(segmenter, tmp_path / "weights", config.model.classes, trained=True, normalization=normalization)
    geometry = GridGeometry(96, 64, 96, 64, 0, 0, 96, 64)
    grids = grids_of(("rgb", "depth"), geometry)
    rgb, depth = (torch.from_numpy(grid.channels.copy())[None] for grid in grids.grids)
    rgb = (rgb - torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    with torch.no_grad():
        logits = segmenter([rgb, depth]).ensemble
    expected = torch.nn.functional.interpolate(logits, size=(64, 96), mode="bilinear").argmax(1)[0].numpy()
    predictor = Predictor(config)
    assert np.array_equal(predictor.predict(grids).mask, expected)
    assert predictor.trained
    assert "trained weights" in predictor.describe()


SMALL = GridGeometry(64, 64, 64, 64, 0, 0, 64, 64)


@pytest.mark.parametrize("missing", [("depth",), ("event", "lidar"), ("depth", "event", "lidar")])
def test_missing_modalities_are_not_computed(missing):
    predictor = Predictor(configured(MODALITIES))
    everything = grids_of(geometry=SMALL)
    there = tuple(grid for grid in everything.grids if grid.modality not in missing)
    lacking = AlignedGrids(0, 0, "camera", SMALL, None, there, ())
    predictor.predict(everything)  # what an earlier frame had must not shine through
    inputs = [
        torch.from_numpy(everything.grid(modality).channels.copy())[None] if modality not in missing else None
        for modality in MODALITIES
    ]
    inputs[0] = (inputs[0] - predictor._mean[0]) / predictor._std[0].cpu()
    with torch.no_grad():
        segmenter, _ = _untrained(configured(MODALITIES))
        logits = segmenter(inputs, [image is not None for image in inputs]).ensemble
        logits = torch.nn.functional.interpolate(logits, size=(64, 64), mode="bilinear")
    assert np.mean(predictor.predict(lacking).mask == logits.argmax(1)[0].numpy()) > 0.999
    assert not np.array_equal(predictor.predict(lacking).mask, predictor.predict(everything).mask)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_grids_with_pixels_that_are_no_numbers_are_refused_by_name(value):
    rgb, depth = grids_of(("rgb", "depth"), SMALL).grids
    channels = depth.channels.copy()
    channels[:, 5, 6] = channels[0, 7, 8] = value
    predictor = Predictor(configured())
    with pytest.raises(DataError, match="grid of depth: expected finite numbers, got others at 2 pixels"):
        predictor.predict(AlignedGrids(0, 0, "camera", SMALL, None, (rgb, AlignedGrid("depth", channels, depth.valid)), ()))
    assert (predictor.predict(grids_of(geometry=SMALL)).mask < 9).all()  # the next frame is as if nothing had been


@pytest.mark.parametrize(
    ("precision", "factor", "error", "sentence"),
    [
        ("fp16", 1e3, ConfigError, "model.precision: expected the range that the weights need, got an overflow in fp16"),
        ("fp32", np.nan, WeightsError, r"model.weights: expected weights that give finite logits, got others from .*weights"),
    ],
)
def test_logits_that_are_no_numbers_are_explained(tmp_path, precision, factor, error, sentence):
    segmenter = Segmenter(SegmenterConfig("mit_b0", ("rgb", "depth"), 9))
    with torch.no_grad():
        segmenter.head.classifier.weight.mul_(factor * 1e6)
    config = configured(weights=str(tmp_path / "weights"), precision=precision, device="cpu")
    checkpoints.save(segmenter, tmp_path / "weights", config.model.classes, trained=True)
    with pytest.raises(error, match=sentence):
        Predictor(config).predict(grids_of(geometry=SMALL))


PROGRAM = """
import sys
sys.path[:0] = {path!r}
from gemini_core.predictor import Predictor
from grids import configured, digest, grids_of
print(digest(Predictor(configured(seed=5, threads=2)).predict(grids_of()).mask))
"""


def test_same_grids_give_the_same_mask_on_every_call_thread_and_process():
    predictor = Predictor(configured(seed=5, threads=2))
    first = predictor.predict(grids_of()).mask
    predictor.predict(grids_of(seed=1))
    masks = [predictor.predict(grids_of()).mask, Predictor(configured(seed=5, threads=2)).predict(grids_of()).mask]
    thread = threading.Thread(target=lambda: masks.append(predictor.predict(grids_of()).mask))
    thread.start()
    thread.join()
    assert len(masks) == 3
    assert all(np.array_equal(first, mask) for mask in masks)
    program = PROGRAM.format(path=sys.path)
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert other.stdout.strip() == digest(first)


def test_predictor_leaves_the_process_as_it_was():
    random_state, threads = torch.get_rng_state(), torch.get_num_threads()
    Predictor(configured(threads=threads + 1)).predict(grids_of())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.get_num_threads() == threads


def test_untrained_weights_follow_the_seed_and_say_so():
    predictor = Predictor(configured(seed=3, threads=2))
    assert not predictor.trained
    assert predictor.class_names == configured().model.classes
    assert "mit_b0 on rgb+depth, 9 classes" in predictor.describe()
    assert "untrained weights (seed 3), fp32 in torch on" in predictor.describe()
    other = Predictor(configured(seed=4))
    assert not np.array_equal(predictor.predict(grids_of()).mask, other.predict(grids_of()).mask)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_decides_nearly_the_same(precision):
    exact = Predictor(configured(device="cpu")).predict(grids_of()).mask
    half = Predictor(configured(device="cpu", precision=precision)).predict(grids_of()).mask
    assert np.mean(exact == half) > 0.9


def test_rgb_alone_is_enough():
    mask = Predictor(configured(("rgb",))).predict(grids_of()).mask
    assert (mask[:, 25:175] < 9).all()


def test_weights_for_another_robot_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    classes = configured().model.classes
    segmenter = Segmenter(SegmenterConfig("mit_b0", ("rgb", "lidar"), 9))
    checkpoints.save(segmenter, path, classes, trained=True)
    with pytest.raises(
        WeightsError, match=r"weights for modalities rgb, depth as configured, got rgb, lidar in .*weights\.safet"
    ):
        Predictor(configured(weights=str(path)))
    with pytest.raises(WeightsError, match="weights for modalities rgb, lidar, depth as configured, got rgb, lidar in"):
        Predictor(configured(("rgb", "lidar", "depth"), weights=str(path)))
    checkpoints.save(segmenter, path, (*classes[1:], classes[0]), trained=True)
    with pytest.raises(WeightsError, match=r"weights for classes class 0, .* as configured, got class 1, .* in"):
        Predictor(configured(("rgb", "lidar"), weights=str(path)))
    with pytest.raises(WeightsError, match="expected a readable safetensors file"):
        Predictor(configured(weights=str(tmp_path / "none")))


def test_grid_of_another_size_is_refused():
    odd = AlignedGrid("depth", np.zeros((3, 32, 96), np.float32), np.ones((32, 96), bool))
    rgb = grids_of(("rgb",)).grids[0]
    with pytest.raises(ShapeError, match=r"grid of depth: expected channels of shape \(3, 64, 96\)"):
        Predictor(configured()).predict(AlignedGrids(0, 0, "camera", GEOMETRY, None, (rgb, odd), ()))


def test_boxes_are_refused_where_no_weights_find_them():
    with pytest.raises(WeightsError, match=r"detections\.enabled: expected weights with a detector, got untrained ones"):
        Predictor(from_flat({"modalities": ["rgb", "depth"], "detections.enabled": True}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_missing_gpu_is_named():
    with pytest.raises(ConfigError, match=r"model\.device: expected a CUDA device"):
        Predictor(configured(device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_gpu_decides_as_the_cpu_does(precision):
    expected = Predictor(configured(MODALITIES, device="cpu")).predict(grids_of()).mask
    predictor = Predictor(configured(MODALITIES, device="cuda", precision=precision))
    mask = predictor.predict(grids_of()).mask
    assert np.mean(mask == expected) > (0.999 if precision == "fp32" else 0.9)
    assert np.array_equal(mask, predictor.predict(grids_of()).mask)
