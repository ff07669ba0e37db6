"""Pictures say what the arrays say; the demo's page holds every number and every picture."""

from __future__ import annotations

import dataclasses
import html
import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_core import render
from gemini_core.config.sections import ModelConfig
from gemini_core.errors import DataError
from gemini_core.files import write_png
from gemini_core.tables import Distribution, Finding
from gemini_core.types import (
    UNLABELLED,
    AlignedGrid,
    AlignedGrids,
    Count,
    FrameHeader,
    GridGeometry,
    ModalityStatus,
    Perception,
)
from gemini_ros.tools.demo_report import DemoReport, Fact, FrameRow, Picture, render_demo_page

HEIGHT, WIDTH = 48, 64
HEADER = FrameHeader(0, 0, "camera", ())
CLASSES = ModelConfig().classes


def make_grids(width: int = WIDTH, lidar: bool = True) -> AlignedGrids:
    shape = (HEIGHT, width)
    colour = np.zeros((3, *shape), np.float32)
    colour[0, :, width // 2 :] = 1.0
    depth_m = np.full(shape, np.nan, np.float32)
    depth_m[:, 4:20] = np.linspace(1.0, 10.0, 16, dtype=np.float32)
    points = np.full(shape, np.nan, np.float32)
    points[10, 10], points[30, 40] = 2.0, 40.0
    events = np.zeros((3, *shape), np.float32)
    events[0, 5, 5] = events[2, 6, 6] = events[0, 7, 7] = events[2, 7, 7] = 1.0
    zeros = np.zeros((3, *shape), np.float32)
    grids = [
        AlignedGrid("rgb", colour, np.ones(shape, bool)),
        AlignedGrid("depth", zeros, np.isfinite(depth_m), depth_m),
        AlignedGrid("event", events, events.any(axis=0)),
    ]
    status = [ModalityStatus(grid.modality, present=True, reason="", skew_ns=0) for grid in grids]
    if lidar:
        grids.append(AlignedGrid("lidar", zeros, np.isfinite(points), points))
        status.append(ModalityStatus("lidar", present=True, reason="", skew_ns=0))
    else:
        status.append(ModalityStatus("lidar", present=False, reason="never_seen", skew_ns=None, detail="no sample"))
    geometry = GridGeometry(width, HEIGHT, width, HEIGHT, 0, 0, width, HEIGHT)
    return AlignedGrids(FrameHeader(0, 0, "camera", tuple(status)), geometry, None, tuple(grids))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=60, unique=True))
def test_every_class_has_a_colour_and_the_same_one_again(names):
    colours = render.palette(names)
    assert colours.shape == (256, 3)
    assert colours.dtype == np.uint8
    assert np.array_equal(colours, render.palette(names))
    assert len({tuple(colour) for colour in colours[: len(names)]}) == len(names)
    assert (colours[: len(names)].max(axis=1) > 0).all()
    assert not colours[len(names) :].any()


def test_default_classes_keep_their_colours_in_any_order():
    colours = render.palette(CLASSES)
    backwards = render.palette(CLASSES[::-1])
    assert len({tuple(colour) for colour in colours[: len(CLASSES)]}) == len(CLASSES)
    for index, name in enumerate(CLASSES):
        assert tuple(colours[index]) == render.CLASS_COLORS[name]
        assert tuple(backwards[len(CLASSES) - 1 - index]) == render.CLASS_COLORS[name]


def test_overlay_mixes_colours_and_leaves_undecided_pixels():
    image = np.full((4, 6, 3), 100, np.uint8)
    mask = np.full((4, 6), UNLABELLED, np.uint8)
    mask[:, :3] = CLASSES.index("car")
    perception = Perception(HEADER, mask, CLASSES, (), make_grids(), image)
    car = np.array(render.CLASS_COLORS["car"], float)
    assert np.array_equal(render.overlay(perception, 1.0)[0, 0], car)
    assert np.array_equal(render.overlay(perception, 0.0), image)
    half = render.overlay(perception, 0.5)
    assert np.abs(half[0, 0] - (50 + car / 2)).max() <= 1
    assert (half[:, 3:] == 100).all()


def test_depth_colours_go_from_red_near_to_blue_far():
    depth_m = np.full((2, 3), np.nan, np.float32)
    depth_m[0] = [1.0, 4.0, 16.0]
    picture = render.depth_image(depth_m, np.isfinite(depth_m), max_m=16.0).astype(int)
    near, middle, far = picture[0]
    assert near[0] > near[2]
    assert far[2] > far[0]
    assert middle[1] > max(middle[0], middle[2])
    assert (picture[1] == render.NO_DATA_COLOR).all()
    nothing = render.depth_image(depth_m, np.zeros((2, 3), bool))
    assert (nothing == render.NO_DATA_COLOR).all()
    flat = render.depth_image(np.full((2, 3), 5.0, np.float32), np.ones((2, 3), bool))
    assert (flat == flat[0, 0]).all()


def test_near_points_cover_far_ones_and_the_rest_stays_grey():
    depth_m = np.full((20, 20), np.nan, np.float32)
    depth_m[10, 10], depth_m[10, 11] = 30.0, 2.0
    background = np.zeros((20, 20, 3), np.uint8)
    background[..., 1] = 200
    picture = render.points_image(background, depth_m, np.isfinite(depth_m), size_px=3).astype(int)
    covered = (picture != picture[0, 0]).any(axis=2)
    assert covered.sum() == 3 * 4
    assert len({tuple(pixel) for pixel in picture[9:12, 10:13].reshape(-1, 3)}) == 1
    assert (picture[10, 9] != picture[10, 10]).any()
    assert picture[0, 0].min() == picture[0, 0].max() > 0
    empty = render.points_image(background, depth_m, np.zeros_like(depth_m, bool))
    assert (empty == empty[0, 0]).all()


def test_a_voxel_grid_of_events_is_painted_by_what_happened():
    channels = np.full((4, 2, 3), 0.5, np.float32)
    channels[1, 0, 0], channels[2, 0, 1], channels[0, 1, 1], channels[3, 1, 1] = 0.2, 0.9, 0.4, 0.8
    channels[:, 1, 2] = 0.0  # outside the sensor's view
    grid = AlignedGrid("event", channels, channels[0] > 0)
    darker, brighter = np.zeros((2, 3), bool), np.zeros((2, 3), bool)
    darker[0, 0] = brighter[0, 1] = darker[1, 1] = brighter[1, 1] = True
    picture = render.grid_image(AlignedGrids(HEADER, None, None, (grid,)), grid)
    np.testing.assert_array_equal(picture, render.event_image(darker, brighter))


def test_events_are_red_blue_or_both_on_white():
    picture = render.grid_image(make_grids(), make_grids().grids[2])
    assert tuple(picture[5, 5]) == render.DARKER_COLOR
    assert tuple(picture[6, 6]) == render.BRIGHTER_COLOR
    assert tuple(picture[7, 7]) == render.BOTH_COLOR
    assert (picture == 255).all(axis=2).sum() == HEIGHT * WIDTH - 3


@pytest.mark.parametrize(("width", "shape"), [(WIDTH, (2 * HEIGHT, 2 * WIDTH, 3)), (4 * HEIGHT, (4 * HEIGHT, 4 * HEIGHT, 3))])
def test_alignment_has_a_panel_per_modality(width, shape):
    grids = make_grids(width)
    picture = render.alignment(grids)
    assert picture.shape == shape
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    depth = picture[:HEIGHT, width:] if shape[1] > width else picture[HEIGHT : 2 * HEIGHT]
    assert (depth[HEIGHT - 8 :, width // 2 - 2 : width // 2 + 2] == render.EDGE_COLOR).all(axis=2).any()


def test_alignment_shows_what_is_missing():
    with_lidar, without = render.alignment(make_grids()), render.alignment(make_grids(lidar=False))
    assert with_lidar.shape == without.shape
    panel = without[HEIGHT:, WIDTH:]
    assert (panel[HEIGHT // 2 :] == render.NO_DATA_COLOR).all()
    assert (panel != render.NO_DATA_COLOR).any()
    alone = dataclasses.replace(
        make_grids(), grids=(), header=dataclasses.replace(HEADER, status=(ModalityStatus("rgb", False, "late", None),))
    )
    assert render.alignment(alone).shape == (HEIGHT, WIDTH, 3)


def test_pictures_do_not_change_the_grids():
    grids = make_grids()
    before = [grid.channels.copy() for grid in grids.grids]
    render.alignment(grids)
    for grid in grids.grids:
        render.grid_image(grids, grid)
    assert all(np.array_equal(grid.channels, channels) for grid, channels in zip(grids.grids, before, strict=True))


# --------------------------------------------------------------------------------------------------------------------
# The page


def make_report(**changes) -> DemoReport:
    values = {
        "title": "Demo <1>",
        "facts": (Fact("bag", "street & sky"),),
        "trained": False,
        "frames_in": 12,
        "frames_out": 11,
        "frames_skipped": 1,
        "problems": ("one frame has no output",),
        "drops": (Count("frames.skipped_busy", 7),),
        "missing": (Finding("depth", "late", 3, "the newest depth sample is 40.0 ms older"),),
        "doubts": (Finding("lidar", "clock_offset", 11, "the stamps of lidar are 37.0 s ahead of rgb's: TAI against UTC?"),),
        "skews": (Distribution.of("depth", [1.0, 2.0, 3.0]),),
        "stages": (Distribution.of_ns("project", [12_000_000] * 5),),
        "ages": (Distribution.of("age at publish", []),),
        "class_names": CLASSES,
        "frames": (
            FrameRow(0, 1_500_000_000, True, "every sensor", (Picture("RGB", "frames/0.png"),)),
            FrameRow(1, 1_600_000_000, False, "without depth (late)", (Picture("depth", ""),)),
        ),
    }
    return DemoReport(**{**values, **changes})


def test_the_page_holds_everything_and_needs_nothing_else(tmp_path):
    write_png(tmp_path / "frames" / "0.png", np.zeros((4, 4, 3), np.uint8))
    path = render_demo_page(make_report(), tmp_path)
    page = path.read_text()
    plain = html.unescape(re.sub(r"<[^>]+>", " ", page))
    for text in (
        "Demo <1>",
        "street & sky",
        "one frame has no output",
        "never trained",
        "frames.skipped_busy",
        "the newest depth sample is 40.0 ms older",
        "the stamps of lidar are 37.0 s ahead of rgb's: TAI against UTC?",
        "without depth (late)",
        "stamp 1.500 s",
        "lane_marking",
    ):
        assert text in plain
    assert re.search(r"depth\s+3\s+2\.00\s+2\.90\s+2\.98\s+3\.00\s+ms", plain)
    assert re.search(r"project\s+5\s+12\.0\s+12\.0\s+12\.0\s+12\.0\s+ms", plain)
    assert re.search(r"age at publish\s+0\s+–\s+–\s+–\s+–\s+ms", plain)
    assert re.findall(r'(?:src|href)="([^"]+)"', page) == ["frames/0.png"]
    assert "http" not in page
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["frames", "index.html"]


def test_a_good_run_with_trained_weights_says_so(tmp_path):
    page = render_demo_page(make_report(frames=(), problems=(), trained=True), tmp_path).read_text()
    assert "never trained" not in page
    assert "Every frame that could be processed has its output" in page


def test_a_picture_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"frames/0.png"):
        render_demo_page(make_report(), tmp_path)
    assert not (tmp_path / "index.html").exists()
    with pytest.raises(DataError, match="expected a path that can be written"):
        write_png(tmp_path, np.zeros((4, 4, 3), np.uint8))


def test_pngs_keep_red_red(tmp_path):
    image = np.zeros((2, 3, 3), np.uint8)
    image[..., 0] = 200
    write_png(tmp_path / "red.png", image)
    assert cv2.imread(str(tmp_path / "red.png"))[0, 0].tolist() == [0, 0, 200]


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_distributions_are_ordered(values):
    spread = Distribution.of("x", values)
    assert spread.count == len(values)
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= spread.median <= spread.p95 + slack <= spread.p99 + 2 * slack <= spread.largest + 3 * slack
