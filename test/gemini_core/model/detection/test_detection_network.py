"""The default detector: the released code's numbers, boxes to targets and back, bad input, and a scene learnt by heart."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from gemini_core.errors import ConfigError, ShapeError, WeightsError
from gemini_core.model.detection.boxes import corners_3d, iou_3d_aligned
from gemini_core.model.detection.importing import load_released
from gemini_core.model.detection.interface import Cloud
from gemini_core.model.detection.pillars import codec, losses
from gemini_core.model.detection.pillars.detector import Detector, DetectorConfig, Image, paint
from gemini_core.model.detection.pillars.encoder import BevGrid, PillarEncoder, Points
from gemini_core.model.detection.point_fusion import PointFusion
from gemini_core.model.detection.sampling import map_and_sample, sample
from gemini_core.model.folding import fold_detector
from gemini_core.model.segmentation import Segmenter, SegmenterConfig
from networks import randomize, tiny

GOLDEN = Path(__file__).parents[3] / "golden" / "point_fusion.safetensors"
WIDTHS = (8, 16, 24, 32)  # of the tiny backbone
SIZE = (64, 96)
CLASSES = ("car", "pedestrian")
SMALL = {
    "classes": CLASSES,
    "range_m": (0.0, -9.6, -3.0, 19.2, 9.6, 2.0),
    "cell_m": 0.2,
    "point_widths": (16, 16),
    "bev_widths": (16, 24),
    "bev_depths": (1, 1),
    "head_width": 24,
}


def small(seed=0, **changes):
    torch.manual_seed(seed)
    return Detector(DetectorConfig(**{**SMALL, **changes}), WIDTHS)


def features(batch=1, streams=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = [(math.ceil(SIZE[0] / stride), math.ceil(SIZE[1] / stride)) for stride in (4, 8, 16, 32)]
    levels = [
        torch.randn(streams * batch, width, *size, generator=generator) for width, size in zip(WIDTHS, sizes, strict=True)
    ]
    return Image(levels, SIZE)


def random_cloud(count=500, seed=0, visible=0.5):
    """Points all over the range and beyond, some of them seen."""
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor([-2.0, -11.0, -4.0, 0.0]), torch.tensor([21.0, 11.0, 3.0, 1.0])
    points = low + (high - low) * torch.rand(count, 4, generator=generator)
    pixels = torch.rand(count, 2, generator=generator) * torch.tensor([SIZE[1] - 1.0, SIZE[0] - 1.0])
    return Cloud(points, pixels, torch.rand(count, generator=generator) < visible)


def assert_same_maps(got, expected, tolerance=1e-5):
    for one, other in zip(got, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0.0, atol=tolerance)


# --------------------------------------------------------------------------------------------------------------------
# Point fusion


@pytest.fixture(scope="module")
def recorded():
    with safe_open(GOLDEN, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def test_point_fusion_equals_the_released_code(recorded):
    fusion = load_released(recorded, "weights", str(GOLDEN))
    with torch.no_grad():
        output = fusion(recorded["input.point_features"], recorded["input.image_features_at_points"])
    expected = recorded["output"]
    assert output.shape == expected.shape == (500, 128)
    assert (output - expected).abs().max() <= 1e-5 * expected.std()


def test_released_point_fusion_is_taken_whole_or_not_at_all(recorded):
    missing = {name: tensor for name, tensor in recorded.items() if name != "weights.alpha"}
    with pytest.raises(WeightsError, match=r"1 \(weights.alpha\) missing"):
        load_released(missing, "weights", "here")
    with pytest.raises(WeightsError, match=r"1 \(weights.beta\) unknown"):
        load_released({**recorded, "weights.beta": torch.ones(2)}, "weights", "here")
    with pytest.raises(WeightsError, match=r"here: expected point_norm.weight of shape \(128,\), got \(64,\)"):
        load_released({**recorded, "weights.pts_transform.1.weight": torch.ones(64)}, "weights", "here")


@pytest.mark.parametrize("joining", ["gemini", "none"])
def test_points_that_the_image_does_not_see_are_alone(joining):
    fusion = randomize(PointFusion(12, 6, 8, heads=4, joining=joining)).eval()
    points, image, visible = torch.randn(40, 6), torch.randn(40, 12), torch.arange(40) % 3 == 0
    mixed, seen = fusion(points, image, visible), fusion(points, image)
    torch.testing.assert_close(mixed[visible], seen[visible])
    torch.testing.assert_close(mixed[~visible], fusion.alone(points)[~visible])
    torch.testing.assert_close(fusion(points, torch.randn(40, 12), visible)[~visible], mixed[~visible], rtol=0, atol=0)
    assert not torch.allclose(seen, fusion.alone(points))


def test_a_point_alone_is_fused_with_itself():
    """What the fusion gives where the other side is the point itself plus noise, without the share of the image."""
    fusion = randomize(PointFusion(12, 6, 8, heads=4)).eval()
    points = torch.randn(20, 6)
    own = fusion.point_norm(fusion.point_map(points))
    other = own + fusion.fusion.value_noise[0]
    expected = fusion.fusion(torch.stack((own, other))[:, None])[0, 0].relu()
    torch.testing.assert_close(fusion.alone(points), expected)


def test_without_fusion_both_sides_are_averaged():
    fusion = randomize(PointFusion(12, 6, 8, joining="none")).eval()
    points, image = torch.randn(20, 6), torch.randn(20, 12)
    own, other = fusion.point_norm(fusion.point_map(points)), fusion.image_norm(fusion.image_map(image))
    torch.testing.assert_close(fusion(points, image), (0.5 * (own + other)).relu())


def test_in_training_too_a_point_alone_does_not_depend_on_how_many_are_seen():
    """Norms see all points at once: of some alone they would learn something that is true of neither group."""
    fusion = randomize(PointFusion(12, 6, 8, heads=4)).train()
    points = torch.randn(40, 6) + torch.arange(40)[:, None] / 10
    expected = fusion.alone(points)
    for seen in (0, 2, 30):
        torch.testing.assert_close(fusion.fuse(points, torch.randn(seen, 8))[seen:], expected[seen:])


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_points_can_be_trained_on(count):
    fusion = PointFusion(12, 6, 8, heads=4).train()
    before = fusion.point_norm.running_mean.clone()
    assert fusion(torch.randn(count, 6), torch.randn(count, 12)).shape == (count, 8)
    assert torch.equal(fusion.point_norm.running_mean, before)


# --------------------------------------------------------------------------------------------------------------------
# Sampling


def test_places_keep_their_digits_where_features_are_bf16():
    columns = torch.arange(160.0).expand(1, 90, 160)  # each of them exact in bf16
    pixels = torch.stack((torch.linspace(10.0, 628.0, 500), torch.full((500,), 180.0)), dim=1)
    got = sample(columns.bfloat16(), pixels, (360, 640))[:, 0]
    torch.testing.assert_close(got, (pixels[:, 0] + 0.5) / 4 - 0.5, rtol=0.0, atol=1e-3)


def test_a_pixel_is_sampled_where_its_centre_lies():
    """A level that holds the pixel coordinates of its cells' centres gives pixels back, up to the outermost centres."""
    u, v = torch.meshgrid(torch.arange(24) * 4 + 1.5, torch.arange(16) * 4 + 1.5, indexing="xy")
    pixels = torch.tensor([[1.5, 1.5], [47.0, 20.25], [93.5, 61.5], [10.0, 60.0]])
    torch.testing.assert_close(sample(torch.stack((u, v)), pixels, SIZE), pixels, rtol=0, atol=1e-4)


def test_outside_of_the_outermost_cells_their_values_hold():
    level = torch.arange(6.0).view(1, 2, 3)
    corners = torch.tensor([[-0.5, -0.5], [95.4, -0.4], [-0.5, 63.4], [95.4, 63.4], [-50.0, 500.0]])
    assert sample(level, corners, SIZE)[:, 0].tolist() == pytest.approx([0.0, 2.0, 3.0, 5.0, 3.0], abs=1e-5)


def test_mapping_before_sampling_changes_nothing():
    image, linear = features(batch=2, streams=1), nn.Linear(sum(WIDTHS), 8)
    pixels = torch.rand(50, 2) * torch.tensor([95.0, 63.0])
    counts = [20, 30]
    expected = torch.cat(
        [
            linear(torch.cat([sample(level[index], own, SIZE) for level in image.features], dim=1))
            for index, own in enumerate(pixels.split(counts))
        ]
    )
    torch.testing.assert_close(map_and_sample(image.features, linear, pixels, counts, SIZE), expected)


# --------------------------------------------------------------------------------------------------------------------
# Pillars


def test_a_pillar_holds_the_largest_of_its_points():
    torch.manual_seed(0)
    grid = BevGrid(0.0, -1.0, 0.5, 6, 4)
    encoder = randomize(PillarEncoder(grid, (-1.0, 1.0), 4, (8, 8))).eval()
    points = torch.rand(60, 4) * torch.tensor([4.0, 3.0, 3.0, 1.0]) + torch.tensor([-0.5, -1.5, -1.5, 0.0])
    sample_of = torch.arange(60) % 2
    with torch.no_grad():
        got = encoder(Points(points[:25], sample_of[:25]), Points(points[25:], sample_of[25:]), None, 2)
    assert got.shape == (2, 8, 4, 6)
    expected = torch.zeros_like(got)
    for index in range(2):
        for row in range(4):
            for column in range(6):
                low = torch.tensor([column * 0.5, -1.0 + row * 0.5, -1.0])
                high = low + torch.tensor([0.5, 0.5, 2.0])
                own = points[(sample_of == index) & ((points[:, :3] >= low) & (points[:, :3] < high)).all(1)]
                if len(own) == 0:
                    continue
                scaled = (own[:, :3] - torch.tensor([0.0, -1.0, -1.0])) / torch.tensor([3.0, 2.0, 2.0])
                from_centre = (own[:, :2] - low[:2]) / 0.5 - 0.5
                from_mean = (own[:, :3] - own[:, :3].mean(0)) / torch.tensor([0.5, 0.5, 1.0])
                described = torch.cat((scaled, from_centre, from_mean, own[:, 3:]), dim=1)
                with torch.no_grad():
                    expected[index, :, row, column] = encoder.fusion.alone(encoder.point_layer(described)).amax(0)
    assert expected.count_nonzero() > 50
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


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
# Codec

GRID = BevGrid(-3.0, -8.0, 0.4, 60, 40)
PLACES = st.tuples(
    st.floats(-2.9, 20.9), st.floats(-7.9, 7.9), st.floats(-3, 3), *[st.floats(0.2, 12.0)] * 3, st.floats(-math.pi, math.pi)
)


def as_boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 7)


def perfect(targets, log_variance=None):
    """What a head would say that knows everything."""
    return codec.BevMaps(torch.logit(targets.heat, eps=1e-6), targets.boxes, log_variance)


def distance(a, b):
    """Largest distance of corners, metres: turned by a whole turn they are the same, by half a turn not."""
    return (corners_3d(a) - corners_3d(b)).norm(dim=2).amax(1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(PLACES, st.integers(0, 2)), min_size=1, max_size=12))
def test_boxes_come_back_from_perfect_maps(labelled):
    boxes, classes = as_boxes(*[box for box, _ in labelled]), torch.tensor([name for _, name in labelled])
    cells = GRID.place(boxes[:, :2]).floor().tolist()
    first = [index for index, cell in enumerate(cells) if cell not in cells[:index]]  # one box a cell can be told
    boxes, classes = boxes[first], classes[first]
    targets = codec.encode([boxes], [classes], GRID, 3)
    assert targets.labels == codec.LabelCounts(used=len(boxes))
    (found,) = codec.decode(perfect(targets), GRID, min_score=0.9, max_iou=1.0)
    assert len(found.boxes) == len(boxes)
    for box, name in zip(boxes, classes, strict=True):
        same = found.boxes[found.classes == name]
        assert distance(same, box.expand(same.shape)).min() < 2e-3  # of boxes up to 12 m, in float32


def test_batches_are_told_apart_and_the_best_come_first():
    first, second = as_boxes((5, 0, 0, 4, 2, 1.5, 0.3)), as_boxes((9, 3, 0, 0.8, 0.6, 1.7, -2), (2, 1, 1, 4, 2, 1.5, 3))
    targets = codec.encode([first, second], [torch.tensor([0]), torch.tensor([1, 0])], GRID, 2)
    maps = perfect(targets)
    column, row = GRID.place(second[0, :2]).long().tolist()
    maps.heat[1, 1, row, column] = 1.0
    one, two = codec.decode(maps, GRID)
    assert distance(one.boxes, first).max() < 1e-4
    assert two.classes.tolist() == [0, 1]
    assert distance(two.boxes, second.flip(0)).max() < 1e-4
    assert two.scores[1] == pytest.approx(torch.tensor(1.0).sigmoid().item())
    (few,) = codec.decode(codec.BevMaps(*(m[1:] for m in maps[:2])), GRID, max_boxes=1)
    assert few.classes.tolist() == [0]
    assert all(len(found.boxes) == 0 for found in codec.decode(maps, GRID, min_score=1.0))


def test_a_worse_box_on_a_better_one_is_left_out():
    boxes = as_boxes((5, 0, 0, 4, 2, 1.5, 0), (6.2, 0, 0, 4, 2, 1.5, 0))  # 2.8 of 5.2 m shared
    targets = codec.encode([boxes], [torch.tensor([0, 0])], GRID, 2)
    assert len(codec.decode(perfect(targets), GRID, max_iou=0.5)[0].boxes) == 1
    assert len(codec.decode(perfect(targets), GRID, max_iou=0.6)[0].boxes) == 2
    other = codec.encode([boxes], [torch.tensor([0, 1])], GRID, 2)
    assert len(codec.decode(perfect(other), GRID, max_iou=0.5)[0].boxes) == 2


def test_label_boxes_that_cannot_be_used_are_counted():
    boxes = as_boxes(
        (5, 0, 0, 4, 2, 1.5, 0),
        (5, 0, 0, 0, 2, 1.5, 0),
        (5, 0, 0, 4, -2, 1.5, 0),
        (5, 0, math.nan, 4, 2, 1.5, 0),
        (30, 0, 0, 4, 2, 1.5, 0),
        (5, -8.01, 0, 4, 2, 1.5, 0),
        (5.1, 0.1, 0, 4, 2, 1.5, 0),
        (10, 0, 0, 4, 2, 1.5, 0),
    )
    classes = torch.tensor([0, 0, 0, 0, 0, 0, 0, codec.IGNORED])
    targets = codec.encode([boxes, boxes[:1]], [classes, classes[:1]], GRID, 1)
    assert targets.labels == codec.LabelCounts(used=2, ignored=1, not_real=3, out_of_range=2, same_cell=1)
    assert (targets.heat == 1).sum() == 2
    assert all(maps.isfinite().all() for maps in targets[:4])
    # nothing counts in the ignored box, and everything around it
    columns, rows = [
        GRID.place(torch.tensor(place)).long().T.tolist() for place in ([(8.2, -0.8), (11.8, 0.8)], [(7.7, 0), (10, 1.4)])
    ]
    assert targets.counted[0, 0][columns[1], columns[0]].tolist() == [0, 0]
    assert targets.counted[0, 0][rows[1], rows[0]].tolist() == [1, 1]
    assert (targets.counted[0] == 0).sum() == 11 * 6  # 4 x 2 m of 0.4 m cells whose centres lie in it, faces included
    assert targets.counted[1].all()


def test_no_label_boxes_are_a_lesson_too():
    targets = codec.encode([as_boxes()], [torch.zeros(0, dtype=torch.long)], GRID, 2)
    assert not targets.heat.any()
    heat = torch.full_like(targets.heat, -4.0, requires_grad=True)
    loss = losses.detection_loss(codec.BevMaps(heat, torch.ones_like(targets.boxes)), targets, 0.4)
    loss.total.backward()
    assert loss.box == 0
    assert (heat.grad > 0).all()


@pytest.mark.parametrize(
    ("boxes", "classes", "message"),
    [
        (torch.zeros(2, 6), torch.zeros(2), r"expected boxes \(N, 7\) and classes \(N,\), got \(2, 6\) and \(2,\)"),
        (torch.ones(2, 7), torch.zeros(3), r"got \(2, 7\) and \(3,\)"),
        (torch.ones(2, 7), torch.tensor([0, 2]), r"expected classes from -1 \(ignored\) to 1, got 2"),
        (torch.ones(2, 7), torch.tensor([0, -2]), r"got -2"),
    ],
)
def test_labels_that_are_none_are_refused(boxes, classes, message):
    with pytest.raises(ShapeError, match=message):
        codec.encode([boxes], [classes], GRID, 2)


# --------------------------------------------------------------------------------------------------------------------
# Losses


def test_heat_loss_by_hand():
    """p = 1/2 everywhere: (1/4) log 2 at the centre, (1 - heat)^4 (1/4) log 2 elsewhere, per centre."""
    heat = torch.tensor([1.0, 0.5, 0.0, 0.0]).view(1, 1, 2, 2)
    counted = torch.tensor([1.0, 1.0, 1.0, 0.0]).view(1, 1, 2, 2)
    loss = losses.heat_loss(torch.zeros_like(heat), heat, counted)
    assert loss.item() == pytest.approx(0.25 * math.log(2) * (1 + 0.5**4 + 1))


def test_a_perfect_head_has_no_loss():
    boxes = as_boxes((5, 0, 0, 4, 2, 1.5, 0.3), (9, 3, 0, 0.8, 0.6, 1.7, -2))
    targets = codec.encode([boxes], [torch.tensor([0, 1])], GRID, 2)
    sure = codec.BevMaps(torch.where(targets.heat == 1, 20.0, -20.0), targets.boxes)
    assert losses.detection_loss(sure, targets, 0.4).total < 1e-6


def test_which_way_is_forward_is_a_loss_of_its_own():
    boxes = as_boxes((5, 0, 0, 4, 2, 1.5, 0.3))
    turned = boxes + torch.tensor([0, 0, 0, 0, 0, 0, math.pi])
    targets, wrong = (codec.encode([each], [torch.tensor([0])], GRID, 1) for each in (boxes, turned))
    loss = losses.detection_loss(perfect(wrong), targets, 0.4)
    assert loss.box == 0
    assert loss.axis < 1e-6
    assert loss.heading > 1.0


def test_the_variance_that_is_most_likely_is_what_boxes_are_off_by():
    boxes = as_boxes((5.0, 0.1, 0.5, 4, 2, 1.5, 0.3))
    moved = boxes + torch.tensor([0.1, -0.05, 0.2, 0, 0, 0, 0.15])
    targets, off = (codec.encode([each], [torch.tensor([0])], GRID, 1) for each in (boxes, moved))
    assert torch.equal(targets.heat, off.heat)
    wanted = torch.tensor([0.1, 0.05, 0.2, 0.15]).square().log().view(1, 4, 1, 1)
    log_variance = wanted.expand(1, 4, GRID.rows, GRID.columns).clone().requires_grad_()
    loss = losses.detection_loss(perfect(off, log_variance), targets, GRID.cell_m)
    (slope,) = torch.autograd.grad(loss.variance, log_variance)
    assert slope.abs().max() < 1e-4
    (found,) = codec.decode(perfect(off, log_variance.detach()), GRID, min_score=0.9)
    assert found.variances[0].tolist() == pytest.approx([0.01, 0.0025, 0.04, 0.0225], rel=1e-4)


def test_a_loss_does_not_count_less_than_nothing():
    with pytest.raises(ConfigError, match="loss weight axis: expected 0 or more, got -1"):
        losses.LossWeights(axis=-1)


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


def test_both_networks_share_a_backbone():
    segmenter = tiny(3).eval()
    detector = small().eval()
    images = torch.randn(3, 3, *SIZE)
    with torch.no_grad():
        seen = segmenter.backbone(images)
        assert detector([random_cloud()], Image(seen, SIZE)).heat.isfinite().all()
        alone = segmenter.backbone(images[:1], (0,))
        assert detector([random_cloud()], Image(alone, SIZE)).heat.isfinite().all()


@pytest.mark.parametrize("painted", [False, True])
@pytest.mark.parametrize("fusion", ["lidar", "none", "gemini"])
def test_boxes_are_the_same_where_no_masks_are_wanted(fusion, painted):
    segmenter = tiny(2, detector=DetectorConfig(**{**SMALL, "fusion": fusion, "painted": painted})).eval()
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(1, 3, *SIZE, generator=generator) for _ in range(2)]
    both = segmenter(images, clouds=[random_cloud()])
    if fusion == "lidar" or not painted:
        segmenter.head.forward = None  # what is not wanted is not computed
    if fusion == "lidar":
        segmenter.backbone.forward = None
    boxes = segmenter(images, clouds=[random_cloud()], masks=False)
    assert boxes.streams == ()
    assert boxes.ensemble.shape == (1, segmenter.config.num_classes, 0, 0)
    for ours, theirs in zip(boxes.boxes, both.boxes, strict=True):
        if ours is not None:
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("modalities", [1, 3])
@pytest.mark.parametrize("painted", [False, True])
def test_what_the_masks_say_reaches_the_boxes_of_a_painted_detector_alone(painted, modalities):
    segmenter = randomize(tiny(modalities, detector=DetectorConfig(**{**SMALL, "painted": painted})), std=0.2).eval()
    images = [torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(modality)) for modality in range(modalities)]
    clouds = [random_cloud(), random_cloud(seed=1)]
    with torch.no_grad():
        before = segmenter(images, clouds=clouds)
        segmenter.head.classifier.bias[0] += 3.0
        after = segmenter(images, clouds=clouds)
        alone = segmenter(images, [True] + [False] * (modalities - 1), clouds=clouds)
    assert torch.equal(before.boxes.heat, after.boxes.heat) == (not painted)
    assert alone.boxes.heat.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_paint_is_the_logarithm_of_probabilities_above_a_thousandth(dtype):
    shares = torch.tensor([0.9, 0.0991, 0.0009])
    got = paint((shares.log() + 5.0)[None, :, None, None].to(dtype))[0, :, 0, 0]
    assert got.dtype == torch.float32
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(got, torch.tensor([math.log(900), math.log(99.1), 0.0]), rtol=tolerance, atol=tolerance)


def test_a_painted_detector_samples_the_paint_of_the_ensemble():
    segmenter = randomize(tiny(2, detector=DetectorConfig(**{**SMALL, "painted": True})), std=0.2).eval()
    images = [torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(modality)) for modality in range(2)]
    cloud = random_cloud()
    logits = 5 * torch.randn(2, segmenter.config.num_classes, SIZE[0] // 4, SIZE[1] // 4)  # streams that differ much
    segmenter.head.forward = lambda features: logits[: len(features[0])]
    with torch.no_grad():
        segmenter.detector.pillars.fusion.image_map.weight *= 20.0
        output = segmenter.quarter_logits(images, clouds=[cloud])
        seen = segmenter.backbone(torch.cat(images))
        expected = segmenter.detector([cloud], Image(seen, SIZE, paint(output.ensemble)))
        other = segmenter.detector([cloud], Image(seen, SIZE, paint(output.streams[1])))
        alone = segmenter.quarter_logits(images, [True, False], clouds=[cloud])
        expected_alone = segmenter.detector([cloud], Image(segmenter.backbone(images[0], (0,)), SIZE, paint(logits[:1])))
    assert_same_maps(output.boxes, expected)
    assert (other.heat - expected.heat).abs().max() > 1e-3
    assert_same_maps(alone.boxes, expected_alone)


def test_boxes_teach_masks_nothing_by_painting():
    segmenter = tiny(1, detector=DetectorConfig(**{**SMALL, "painted": True}))
    boxes = segmenter([torch.randn(2, 3, *SIZE)], clouds=[random_cloud(), random_cloud(seed=1)], masks=False).boxes
    boxes.heat.sum().backward()
    assert all(parameter.grad is None for parameter in segmenter.head.parameters())
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in segmenter.backbone.parameters())


@pytest.mark.parametrize(
    ("painted", "shape", "message"),
    [
        (True, None, r"expected \(1, 5, 16, 24\), got none"),
        (True, (2, 5, 16, 24), r"expected \(1, 5, 16, 24\), got \(2, 5, 16, 24\)"),
        (True, (1, 4, 16, 24), r"expected \(1, 5, 16, 24\), got \(1, 4, 16, 24\)"),
        (True, (1, 5, 16), r"expected \(1, 5, 16, 24\), got \(1, 5, 16\)"),
        (True, (1, 5, 64, 96), r"expected \(1, 5, 16, 24\), got \(1, 5, 64, 96\)"),
        (False, (1, 5, 16, 24), r"expected none, got \(1, 5, 16, 24\)"),
    ],
)
def test_paint_of_another_shape_is_refused(painted, shape, message):
    detector = Detector(DetectorConfig(**{**SMALL, "painted": painted}), WIDTHS, 5)
    image = features()._replace(paint=None if shape is None else torch.zeros(shape))
    with pytest.raises(ShapeError, match="detector paint of the masks: " + message):
        detector([random_cloud()], image)


def test_a_painted_detector_needs_the_number_of_classes():
    message = "detector num_classes: expected those of the masks for a painted detector, got 0"
    with pytest.raises(ConfigError, match=message):
        Detector(DetectorConfig(**{**SMALL, "painted": True}), WIDTHS)
    Detector(DetectorConfig(**{**SMALL, "painted": True, "fusion": "lidar"}))  # to which paint is nothing


def test_a_checkpoint_of_both_is_small():
    segmenter = Segmenter(SegmenterConfig("mit_b0", ("rgb", "depth", "event", "lidar"), 13))
    config = DetectorConfig(("car", "pedestrian", "truck", "two_wheeler", "table", "chair", "cabinet"), covariance=True)
    detector = Detector(config, segmenter.config.backbone_config.widths)
    numbers = sum(tensor.numel() for module in (segmenter, detector) for tensor in module.state_dict().values())
    assert 2 * numbers < 25e6


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
