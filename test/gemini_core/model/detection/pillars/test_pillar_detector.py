"""The pillar detector: gradients, batches, export, bad input, and a scene learnt by heart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from gemini_core.errors import ConfigError, ShapeError
from gemini_core.model.detection.boxes import iou_3d_aligned
from gemini_core.model.detection.interface import Cloud
from gemini_core.model.detection.pillars import losses
from gemini_core.model.detection.pillars.detector import Detector, DetectorConfig, Image
from gemini_core.model.detection.pillars.encoder import BevGrid, Points
from gemini_core.model.folding import fold_detector
from networks import randomize
from pillar_detectors import SIZE, SMALL, WIDTHS, as_boxes, assert_same_maps, features, random_cloud, small

# --------------------------------------------------------------------------------------------------------------------
# Pillars


def test_points_that_do_not_count_change_nothing():
    """Behind ``maps`` they are there still, so that a graph can be filled up to a fixed number of points."""
    detector = randomize(small(), std=0.2).eval()
    cloud, image = random_cloud(), features()
    wrong = torch.tensor([[math.nan, 0, 0, 1], [5, math.inf, 0, 1], [5, 0, -math.inf, 1], [-0.1, 0, 0, 1], [19.2, 0, 0, 1]])
    with torch.no_grad():
        expected = detector([cloud], image)
        seen, pixels, counts, rest = detector._sort([cloud], image)
        padded = [
            Points(torch.cat((own.values, wrong)), torch.cat((own.sample, own.sample.new_zeros(5)))) for own in (seen, rest)
        ]
        at = torch.cat((pixels, torch.zeros(5, 2)))
        assert_same_maps(detector.maps(padded[0], at, [counts[0] + 5], padded[1], image), expected)
        more = Cloud(
            torch.cat((wrong, cloud.points)),
            torch.cat((torch.zeros(5, 2), cloud.pixels)),
            torch.cat((torch.ones(5, dtype=torch.bool), cloud.visible)),
        )
        assert_same_maps(detector([more], image), expected)


def test_an_unknown_intensity_is_zero():
    detector = randomize(small(fusion="lidar"), std=0.2).eval()
    points = random_cloud().points
    unknown, zero = points.clone(), points.clone()
    unknown[:, 3], zero[:, 3] = math.nan, 0.0
    with torch.no_grad():
        assert_same_maps(detector([Cloud(unknown)]), detector([Cloud(zero)]))


# --------------------------------------------------------------------------------------------------------------------
# The detector


def loss_of(detector, clouds, image, boxes, classes):
    maps = detector(clouds, image)
    return losses.detection_loss(maps, detector.targets(boxes, classes), detector.config.head_grid.cell_m).total


@pytest.mark.parametrize("fusion", ["gemini", "none", "lidar"])
def test_gradients_reach_every_parameter_and_the_image(fusion):
    detector = small(fusion=fusion, covariance=True).train()
    image = features(batch=2)
    for level in image.features:
        level.requires_grad_()
    boxes = [as_boxes((5, 0, 0, 4, 2, 1.5, 0.3)), as_boxes((9, 3, 0, 0.8, 0.6, 1.7, -2))]
    classes = [torch.tensor([0]), torch.tensor([1])]
    loss_of(detector, [random_cloud(seed=1), random_cloud(seed=2)], image, boxes, classes).backward()
    without = [name for name, parameter in detector.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert without == []
    assert all((level.grad is not None and level.grad.any()) == (fusion != "lidar") for level in image.features)


def test_only_what_a_fusion_needs_is_built():
    assert not [name for name, _ in small(fusion="lidar").named_parameters() if "image" in name or ".fusion.fusion" in name]
    assert not [name for name, _ in small(fusion="none").named_parameters() if ".fusion.fusion" in name]
    assert Detector(DetectorConfig(**{**SMALL, "fusion": "lidar"}))([random_cloud()]).heat.shape == (1, 2, 48, 48)


CLOUDS = {
    "empty": Cloud(torch.zeros(0, 4), torch.zeros(0, 2), torch.zeros(0, dtype=torch.bool)),
    "nothing finite": Cloud(torch.full((9, 4), math.nan), torch.zeros(9, 2), torch.ones(9, dtype=torch.bool)),
    "nothing in range": Cloud(torch.full((9, 4), 99.0), torch.zeros(9, 2), torch.ones(9, dtype=torch.bool)),
    "one point": Cloud(torch.ones(1, 4), torch.zeros(1, 2), torch.ones(1, dtype=torch.bool)),
    "no pixels": Cloud(random_cloud().points),
    "none in the image": random_cloud(visible=0.0),
    "all in the image": random_cloud(visible=1.0),
}


@pytest.mark.parametrize("fusion", ["gemini", "none", "lidar"])
@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("training", [False, True])
def test_any_cloud_gives_finite_maps(name, fusion, training):
    detector = small(fusion=fusion).train(training)
    maps = detector([CLOUDS[name]], features())
    assert maps.heat.shape == (1, 2, 48, 48)
    assert maps.boxes.shape == (1, 10, 48, 48)
    assert maps.heat.isfinite().all()
    assert maps.boxes.isfinite().all()
    (found,) = detector.find(maps)
    assert found.boxes.isfinite().all()


def test_half_a_million_points():
    detector = small().eval()
    with torch.inference_mode():
        maps = detector([random_cloud(500_000)], features())
    assert maps.heat.isfinite().all()


def test_the_image_matters_where_it_sees_points_only():
    detector = randomize(small(), std=0.2).eval()
    hidden, seen = random_cloud(visible=0.0), random_cloud(visible=1.0)
    with torch.no_grad():
        assert_same_maps(detector([hidden], features(seed=0)), detector([hidden], features(seed=1)), 0.0)
        assert_same_maps(detector([hidden], features()), detector([hidden]), 0.0)
        assert not torch.allclose(detector([seen], features(seed=0)).heat, detector([seen], features(seed=1)).heat)
        # a point that is said to be seen beside the image is not
        for beside in ((-0.6, 5.0), (96.0, 5.0), (5.0, 63.6), (math.nan, 5.0)):
            cloud = Cloud(seen.points, torch.tensor(beside).expand(500, 2), seen.visible)
            assert_same_maps(detector([cloud], features()), detector([hidden], features()), 0.0)


@pytest.mark.parametrize("streams", [1, 2])
def test_a_batch_is_its_samples(streams):
    detector = randomize(small(), std=0.2).eval()
    image, clouds = features(batch=3, streams=streams), [random_cloud(300, 1), CLOUDS["empty"], random_cloud(500, 2)]
    with torch.no_grad():
        together = detector(clouds, image)
        for index, cloud in enumerate(clouds):
            own = Image([level.view(streams, 3, *level.shape[1:])[:, index] for level in image.features], SIZE)
            alone = detector([cloud], own)
            assert_same_maps(alone, (together.heat[index : index + 1], together.boxes[index : index + 1], None))


def test_the_order_of_points_does_not_matter():
    detector, cloud = randomize(small(), std=0.2).eval(), random_cloud()
    order = torch.randperm(500)
    with torch.no_grad():
        assert_same_maps(detector([Cloud(*(each[order] for each in cloud))], features()), detector([cloud], features()))


@pytest.mark.parametrize("fusion", ["gemini", "none", "lidar"])
def test_the_inference_form_says_the_same(fusion):
    detector = small(fusion=fusion, covariance=True)
    for seed in range(3):  # norms learn what is usual
        detector.train()([random_cloud(seed=seed)], features(seed=seed))
    detector.eval()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    folded = fold_detector(detector)
    with torch.no_grad():
        expected = detector([random_cloud()], features())
        assert_same_maps(folded([random_cloud()], features()), expected)
        assert_same_maps(folded([random_cloud()]), detector([random_cloud()]))
    assert not [module for module in folded.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())


class Graph(nn.Module):
    """Tensors in, tensors out, of fixed numbers of points; those that there are not are filled up with NaN."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, seen, pixels, rest, *levels):
        first, second = (Points(each, torch.zeros(len(each), dtype=torch.long)) for each in (seen, rest))
        maps = self.detector.maps(first, pixels, [len(seen)], second, Image(levels, SIZE))
        return maps.heat, maps.boxes


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An ONNX file of it, inputs, and what torch makes of them."""
    pytest.importorskip("onnxscript")
    detector = fold_detector(randomize(small(), std=0.2).eval())
    cloud, image = random_cloud(), features()
    path = tmp_path_factory.mktemp("detector") / "detector.onnx"
    with torch.no_grad():
        seen, pixels, _, rest = detector._sort([cloud], image)
        assert len(seen.values) < 300 > len(rest.values)
        filled = [torch.cat((own.values, torch.full((300 - len(own.values), 4), math.nan))) for own in (seen, rest)]
        at = torch.cat((pixels, torch.zeros(300 - len(pixels), 2)))
        inputs = (filled[0], at, filled[1], *image.features)
        torch.onnx.export(Graph(detector).eval(), inputs, path, dynamo=True, opset_version=18, verbose=False)
        return path, [each.numpy() for each in inputs], detector([cloud], image)


def test_it_runs_in_onnx_runtime(exported):
    onnxruntime = pytest.importorskip("onnxruntime")
    path, inputs, expected = exported
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    got = session.run(None, {each.name: value for each, value in zip(session.get_inputs(), inputs, strict=True)})
    assert_same_maps([torch.from_numpy(each) for each in got], expected[:2], 1e-4)


def test_it_runs_in_openvino(exported):
    """By way of ONNX: of torch's own graphs OpenVINO 2026.4 does not read the scattering of maxima."""
    openvino = pytest.importorskip("openvino")
    path, inputs, expected = exported
    compiled = openvino.compile_model(openvino.convert_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    got = compiled(inputs)
    assert_same_maps([torch.from_numpy(got[index].copy()) for index in range(2)], expected[:2], 1e-4)


# --------------------------------------------------------------------------------------------------------------------
# A scene learnt by heart


def surface(box, count, rng):
    """Points on a box's sides and top."""
    places = rng.uniform(-0.5, 0.5, (count, 3))
    axis = rng.integers(0, 3, count)
    places[np.arange(count), axis] = np.where(axis == 2, 0.5, np.sign(places[np.arange(count), axis]) * 0.5)
    x, y, z = (places * box[3:6]).T
    cos, sin = math.cos(box[6]), math.sin(box[6])
    return np.stack([box[0] + cos * x - sin * y, box[1] + sin * x + cos * y, box[2] + z], axis=1)


def scene(seed=0):
    """Two cars and two pedestrians on the ground, from a camera that looks along x."""
    rng = np.random.default_rng(seed)
    boxes = np.array(
        [
            (8.0, 3.0, -0.8, 4.2, 1.8, 1.6, 0.4),
            (12.5, -3.5, -0.9, 3.9, 1.7, 1.4, -2.2),
            (6.0, -2.0, -0.7, 0.7, 0.6, 1.8, 1.3),
            (14.0, 4.5, -0.75, 0.8, 0.7, 1.7, 3.0),
        ]
    )
    ground = np.stack([rng.uniform(1, 19, 3000), rng.uniform(-9, 9, 3000), rng.normal(-1.6, 0.02, 3000)], axis=1)
    points = np.vstack([ground, *(surface(box, 250, rng) for box in boxes)])
    pixels = np.stack([47.5 - 48 * points[:, 1] / points[:, 0], 31.5 - 48 * points[:, 2] / points[:, 0]], axis=1)
    inside = ((pixels > -0.5) & (pixels < (SIZE[1] - 0.5, SIZE[0] - 0.5))).all(1)
    values = np.hstack([points, rng.uniform(0, 1, (len(points), 1))])
    tensors = [torch.from_numpy(each).float() for each in (values, pixels)]
    return Cloud(tensors[0], tensors[1], torch.from_numpy(inside)), torch.from_numpy(boxes).float(), torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize("fusion", ["gemini", "none", "lidar"])
def test_a_scene_can_be_learnt_by_heart(fusion):
    cloud, boxes, classes = scene()
    detector, image = small(fusion=fusion), features()
    assert 1000 < cloud.visible.sum() < len(cloud.points)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=0.01)
    steps = 120
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(detector, [cloud], image, [boxes], [classes]).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        (found,) = detector.eval().find(detector([cloud], image), min_score=0.3)
    assert sorted(found.classes.tolist()) == [0, 0, 1, 1]
    for box, name in zip(boxes, classes, strict=True):
        same = found.boxes[found.classes == name]
        overlap = iou_3d_aligned(same, box.expand(same.shape))
        assert overlap.max() >= 0.7
        turned = same[overlap.argmax(), 6] - box[6]
        assert math.cos(turned) > 0.9  # and forward is forward


# --------------------------------------------------------------------------------------------------------------------
# Configurations and shapes that cannot be


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ()}, r"detector classes: expected at least one name and each once, got \[\]"),
        ({"classes": ("car", "car")}, r"each once, got \['car', 'car'\]"),
        ({"fusion": "sum"}, "detector fusion: expected one of gemini, none, lidar, got 'sum'"),
        ({"range_m": (0.0, 0.0, 0.0, 1.0)}, "detector range_m: expected six numbers"),
        ({"range_m": (0.0, 0.0, 0.0, math.inf, 1.0, 1.0)}, "detector range_m: expected six numbers"),
        ({"range_m": (0.0, 2.0, 0.0, 1.0, 1.0, 1.0)}, "expected the least y below the largest, got 2 and 1"),
        ({"cell_m": 0.0}, "detector cell_m: expected metres above 0, got 0"),
        ({"cell_m": 0.001}, "detector cell_m: expected at most 2048 cells a side, got 19200 of 0.001 m"),
        ({"image_levels": ()}, r"detector image_levels: expected some of 0 to 3, rising, got \[\]"),
        ({"image_levels": (1, 0)}, r"rising, got \[1, 0\]"),
        ({"image_levels": (4,)}, r"got \[4\]"),
        ({"point_columns": 2}, r"detector point_columns: expected 3 \(x, y, z\) or more, got 2"),
        ({"point_widths": (8,)}, r"detector point_widths: expected two numbers, got \[8\]"),
        ({"point_widths": (8, 0)}, r"detector point_widths: expected 1 or more, got \(8, 0\)"),
        ({"point_widths": (8, 10)}, "detector fusion_heads: expected a divisor of the width 10, got 4"),
        ({"bev_depths": (1,)}, r"detector bev_depths: expected one number from 0 up for each of bev_widths, got \[1\]"),
        ({"bev_depths": (1, -1)}, r"got \[1, -1\] for \[16, 24\]"),
        ({"head_width": 0}, "detector head_width: expected 1 or more, got 0"),
    ],
)
def test_wrong_configurations_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        DetectorConfig(**{**SMALL, **changes})


def test_a_fusion_needs_a_backbone():
    with pytest.raises(
        ConfigError, match=r"image_widths: expected those of the stages \[0, 1, 2, 3\] for fusion gemini, got \[\]"
    ):
        Detector(DetectorConfig(**SMALL))


@pytest.mark.parametrize(
    ("clouds", "image", "message"),
    [
        ([], None, "detector clouds: expected one for each sample of a batch, got none"),
        ([Cloud(torch.zeros(5, 3))], None, r"detector points: expected \(N, 4\), got \(5, 3\)"),
        ([Cloud(torch.zeros(5, 4), torch.zeros(4, 2))], None, r"detector pixels: expected \(5, 2\) for 5 points, got \(4, 2\)"),
        (
            [Cloud(torch.zeros(5, 4), None, torch.zeros(5, 1))],
            None,
            r"detector visible: expected \(5,\) for 5 points, got \(5, 1\)",
        ),
        ([random_cloud()], features(batch=3), r"features of stage 0: expected \(1 or 2, 8, h, w\), got \(6, 8, 16, 24\)"),
        (
            [random_cloud()],
            Image(features().features[:2], SIZE),
            r"features of stage 2: expected \(1 or 2, 24, h, w\), got none",
        ),
    ],
)
def test_wrong_shapes_are_refused(clouds, image, message):
    with pytest.raises(ShapeError, match=message):
        small()(clouds, image)


def test_a_range_that_cells_do_not_divide_is_covered():
    config = DetectorConfig(**{**SMALL, "range_m": (0.0, -1.0, 0.0, 1.05, 1.0, 1.0)})
    assert config.pillar_grid == BevGrid(0.0, -1.0, 0.2, 6, 10)
    assert config.head_grid == BevGrid(0.0, -1.0, 0.4, 3, 5)
    assert Detector(config, WIDTHS)([random_cloud()]).heat.shape == (1, 2, 5, 3)
