"""The benchmark: splits, conditions and failures do to each sensor what they say, and a bag says what it holds."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import KDTree

from gemini_core import cli
from gemini_core.bag.messages import make
from gemini_core.bag.reader import BagReader
from gemini_core.bag.writer import BagWriter
from gemini_core.errors import BagError, DataError
from gemini_core.simulation import camera, ranging
from gemini_core.simulation.classes import BOXED, CLASS_NAMES, PEDESTRIAN, POLE, SKY, TREE
from gemini_core.simulation.clip import CONDITIONS, DESCRIPTION_TOPIC, FAILURES, SPLITS, WORLDS, Clip, describe, plan, to_json
from gemini_core.simulation.clutter import pavement_thing
from gemini_core.simulation.conditions import surroundings
from gemini_core.simulation.raster import rasterize
from gemini_core.simulation.record import LISTED_POINTS, VISIBLE_SHARE, Simulation, record_set
from gemini_core.simulation.rig import START_NS, default_rig
from gemini_core.simulation.shading import ACTOR, CLASS

o3d = pytest.importorskip("open3d", reason="the extra 'simulation' is not installed")

FRAME_NS = START_NS + 100_000_000


def frame(scale=0.25, **what):
    clip = Clip(**{"seed": 11, "seconds": 0.1, **what})
    simulation = Simulation(clip, default_rig(scale, clip.world))
    return simulation, next(simulation.frames())


@pytest.fixture(scope="module")
def streets():
    """The same street under every condition: condition -> (simulation, frame)."""
    return {condition: frame(condition=condition) for condition in CONDITIONS}


# --------------------------------------------------------------------------------------------------------------------
# Clips


def test_splits_share_no_scene():
    def first_numbers(split, world, seed):
        return tuple(Clip(split=split, world=world, seed=seed).scene_rng(0).integers(1 << 62, size=4))

    drawn = [first_numbers(split, world, seed) for split in SPLITS for world in WORLDS for seed in range(50)]
    assert len(set(drawn)) == len(drawn)


def test_condition_and_failure_change_the_sensors_and_not_the_scene(streets):
    labels = [streets[condition][1].view.label for condition in CONDITIONS]
    pictures = [streets[condition][1].picture for condition in CONDITIONS]
    for k in range(1, len(CONDITIONS)):
        np.testing.assert_array_equal(labels[0], labels[k])
        assert np.mean(pictures[0] != pictures[k]) > 0.9
    assert not np.array_equal(labels[0], frame(split="val")[1].view.label)


def test_plan_holds_everything_in_equal_shares_and_grows_at_its_end():
    clips = plan({"train": 90, "val": 3, "test": 30})
    train = [clip for clip in clips if clip.split == "train"]
    assert Counter(clip.split for clip in clips) == {"train": 90, "val": 3, "test": 30}
    assert Counter(clip.world for clip in train) == {"street": 60, "room": 30}
    assert Counter(clip.condition for clip in train if clip.world == "street") == dict.fromkeys(CONDITIONS, 12)
    assert set(Counter(clip.failure for clip in train if clip.failure != "none").values()) <= {7, 8}
    assert {clip.failure for clip in train} == set(FAILURES)
    assert len({(clip.split, clip.seed) for clip in clips}) == len(clips)
    assert plan({"train": 20}) == train[:20]
    assert {clip.clutter for clip in clips} == {True}
    assert plan({"train": 20}, clutter=False) == [replace(clip, clutter=False) for clip in train[:20]]


@settings(max_examples=50)
@given(
    st.sampled_from(
        [
            ("split", "dev"),
            ("world", "sea"),
            ("condition", "snow"),
            ("failure", "x"),
            ("seed", -1),
            ("seconds", 0.0),
            ("clutter", None),
        ]
    )
)
def test_a_clip_that_cannot_be_is_refused(wrong):
    with pytest.raises(DataError, match=f"expected .*{wrong[0]}|{wrong[0]}s"):
        Clip(**dict([wrong])) if wrong[0] != "seconds" else Clip(seconds=wrong[1])


def test_rain_in_a_room_is_refused():
    with pytest.raises(DataError, match="in a room, got rain"):
        Clip(world="room", condition="rain")


# --------------------------------------------------------------------------------------------------------------------
# Geometry


@pytest.mark.parametrize("world", WORLDS)
def test_the_rasterizer_sees_what_a_ray_caster_sees(world):
    simulation = Simulation(Clip(world=world, seed=7, seconds=0.1), default_rig(0.5, world))
    stage, mesh = simulation.renderer, simulation.scene.static
    base = simulation.base(FRAME_NS)
    stage.set_time(0.1, base)
    camera, pose = simulation.rig.rgb.camera, base @ simulation.rig.rgb.base_from_camera
    found, inverse = rasterize(
        stage.world.triangles, stage._static_chunks, pose, (camera.fx, camera.fy, camera.cx, camera.cy), (240, 320), 1e4
    )
    u, v = np.meshgrid(np.arange(320), np.arange(240))
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], axis=-1) @ pose[:3, :3].T
    caster = o3d.t.geometry.RaycastingScene()
    vertices = np.ascontiguousarray(mesh.corners.reshape(-1, 3))
    caster.add_triangles(
        o3d.core.Tensor.from_numpy(vertices),
        o3d.core.Tensor.from_numpy(np.arange(len(vertices), dtype=np.uint32).reshape(-1, 3)),
    )
    origins = np.broadcast_to(pose[:3, 3], rays.shape)
    hits = caster.cast_rays(o3d.core.Tensor.from_numpy(np.concatenate([origins, rays], axis=-1).astype(np.float32)))
    distance, triangle = hits["t_hit"].numpy(), hits["primitive_ids"].numpy().view(np.int32)
    with np.errstate(divide="ignore"):
        depth = 1.0 / inverse
    same = (triangle == found) | np.isclose(depth, distance, rtol=1e-4)
    assert same.mean() > 0.998  # rays that pass an edge within rounding
    assert np.mean(np.isinf(distance) == (found < 0)) > 0.9995


@pytest.mark.parametrize("world", WORLDS)
def test_odometry_says_how_what_stands_still_moves_in_the_picture(world):
    """Depth of one frame, taken to another by the poses of /tf, agrees with the depth that is seen there."""
    simulation = Simulation(Clip(world=world, seed=5, seconds=0.5), default_rig(0.5, world))
    camera = simulation.rig.rgb.camera

    def look(stamp):
        return simulation._look(simulation.rig.rgb, stamp), simulation.base(stamp) @ simulation.rig.rgb.base_from_camera

    (before, pose_before), (after, pose_after) = look(FRAME_NS), look(FRAME_NS + 200_000_000)
    moved = np.linalg.inv(pose_before) @ pose_after
    assert np.linalg.norm(moved[:3, 3]) > 0.05
    v, u = np.nonzero((before.actor < 0) & (before.depth_m < 30.0))
    z = before.depth_m[v, u]
    points = np.linalg.inv(moved) @ np.stack(
        [(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z, np.ones_like(z)]
    )
    column = np.round(camera.fx * points[0] / points[2] + camera.cx).astype(int)
    row = np.round(camera.fy * points[1] / points[2] + camera.cy).astype(int)
    inside = (points[2] > 0.2) & (column >= 0) & (row >= 0) & (column < camera.width) & (row < camera.height)
    seen = after.depth_m[row[inside], column[inside]]
    assert np.mean(np.abs(seen - points[2, inside]) < 0.03 * seen + 0.03) > 0.8


def test_rooms_and_streets_together_show_every_class():
    share = np.zeros(256)
    for world in WORLDS:
        for seed in range(6):
            clip = Clip(split="train", world=world, seed=seed, seconds=0.1)
            simulation = Simulation(clip, default_rig(0.25, world))
            share += np.bincount(simulation._look(simulation.rig.rgb, FRAME_NS).label.ravel(), minlength=256)
    share /= share.sum()
    assert share[: len(CLASS_NAMES)].min() > 2e-4, dict(zip(CLASS_NAMES, share, strict=False))
    assert share[len(CLASS_NAMES) :].sum() == 0


# --------------------------------------------------------------------------------------------------------------------
# Conditions


def noise_of(picture):
    """Median difference of neighbouring pixels: noise, since most of them show one thing."""
    return float(np.median(np.abs(np.diff(picture.astype(float), axis=1))))


def test_night_is_dark_and_noisy(streets):
    day, night = streets["day"][1].picture, streets["night"][1].picture
    assert np.median(night) < 0.5 * np.median(day)
    assert noise_of(night) > 1.5 * noise_of(day)


def test_fog_hides_what_is_far_from_the_camera(streets):
    (_, day), (_, fog) = streets["day"], streets["fog"]
    depth = day.view.depth_m
    far, near = (depth > 50.0) & np.isfinite(depth), depth < 8.0
    assert fog.picture[far].std() < 0.35 * day.picture[far].std()
    assert fog.picture[near].std() > 0.2 * day.picture[near].std()
    # Beer and Lambert: of the contrast with the air exp(-beta z) is left.
    air = surroundings("street", "fog")
    left = np.abs(fog.view.color[far] - np.array(air.airlight)).max()
    assert left <= np.exp(-air.fog_per_m * 50.0) * 3.0


def test_fog_and_rain_take_far_lidar_returns_and_give_near_false_ones(streets):
    def ranges(condition):
        sweep = streets[condition][1].sweep
        return np.linalg.norm([sweep.points[axis] for axis in "xyz"], axis=0), sweep.label == 255

    (day, day_false), (fog, fog_false), (_, rain_false) = ranges("day"), ranges("fog"), ranges("rain")
    assert not day_false.any()
    assert np.sum(fog[~fog_false] > 40.0) < 0.3 * np.sum(day > 40.0)
    assert fog_false.mean() > 0.01
    assert np.median(fog[fog_false]) < 10.0
    assert 0 < rain_false.mean() < fog_false.mean()


def test_wet_ground_gives_fewer_lidar_returns(streets):
    ground = [CLASS_NAMES.index(name) for name in ("road", "sidewalk")]

    def far_on_ground(condition):
        sweep = streets[condition][1].sweep
        return np.sum(np.isin(sweep.label, ground) & (np.hypot(sweep.points["x"], sweep.points["y"]) > 15.0))

    assert far_on_ground("rain") < 0.8 * far_on_ground("day")


def test_the_sun_limits_depth(streets):
    def measured(condition):
        return np.mean(streets[condition][1].depth_mm > 0)

    assert measured("night") > 1.3 * measured("day")


def test_the_same_light_serves_camera_and_events(streets):
    """Where nothing moves in the picture there is only noise, and more of it by night."""
    counts = {}
    for condition in ("day", "night"):
        simulation, shown = streets[condition]
        sky = simulation._look(simulation.rig.event, FRAME_NS).label == SKY
        events = np.concatenate([np.stack([packet.y, packet.x]) for packet in shown.packets], axis=1)
        counts[condition] = sky[events[0], events[1]].sum() / sky.sum()
    assert counts["night"] > 1.5 * counts["day"]


# --------------------------------------------------------------------------------------------------------------------
# Failures: each changes its own sensor and no other


def parts(shown):
    return {
        "rgb": shown.picture.tobytes(),
        "depth": shown.depth_mm.tobytes(),
        "lidar": shown.sweep.points.tobytes(),
        "event": b"".join(packet.x.tobytes() for packet in shown.packets),
        "mask": shown.view.label.tobytes(),
    }


@pytest.fixture(scope="module")
def rooms():
    """The same room with every failure, and the random numbers of a sensor that works."""
    return {failure: frame(world="room", failure=failure, seed=4) for failure in FAILURES}


def test_exposure_and_blur_are_what_they_say(rooms):
    pictures = {failure: rooms[failure][1].picture for failure in FAILURES}
    mean = {failure: picture.mean() for failure, picture in pictures.items()}
    assert mean["under_exposure"] < 0.6 * mean["none"] < 0.6 * mean["over_exposure"]
    clipped = {failure: np.mean(picture == 255) for failure, picture in pictures.items()}
    assert clipped["over_exposure"] > clipped["none"] + 0.1 > clipped["under_exposure"] + 0.1
    assert np.mean(pictures["motion_blur"] != pictures["none"]) > 0.5


def test_a_turn_of_the_camera_smears_an_edge_by_as_many_pixels():
    color = np.zeros((40, 160, 3), np.float32)
    color[:, 80:] = 1.0
    far = np.full((40, 160), np.inf, np.float32)
    motion = np.array([3.0, 0.0, 0.0, 0.0, 4.0, 0.0])  # what is far does not move with the camera's own place
    smeared = camera.blur_by_motion(color, far, (100.0, 100.0, 79.5, 19.5), motion, 0.02)  # 100 px * 4 rad/s * 20 ms = 8 px
    row = smeared[20, :, 0]
    assert row[:75].max() == 0.0
    assert row[85:].min() == pytest.approx(1.0)
    assert np.all(np.diff(row[75:86]) >= 0)
    assert 7 <= np.count_nonzero((row > 0.01) & (row < 0.99)) <= 9


def test_a_failure_touches_one_sensor_only(rooms):
    truth = parts(rooms["none"][1])
    for failure, (simulation, shown) in rooms.items():
        assert parts(shown)["mask"] == truth["mask"]
        kind = {"lidar_jitter": "lidar", "event_low_resolution": "event"}.get(failure, "rgb")
        true_m = rooms["none"][0]._look(simulation.rig.rgb, FRAME_NS).depth_m
        np.testing.assert_array_equal(true_m, shown.view.depth_m)
        if kind != "event":
            assert simulation.rig.event.camera.width == 160
            assert sum(len(p.x) for p in shown.packets) == pytest.approx(
                sum(len(p.x) for p in rooms["none"][1].packets), rel=0.1
            )
        if kind != "lidar":
            assert lidar_error(simulation, shown) < 0.01
    assert lidar_error(*rooms["lidar_jitter"]) > 0.02
    low = rooms["event_low_resolution"][0].rig.event.camera
    assert (low.width, low.height) == (40, 30)


def lidar_error(simulation, shown):
    """Median distance of points on the floor from the floor."""
    points = shown.sweep.points
    start = (shown.sweep_start_ns - START_NS) * 1e-9
    times = start + points["time"].astype(float)
    floor = shown.sweep.label == CLASS_NAMES.index("floor")
    heights = []
    for time, x, y, z in zip(times[floor][::20], *(points[axis][floor][::20] for axis in "xyz"), strict=True):
        heights.append((simulation.scene.ego(float(time)) @ simulation.rig.lidar.base_from_lidar @ [x, y, z, 1.0])[2])
    return np.median(np.abs(heights))


# --------------------------------------------------------------------------------------------------------------------
# Clutter


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_clutter_has_the_size_of_a_person(seed):
    thing = pavement_thing(np.random.default_rng(seed))
    low, high = thing.corners.reshape(-1, 3).min(axis=0), thing.corners.reshape(-1, 3).max(axis=0)
    assert -0.1 < low[2] <= 0.1  # stands on the ground
    assert 1.3 < high[2] < 2.3
    assert 0.2 < max(high[:2] - low[:2]) < 0.8
    assert set(thing.surfaces[:, CLASS].astype(int)) <= {POLE, TREE}
    assert set(thing.surfaces[:, ACTOR]) == {-1}  # no box


def test_nobody_walks_through_clutter():
    """No corner of what stands comes into the body of who walks, for ten seconds (crowns of trees are higher)."""
    for seed in (0, 1, 2):
        scene = Simulation(Clip(seed=seed), default_rig(0.125)).scene
        corners = scene.static.corners.reshape(-1, 3)
        label = np.repeat(scene.static.surfaces[scene.static.surface_of][:, CLASS], 3)
        standing = corners[np.isin(label, [POLE, TREE]) & (corners[:, 2] > 0.6) & (corners[:, 2] < 1.7), :2]
        nearest = KDTree(standing)
        walkers = [actor for actor in scene.actors if actor.label == PEDESTRIAN and actor.moves]
        assert len(walkers) > 10
        for actor in walkers:
            places = np.array([actor.way(time)[:2, 3] for time in np.arange(0.0, 10.0, 0.1)])
            assert nearest.query(places)[0].min() > 0.25


def test_clutter_stands_in_streets_that_are_to_have_it():
    def things(clip):
        """Surfaces of pots, cases and cloths: of poles and trees, and between knee and head all around."""
        mesh = Simulation(clip, default_rig(0.125, clip.world)).scene.static
        found = 0
        for number in np.flatnonzero(np.isin(mesh.surfaces[:, CLASS], [POLE, TREE])):
            corners = mesh.corners[mesh.surface_of == number].reshape(-1, 3)
            low, high = corners.min(axis=0), corners.max(axis=0)
            found += bool(0.5 < high[2] < 2.3 and low[2] < 1.0 and 0.3 < (high - low)[:2].max() < 0.8)
        return found

    assert things(Clip(seed=4, seconds=1.0, clutter=False)) == 0
    assert things(Clip(seed=4, seconds=1.0)) > 20
    room = Clip(world="room", seed=4, seconds=1.0)
    assert things(room) == things(replace(room, clutter=False))


# --------------------------------------------------------------------------------------------------------------------
# Truth


def test_visibility_is_counted_as_it_says(streets):
    for simulation, shown in (streets["day"], frame(world="room", seed=2)):
        assert len(shown.visibility) == len(shown.boxes) > 0
        for box, seen in zip(shown.boxes, shown.visibility, strict=True):
            actor = simulation.scene.actors[int(seen.id)]
            assert CLASS_NAMES[actor.label] == box.class_name == seen.class_name
            assert actor.label in BOXED
            assert seen.pixels == np.count_nonzero(shown.view.actor == actor.number)
            assert seen.lidar_points == np.count_nonzero(shown.sweep.actor == actor.number)
            assert 0 <= seen.share <= 1
            assert seen.pixels > 0 or seen.share == 0
        nearest = max(shown.visibility, key=lambda seen: seen.pixels)
        assert nearest.lidar_points > 5


def test_what_the_lidar_sees_behind_a_car_has_a_box_and_what_is_beside_the_picture_has_none():
    hidden = 0
    for seed in (0, 3):
        simulation, shown = frame(seed=seed, scale=0.5)
        model = simulation.rig.rgb.camera
        camera_from_world = np.linalg.inv(simulation.base(shown.stamp_ns) @ simulation.rig.rgb.base_from_camera)
        listed = {int(seen.id): seen for seen in shown.visibility}
        beside = 0
        for actor in simulation.scene.actors:
            if actor.label not in BOXED or np.count_nonzero(shown.sweep.actor == actor.number) < LISTED_POINTS:
                continue
            middle = actor.way((shown.stamp_ns - START_NS) * 1e-9) @ [0.0, 0.0, actor.size_m[2] / 2, 1.0]
            x, y, z = (camera_from_world @ middle)[:3]
            seen = z > 0 and abs(x / z * model.fx + model.cx - model.width / 2) < model.width / 2 - 1
            if seen and 1 < y / z * model.fy + model.cy < model.height - 1:
                assert actor.number in listed
            elif not np.any(shown.view.actor == actor.number):
                beside += 1
                assert actor.number not in listed
        assert beside > 5  # the sweep goes all around
        hidden += sum(seen.pixels < VISIBLE_SHARE * model.width * model.height for seen in listed.values())
    assert hidden > 0


def test_a_thing_alone_in_view_is_wholly_visible():
    simulation, shown = frame(world="room", seed=2, scale=0.5)
    actor = next(actor for actor in simulation.scene.actors if actor.label == CLASS_NAMES.index("pedestrian"))
    base = np.eye(4)
    ahead = np.eye(4)
    ahead[0, 3] = 4.0
    count = simulation.renderer.extent(actor.number, ahead, simulation.rig.rgb, base)
    camera = simulation.rig.rgb.camera
    upright = actor.size_m[1] * actor.size_m[2] * (camera.fx / (4.0 - simulation.rig.rgb.base_from_camera[0, 3])) ** 2
    assert 0.25 * upright < count < 0.9 * upright  # a person fills a part of the box around it
    del shown


# --------------------------------------------------------------------------------------------------------------------
# Bags


def describe_as(folder, values):
    with BagWriter(folder) as writer:
        writer.write(DESCRIPTION_TOPIC, make("std_msgs/msg/String", data=json.dumps(values)), START_NS)


def test_a_bag_of_the_time_before_clutter_says_that_it_has_none_and_no_set_goes_on_with_it(tmp_path):
    clip = Clip(seed=3, clutter=False)
    said = json.loads(to_json(clip))
    del said["clutter"]
    old = tmp_path / "test" / clip.name
    describe_as(old, {**said, "format": 1})
    assert describe(old) == clip
    with pytest.raises(BagError, match=r"expected nothing, or a recording of format 2, got one of format 1 with other boxes"):
        record_set(tmp_path, [clip], 0.125)
    describe_as(tmp_path / "new", said)
    with pytest.raises(BagError, match=r"to say what was simulated, got .*clutter"):
        describe(tmp_path / "new")


def test_a_set_is_recorded_once_and_says_what_it_is(tmp_path):
    clips = [Clip("train", "room", "night", "motion_blur", 3, 0.1), Clip("val", "room", "fog", "none", 0, 0.1)]
    assert record_set(tmp_path, clips[:1], 0.125) == 1
    stamp = (tmp_path / "train" / clips[0].name / "metadata.yaml").stat().st_mtime_ns
    assert record_set(tmp_path, clips, 0.125) == 1
    assert (tmp_path / "train" / clips[0].name / "metadata.yaml").stat().st_mtime_ns == stamp
    assert [describe(tmp_path / clip.split / clip.name) for clip in clips] == clips
    assert not list(tmp_path.glob("**/*.partial"))
    with BagReader(tmp_path / "train" / clips[0].name) as bag:
        truth = {message.topic: message.message for message in bag.messages() if message.topic.startswith("/ground_truth")}
    said = json.loads(truth["/ground_truth/visibility"].data)
    boxes = truth["/ground_truth/detections"]
    assert said["stamp_ns"] == boxes.header.stamp.sec * 1_000_000_000 + boxes.header.stamp.nanosec
    assert [each["id"] for each in said["objects"]] == [box.id for box in boxes.detections]
    with pytest.raises(BagError, match="expected nothing, or the recording of"):
        record_set(tmp_path, [Clip("train", "room", "night", "motion_blur", 3, 0.2)], 0.125)


def test_the_command_records_a_clip_and_refuses_what_cannot_be(tmp_path, capsys):
    common = ["simulate", "--out", str(tmp_path / "clip"), "--seconds", "0.1", "--scale", "0.125", "--world", "room"]
    assert cli.main([*common, "--condition", "night", "--split", "train", "--seed", "5"]) == 0
    assert describe(tmp_path / "clip") == Clip("train", "room", "night", "none", 5, 0.1)
    assert cli.main([*common, "--no-clutter", "--overwrite"]) == 0
    assert describe(tmp_path / "clip").clutter is False
    folder = ["simulate", "--set", str(tmp_path / "set"), "--clips", "0,0,1", "--seconds", "0.1", "--scale", "0.125"]
    assert cli.main([*folder, "--no-clutter"]) == 0
    assert [describe(bag).clutter for bag in (tmp_path / "set" / "test").iterdir()] == [False]
    capsys.readouterr()
    assert cli.main(folder) == 2
    assert "expected nothing, or the recording of" in capsys.readouterr().err
    assert cli.main([*folder, "--no-clutter", "--color-scale", "0.25"]) == 2
    assert "expected nothing, or images of 160x120, got some of 80x60" in capsys.readouterr().err
    assert cli.main([*folder, "--no-clutter", "--color-scale", "0.25", "--overwrite"]) == 0
    assert cli.main([*common, "--color-scale", "0.25", "--overwrite"]) == 0
    for bag in (tmp_path / "clip", *(tmp_path / "set" / "test").iterdir()):
        with BagReader(bag) as reader:
            sizes = {each.message.width for each in reader.messages(["/rgb/camera_info", "/depth/camera_info"])}
        assert sizes == {160, 60}
    assert cli.main([*common, "--condition", "rain"]) == 2
    assert "in a room, got rain" in capsys.readouterr().err


def test_jitter_is_small_and_smooth():
    motion = ranging._jitter(512, np.random.default_rng(0))
    angle = np.stack([motion[:, 2, 1], motion[:, 0, 2], motion[:, 1, 0]])
    assert 0.3 * ranging.JITTER_RAD < angle.std() < 1.5 * ranging.JITTER_RAD
    assert np.abs(np.diff(angle, axis=1)).max() < 0.2 * ranging.JITTER_RAD
