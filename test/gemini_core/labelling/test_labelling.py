"""Frames to labelling tools and back: round trips, labels made by hand in every form, and what bad input gets."""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

pytest.importorskip("PIL", reason="the extra 'labelling' is not installed")
pytest.importorskip("pycocotools", reason="the extra 'labelling' is not installed")

import pycocotools.mask
from PIL import Image

from gemini_core.bag import messages
from gemini_core.bag.labels import GROUND_TRUTH, BagLabels, LabelTopics
from gemini_core.bag.reader import BagReader
from gemini_core.bag.writer import BagWriter
from gemini_core.cli import main
from gemini_core.config.fusion import load_config
from gemini_core.errors import BagError, DataError
from gemini_core.labelling.coco import open_coco, run_lengths
from gemini_core.labelling.export import export_frames
from gemini_core.labelling.imported import import_labels
from gemini_core.labelling.index import Index, IndexedFrame, name_of, read_index
from gemini_core.types import UNLABELLED, CameraModel, Detection3D, StampedTransform
from training.frames import labelled_frames

# of pycocotools itself, about the next numpy
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WIDTH, HEIGHT = 48, 40
CLASSES = ("ground", "box", "tree")
CAMERA = CameraModel(WIDTH, HEIGHT, 45.0, 45.0, 23.5, 19.5)
STEP_NS = 100_000_000
FRAMES = 5
STAMPS = [(index + 1) * STEP_NS for index in range(FRAMES)]
NAMES = [name_of(stamp) for stamp in STAMPS]
FUSION = f"""
modalities: [rgb, depth, lidar]
grid: {{height: 32, width: 32}}
motion: {{fixed_frame: ""}}
model: {{classes: [{", ".join(CLASSES)}]}}
"""
BOX = Detection3D("box", 1.0, (0.5, -0.25, 4.0), (1.0, 2.0, 0.5), (0.0, 0.6, 0.0, 0.8))
LIDAR_FROM_CAMERA = np.array([[0.0, 0.0, 1.0, 0.1], [-1.0, 0.0, 0.0, 0.2], [0.0, -1.0, 0.0, 0.3], [0.0, 0.0, 0.0, 1.0]])


def label_of(index):
    """A box and a tree on the ground, a strip that nobody labelled."""
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[5 + index : 17 + index, 6:20] = 1
    label[8:30, 30 + index : 40] = 2
    label[-3:, :7] = UNLABELLED
    return label


def write_bag(path, *, labels=False, frames=FRAMES, label_size=(HEIGHT, WIDTH), camera=CAMERA):
    rng = np.random.default_rng(3)
    points = np.array([(4.0, y, z, 9.0) for y in (-0.5, 0.0, 0.5) for z in (-0.4, 0.4)], np.float32)
    cloud = np.array([tuple(each) for each in points], dtype=[(name, "<f4") for name in ("x", "y", "z", "intensity")])
    with BagWriter(path) as bag:
        bag.write("/tf_static", messages.tf_message([StampedTransform(0, "lidar", "camera", LIDAR_FROM_CAMERA)]), 1)
        if labels:
            bag.write(GROUND_TRUTH.names, messages.label_info(CLASSES, 0, "camera"), 1)
        for topic in ("/rgb/camera_info", "/depth/camera_info"):
            bag.write(topic, messages.camera_info(camera, STEP_NS, "camera"), 2)
        for index in range(frames):
            stamp, label = STAMPS[index], label_of(index)
            pixels = np.where(label[..., None] == 1, 170, 90) + rng.integers(-40, 40, (HEIGHT, WIDTH, 3))
            depth = np.where(label == 1, 2000, 4000).astype(np.uint16)
            bag.write("/rgb/image", messages.image(pixels.astype(np.uint8), "rgb8", stamp, "camera"), stamp)
            bag.write("/depth/image", messages.image(depth, "16UC1", stamp, "camera"), stamp + 1)
            bag.write("/lidar/points", messages.point_cloud(cloud, stamp, "lidar"), stamp + 2)
            if labels:
                cut = label[: label_size[0], : label_size[1]].copy()
                bag.write(GROUND_TRUTH.images, messages.mask(cut, stamp, "camera"), stamp + 3)
                bag.write("/ground_truth/detections", messages.detections((BOX,) * (index % 2), stamp, "camera"), stamp + 4)
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "fusion.yaml"
    path.write_text(FUSION)
    return load_config(path)


@pytest.fixture
def frames(tmp_path, config):
    """A bag without labels and the folder that its frames were exported to."""
    bag = write_bag(tmp_path / "drive")
    export_frames(bag, config, tmp_path / "frames", GROUND_TRUTH)
    return tmp_path / "frames"


def import_(folder, source=None, **options):
    return import_labels(folder.parent / "drive", folder, source, **options)


def labels_in(folder):
    """The labels of the bag that an import wrote, by the index of their frame."""
    labels = BagLabels(folder.parent / "drive", CLASSES, GROUND_TRUTH)
    return {index: label for index, stamp in enumerate(STAMPS) if (label := labels.at(stamp)) is not None}


def save_mask(folder, label, index=0):
    (folder / "masks").mkdir(exist_ok=True)
    Image.fromarray(label).save(folder / "masks" / f"{NAMES[index]}.png")


def save_coco(folder, *annotations, **tables):
    """COCO with its annotations as (image, category, segmentation), images from 1 and categories from 1."""
    path = folder / "annotations" / "instances_default.json"
    content = json.loads(path.read_text())
    content["annotations"] = [
        {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation}
        for number, (image, category, segmentation) in enumerate(annotations, 1)
    ]
    path.write_text(json.dumps(content | tables))


def save_colors(folder, picture, label_map, index=0):
    (folder / "SegmentationClass").mkdir(exist_ok=True)
    Image.fromarray(picture).save(folder / "SegmentationClass" / f"{NAMES[index]}.png")
    (folder / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + label_map)


def box(**changes):
    return {"class": "box", "center_m": [1, 2, 3], "size_m": [1, 1, 2], "orientation_xyzw": [0, 0, 0, 1]} | changes


# --------------------------------------------------------------------------------------------------------------------
# Export


def test_an_export_has_the_images_and_what_the_sensors_saw_on_their_pixels(frames):
    content = json.loads((frames / "frames.json").read_text())
    assert [frame["name"] for frame in content["frames"]] == NAMES
    with BagReader(frames.parent / "drive") as bag:
        images = [np.array(each.message.data).reshape(HEIGHT, WIDTH, 3) for each in bag.messages(("/rgb/image",))]
    for frame, image in zip(content["frames"], images, strict=True):
        assert np.array_equal(np.array(Image.open(frames / frame["image"])), image)
        assert sorted(frame["related"]) == ["depth", "lidar"]
        assert all(Image.open(frames / path).size == (WIDTH, HEIGHT) for path in frame["related"].values())
        assert [(each["modality"], each["present"]) for each in frame["modalities"]] == [
            ("rgb", True), ("depth", True), ("lidar", True)
        ]  # fmt: skip
        assert np.allclose(np.linalg.inv(frame["reference_from_lidar"]), LIDAR_FROM_CAMERA)
        assert {key: frame["camera"][key] for key in ("fx", "cx", "width")} == {"fx": 45.0, "cx": 23.5, "width": WIDTH}
    # the nearer box in the depth picture, exactly where the image has it
    depth = np.array(Image.open(frames / content["frames"][1]["related"]["depth"])).astype(int)
    box = label_of(1) == 1
    assert len(np.unique(depth[box], axis=0)) == len(np.unique(depth[~box], axis=0)) == 1
    assert not np.array_equal(depth[box][0], depth[~box][0])
    assert not (frames / "masks").exists()
    assert json.loads((frames / "cvat_labels.json").read_text())[0].keys() == {"name", "color", "attributes"}
    coco = json.loads((frames / "annotations/instances_default.json").read_text())
    assert [each["name"] for each in coco["categories"]] == list(CLASSES)
    assert [each["file_name"] for each in coco["images"]] == [f"{name}.png" for name in NAMES]
    assert coco["annotations"] == []


def test_labels_go_out_and_come_back_the_same(tmp_path, config, capsys):
    """By the command, through masks and through COCO, and training takes them."""
    bag, out = write_bag(tmp_path / "drive", labels=True), tmp_path / "frames"
    (tmp_path / "fusion.yaml").write_text(FUSION)
    arguments = ["frames", "export", str(bag), str(out), "--every", "2", "--config", str(tmp_path / "fusion.yaml")]
    assert main(arguments) == 0
    assert "3 of 5 frames, 3 with labels of the bag, 3 with boxes" in capsys.readouterr().out
    mask = Image.open(out / "masks" / f"{NAMES[2]}.png")
    assert mask.mode == "P"
    assert len({tuple(mask.getpalette()[3 * value : 3 * value + 3]) for value in (0, 1, 2, 255)}) == 4

    assert main(["frames", "import", str(bag), str(out)]) == 2
    assert "say which with --from masks or coco" in capsys.readouterr().err
    for source in ("masks", "coco"):
        assert main(["frames", "import", str(bag), str(out), "--from", source, "--overwrite"]) == 0
        found = labels_in(out)
        assert sorted(found) == [0, 2, 4]
        assert all(np.array_equal(label, label_of(index)) for index, label in found.items())
    assert "labels of 3 of 3 frames" in capsys.readouterr().out
    assert [frame.grids.stamp_ns for frame in labelled_frames(bag, config, GROUND_TRUTH)] == STAMPS[::2]

    # and out again, from the bag beside the bag now
    again = export_frames(bag, config, tmp_path / "again", GROUND_TRUTH)
    assert (again.frames, again.labelled, again.boxed) == (5, 3, 3)
    assert (tmp_path / "again/masks" / f"{NAMES[4]}.png").read_bytes() == (out / "masks" / f"{NAMES[4]}.png").read_bytes()


def test_pycocotools_reads_the_exported_labels(tmp_path, config):
    from pycocotools.coco import COCO

    export_frames(write_bag(tmp_path / "drive", labels=True), config, tmp_path / "frames", GROUND_TRUTH)
    coco = COCO(tmp_path / "frames/annotations/instances_default.json")
    assert len(coco.anns) == 3 * FRAMES
    for annotation in coco.anns.values():
        mask = label_of(annotation["image_id"] - 1) == annotation["category_id"] - 1
        assert np.array_equal(coco.annToMask(annotation) == 1, mask)
        assert annotation["area"] == mask.sum()
        encoded = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert annotation["bbox"] == pycocotools.mask.toBbox(encoded).tolist()


def test_a_node_that_rectifies_gets_labels_on_rectified_images(tmp_path, config):
    lens = dataclasses.replace(CAMERA, distortion_model="plumb_bob", distortion=(-0.3, 0.1, 0.0, 0.0, 0.0))
    bag = write_bag(tmp_path / "drive", frames=1, camera=lens)
    pictures = []
    for rectify in (False, True):
        folder = tmp_path / f"frames-{rectify}"
        export_frames(
            bag, dataclasses.replace(config, rgb=dataclasses.replace(config.rgb, rectify=rectify)), folder, GROUND_TRUTH
        )
        camera = json.loads((folder / "frames.json").read_text())["frames"][0]["camera"]
        assert camera["distortion_model"] == ("none" if rectify else "plumb_bob")
        pictures.append(np.array(Image.open(folder / "images" / f"{NAMES[0]}.png")))
    raw, straight = pictures
    expected = cv2.undistort(raw, lens.matrix, np.array(lens.distortion))
    assert np.median(np.abs(straight.astype(int) - expected)) <= 1
    assert not np.array_equal(straight, raw)


def test_what_is_in_the_way_of_an_export_stays(tmp_path, config):
    bag, folder = write_bag(tmp_path / "drive", frames=1), tmp_path / "frames"
    folder.mkdir()
    export_frames(bag, config, folder, GROUND_TRUTH)  # an empty folder is not in the way
    before = (folder / "frames.json").read_bytes()
    with pytest.raises(DataError, match="expected an empty folder or none"):
        export_frames(bag, config, folder, GROUND_TRUTH)
    with pytest.raises(DataError, match="expected exported frames to replace"):
        export_frames(bag, config, bag, GROUND_TRUTH, overwrite=True)
    with pytest.raises(DataError, match="expected the name of a folder, got that of a file"):
        export_frames(bag, config, next(bag.glob("*.mcap")), GROUND_TRUTH, overwrite=True)
    with pytest.raises(DataError, match="expected a folder that can be written"):
        export_frames(bag, config, folder / "frames.json" / "deeper", GROUND_TRUTH)
    wrong = write_bag(tmp_path / "wrong", labels=True, label_size=(8, 8))
    with pytest.raises(DataError, match="expected the image's 48 x 40, got 8 x 8"):
        export_frames(wrong, config, folder, GROUND_TRUTH, overwrite=True)
    assert (folder / "frames.json").read_bytes() == before
    (folder / "old.txt").touch()
    export_frames(bag, config, folder, GROUND_TRUTH, overwrite=True)
    assert not (folder / "old.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drive", "frames", "wrong"]


def test_a_bag_that_ends_early_gives_the_frames_before(tmp_path, config):
    bag = write_bag(tmp_path / "drive")
    path = next(bag.glob("*.mcap"))
    content = path.read_bytes()
    path.write_bytes(content[: int(0.8 * len(content))])
    done = export_frames(bag, config, tmp_path / "frames", GROUND_TRUTH)
    assert done.damage
    assert len(read_index(tmp_path / "frames").frames) == done.frames > 0
    save_mask(tmp_path / "frames", label_of(0))
    assert import_(tmp_path / "frames").labelled == 1


# --------------------------------------------------------------------------------------------------------------------
# Import: the forms


@pytest.mark.parametrize("mode", ["L", "P"])
def test_masks_of_indices_with_or_without_a_palette(frames, mode):
    (frames / "masks" / "more").mkdir(parents=True)
    for index, place in ((1, ""), (3, "more")):
        image = Image.fromarray(label_of(index))
        if mode == "P":
            image.putpalette([17] * 768)  # whatever the colours, indices count
        image.save(frames / "masks" / place / f"{NAMES[index]}.png")
    save_mask(frames, np.full((HEIGHT, WIDTH), UNLABELLED, np.uint8), 0)
    done = import_(frames)
    assert (done.source, done.frames, done.labelled, done.boxed) == ("masks", 5, 2, 0)
    assert done.labelled_share == pytest.approx(1 - 21 / (WIDTH * HEIGHT))
    found = labels_in(frames)
    assert sorted(found) == [1, 3]  # nobody labelled a pixel of the others
    assert all(np.array_equal(label, label_of(index)) for index, label in found.items())


def test_coco_with_polygons_and_run_lengths_where_the_later_wins(frames):
    counts = [WIDTH * HEIGHT - 2 * HEIGHT, 2 * HEIGHT]  # the last two columns
    rows = np.zeros((HEIGHT, WIDTH), np.uint8)
    rows[10:14] = 1
    compressed = pycocotools.mask.encode(np.asfortranarray(rows))
    # corners count from the corner of the image, so that x from 4 to 12 are the pixels 4 to 11
    save_coco(
        frames,
        (2, 1, {"size": [HEIGHT, WIDTH], "counts": counts}),
        (2, 2, [[4, 6, 12, 6, 12, 20, 4, 20], [20.0, 0.0, 24.0, 0.0, 24.0, 3.0, 20.0, 3.0]]),
        (2, 3, {"size": [HEIGHT, WIDTH], "counts": compressed["counts"].decode()}),
    )
    expected = np.full((HEIGHT, WIDTH), UNLABELLED, np.uint8)
    expected[:, -2:] = 0
    expected[6:20, 4:12] = 1
    expected[:3, 20:24] = 1
    expected[10:14] = 2
    assert import_(frames).source == "coco"
    found = labels_in(frames)
    assert sorted(found) == [1]
    assert np.array_equal(found[1], expected)


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 30), st.integers(1, 30))))
def test_run_lengths_are_those_of_pycocotools_and_can_be_read_back(tmp_path_factory, mask):
    height, width = mask.shape
    theirs = pycocotools.mask.frPyObjects({"size": [height, width], "counts": run_lengths(mask)}, height, width)
    assert np.array_equal(pycocotools.mask.decode(theirs) == 1, mask)
    folder = tmp_path_factory.mktemp("coco")
    (folder / "annotations").mkdir()
    index = Index("/rgb/image", CLASSES, CLASSES, {"a": IndexedFrame("a", 0, "camera", width, height)})
    for counts in (run_lengths(mask), theirs["counts"].decode()):
        content = {
            "images": [{"id": "x", "file_name": "sub/a.png", "width": width, "height": height}],
            "categories": [{"id": 0, "name": "tree"}],
            "annotations": [{"image_id": "x", "category_id": 0, "segmentation": {"size": [height, width], "counts": counts}}],
        }
        (folder / "annotations/instances_default.json").write_text(json.dumps(content))
        read = open_coco(folder, index)
        assert read is not None
        assert np.array_equal(read(index.frames["a"]), np.where(mask, 2, UNLABELLED))


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_the_colours_of_cvat(frames, mode):
    colors = np.zeros((256, 3), np.uint8)
    colors[0], colors[1], colors[2] = (10, 20, 30), (128, 0, 64), (0, 255, 0)
    label_map = "background:0,0,0::\nground:10,20,30::\nbox:128,0,64:a,b:c\ntree:0,255,0::\nunused thing:1,1,1::\n"
    save_colors(frames, colors[label_of(4)], label_map, 4)
    if mode == "P":
        path = frames / "SegmentationClass" / f"{NAMES[4]}.png"
        Image.open(path).quantize(8, dither=Image.Dither.NONE).save(path)
        assert Image.open(path).mode == "P"
    assert import_(frames).source == "cvat"
    assert np.array_equal(labels_in(frames)[4], label_of(4))


def test_boxes_in_3d_come_into_the_bag(frames):
    boxes = {NAMES[3]: [box(orientation_xyzw=[0, 0.6, 0, 0.8004])], NAMES[0]: []}
    (frames / "boxes.json").write_text(json.dumps(boxes))
    done = import_(frames)
    assert (done.source, done.labelled, done.boxed) == (None, 0, 2)
    with BagReader(frames.parent / "drive-labels") as bag:
        assert [topic.name for topic in bag.topics()] == ["/ground_truth/detections"]
        first, second = (each.message for each in bag.messages())
    assert len(first.detections) == 0
    assert second.header.stamp.nanosec == STAMPS[3]
    assert second.header.frame_id == "camera"
    found = second.detections[0]
    assert found.results[0].hypothesis.class_id == "box"
    assert found.bbox.center.position.z == 3.0
    assert (found.bbox.size.x, found.bbox.size.z) == (1.0, 2.0)
    orientation = found.bbox.center.orientation
    assert np.hypot(orientation.y, orientation.w) == pytest.approx(1.0, abs=1e-12)


# --------------------------------------------------------------------------------------------------------------------
# Import: bad input

RUNS = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}


def write(path, content):
    return lambda folder: ((folder / path).parent.mkdir(exist_ok=True), (folder / path).write_bytes(content))


def coco(*annotations, **tables):
    return lambda folder: save_coco(folder, *annotations, **tables)


def mask(label, index=0):
    return lambda folder: save_mask(folder, label, index)


def colors(picture, label_map):
    return lambda folder: save_colors(folder, np.full((HEIGHT, WIDTH, 3), picture, np.uint8), label_map)


def boxes(*content, name=NAMES[0]):
    return write("boxes.json", json.dumps({name: content}).encode())


def small_image(folder):
    content = json.loads((folder / "annotations/instances_default.json").read_text())
    images = [image | {"width": 24} for image in content["images"]]
    save_coco(folder, (1, 1, RUNS), images=images)


def renamed_image(folder):
    content = json.loads((folder / "annotations/instances_default.json").read_text())
    save_coco(folder, (1, 1, RUNS), images=[image | {"file_name": "other.png"} for image in content["images"]])


def four_bit(folder):
    """A grey PNG of four bits, such as converters write that save bytes."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 4, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x11" * (WIDTH // 2)) * HEIGHT)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    png = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks]
    write(f"masks/{NAMES[0]}.png", b"\x89PNG\r\n\x1a\n" + b"".join(png))(folder)


GOOD = np.zeros((HEIGHT, WIDTH), np.uint8)
SQUARE = [[1, 1, 9, 1, 9, 9]]
REFUSED = {
    "no annotation at all": (lambda _: None, "got none with a labelled pixel or a box"),
    "nothing but a zip": (write("job_7.zip", b"PK"), "unpack job_7.zip there first"),
    "masks without a labelled pixel": (mask(GOOD + UNLABELLED), "got none with a labelled pixel or a box"),
    "an unknown value": (mask(GOOD + 7), "expected indices of 3 classes or 255, got 7 at 1920 pixels"),
    "a mask of another size": (mask(GOOD[:20]), "expected the image's 48 x 40 pixels, got 48 x 20"),
    "a mask in colours": (mask(np.zeros((HEIGHT, WIDTH, 3), np.uint8)), "expected 8-bit class indices .*, got mode RGB"),
    "a mask of 16 bits": (mask(GOOD.astype(np.uint16)), "expected 8-bit class indices .*, got mode I;16"),
    "a mask of few bits": (four_bit, "expected 8-bit class indices, got a grey picture of 4 bits"),
    "a mask of no frame": (write("masks/9_000000000.png", b""), "expected a frame of frames.json, got '9_000000000'"),
    "a JPEG": (write("masks/a.jpg", b""), "expected PNG files in masks/ only"),
    "no PNG": (write(f"masks/{NAMES[0]}.png", b"nothing"), "expected a PNG that can be read"),
    "two masks of a frame": (
        lambda folder: (mask(GOOD)(folder), write(f"masks/sub/{NAMES[0]}.png", b"")(folder)),
        "expected one file for frame 0_100000000",
    ),
    "broken JSON": (write("annotations/instances_default.json", b'{"images": ['), "expected JSON, got a file that breaks off"),
    "another JSON": (write("annotations/instances_default.json", b'{"images": []}'), "expected COCO with lists .* only images"),
    "an unknown category": (
        coco((1, 9, RUNS), categories=[{"id": 9, "name": "treee"}]),
        "annotation 1: expected a class of frames.json, got 'treee' .nearest known: tree",
    ),
    "a category that the file lacks": (
        coco((1, 9, RUNS)),
        "annotation 1: expected category_id to be an id that the file has, got 9",
    ),
    "an image that the file lacks": (coco((77, 1, RUNS)), "expected image_id to be an id that the file has, got 77"),
    "an image of another size": (small_image, "expected image '0_100000000.png' of 48 x 40 pixels, got 24 x 40"),
    "an annotation of no frame": (renamed_image, "image 'other.png': expected a frame of frames.json, got 'other'"),
    "one id twice": (coco((1, 1, RUNS), images=[{"id": 1}, {"id": 1}]), "expected each id of the images once, got 1 twice"),
    "run lengths of another size": (coco((1, 1, RUNS | {"size": [WIDTH, HEIGHT]})), r"size \[40, 48\] .* got \[48, 40\]"),
    "too few run lengths": (coco((1, 1, RUNS | {"counts": [5, 6]})), "expected run lengths of 1920 pixels in all, got 11"),
    "negative run lengths": (coco((1, 1, RUNS | {"counts": [1921, -1]})), "expected run lengths as whole numbers"),
    "compressed ones that are short": (coco((1, 1, RUNS | {"counts": "52"})), "of 1920 pixels in all, got 7"),
    "compressed ones that break off": (coco((1, 1, RUNS | {"counts": "5P"})), "expected run lengths as whole numbers or"),
    "compressed ones of other text": (coco((1, 1, RUNS | {"counts": "5 2"})), "expected run lengths as whole numbers or"),
    "a box instead of a mask": (coco((1, 1, [])), r"expected polygons or run lengths as segmentation, got \[\] \(a box alone"),
    "half a corner": (coco((1, 1, [[1, 1, 9, 1, 9, 9, 4]])), "expected polygons as lists of three or more x, y"),
    "a corner far away": (coco((1, 1, [[1, 1, 1e9, 1, 9, 9]])), "expected a polygon in an image of 48 x 40, got a corner"),
    "a corner nowhere": (coco((1, 1, [[1, 1, float("nan"), 1, 9, 9]])), "got a corner at nan"),
    "colours without names": (colors((9, 9, 9), "ground:1,2,3::\n"), "expected colours of labelmap.txt, got #090909 at 1920"),
    "colours of no class": (colors((9, 9, 9), "sea:9,9,9::\n"), "colour #090909 .* expected a class of frames.json, got 'sea'"),
    "one colour for two": (colors((9, 9, 9), "box:9,9,9::\ntree:9,9,9::\n"), "line 3: expected a colour for each label"),
    "a line without colour": (colors((9, 9, 9), "box\n"), "line 2: expected 'name:red,green,blue:parts:actions', got 'box'"),
    "colours without labelmap.txt": (
        lambda folder: (colors((9, 9, 9), "")(folder), (folder / "labelmap.txt").unlink()),
        "expected the file that CVAT exports beside SegmentationClass",
    ),
    "two forms": (
        lambda folder: (mask(GOOD)(folder), save_coco(folder, (1, 1, SQUARE))),
        "got them in masks/.* and in annotations/instances_default.json; say which with --from masks or coco",
    ),
    "a box of no class": (boxes(box(**{"class": "sea"})), "box 0 .* expected a class of frames.json, got 'sea'"),
    "a box of no frame": (boxes(name="7_0"), "boxes.json: expected a frame of frames.json, got '7_0'"),
    "a flat box": (boxes(box(size_m=[1, 0, 1])), "expected a size above 0"),
    "a box nowhere": (boxes(box(center_m=[1, 2, float("inf")])), "expected 3 numbers within a million for center_m"),
    "a box that is not turned right": (boxes(box(orientation_xyzw=[0, 0, 0, 2])), "expected a quaternion of length 1"),
    "half a box": (boxes({"class": "box"}), "expected class, center_m, size_m and orientation_xyzw"),
    "no index": (lambda folder: (folder / "frames.json").unlink(), "got one without frames.json"),
    "another index": (write("frames.json", b'{"format": 1}'), "expected what 'frames export' wrote, got KeyError"),
    "an index of the future": (write("frames.json", b'{"format": 2}'), "expected format 1, got 2"),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp("exported")
    export_frames(write_bag(folder / "drive", frames=1), config, folder / "frames", GROUND_TRUTH)
    return folder


@pytest.mark.parametrize("spoil", [pytest.param(case, id=name) for name, case in REFUSED.items()])
def test_bad_labels_are_refused_in_a_sentence_and_nothing_is_written(exported, tmp_path, spoil):
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    change, sentence = spoil
    change(tmp_path / "frames")
    with pytest.raises(DataError, match=sentence) as caught:
        import_(tmp_path / "frames")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drive", "frames"]


def test_a_zip_instead_of_the_folder(frames, capsys):
    archive = frames.parent / "frames.zip"
    archive.write_bytes(b"PK\x03\x04")
    assert main(["frames", "import", str(frames.parent / "drive"), str(archive)]) == 2
    assert "frames export' wrote, got a file; unpack an archive" in capsys.readouterr().err


def test_labels_go_to_the_bag_that_the_frames_are_of_and_replace_nothing_unasked(frames):
    save_mask(frames, label_of(0))
    other = write_bag(frames.parent / "short", frames=2)
    with pytest.raises(BagError, match="expected the bag that the frames are of, got one without 3 of their 5 stamps"):
        import_labels(other, frames)
    import_(frames)
    save_mask(frames, label_of(1))
    with pytest.raises(BagError, match="overwriting was not asked for"):
        import_(frames)
    assert np.array_equal(labels_in(frames)[0], label_of(0))
    import_(frames, overwrite=True)
    assert np.array_equal(labels_in(frames)[0], label_of(1))


def test_what_needs_the_extra_packages_says_so(frames, config, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    save_coco(frames, (1, 1, SQUARE))
    with pytest.raises(DataError, match=r"package pycocotools for polygons, got none installed; pip install .*labelling"):
        import_(frames)
    save_coco(frames, (1, 1, RUNS))  # run lengths need nothing
    assert import_(frames).labelled == 1
    export_frames(frames.parent / "drive", config, frames.parent / "x", LabelTopics("/none", ""))
    with pytest.raises(DataError, match="expected the package Pillow for PNG files with a palette"):
        export_frames(frames.parent / "drive", config, frames.parent / "y", GROUND_TRUTH)
    assert not (frames.parent / "y").exists()
