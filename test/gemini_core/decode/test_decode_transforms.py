"""TFMessage to matrices, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gemini_core.bag import messages
from gemini_core.decode.transforms import decode_transforms
from gemini_core.errors import DecodeError


def transform(quaternion=(0.0, 0.0, 0.0, 1.0), translation=(1.0, 2.0, 3.0), parent="base", child="lidar", stamp_ns=5):
    x, y, z = translation
    qx, qy, qz, qw = quaternion
    return messages.make(
        "geometry_msgs/msg/TransformStamped",
        header=messages.header(stamp_ns, parent),
        child_frame_id=child,
        transform=messages.make(
            "geometry_msgs/msg/Transform",
            translation=messages.make("geometry_msgs/msg/Vector3", x=x, y=y, z=z),
            rotation=messages.make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
        ),
    )


def decode(*transforms, static=False):
    return decode_transforms(messages.make("tf2_msgs/msg/TFMessage", transforms=list(transforms)), static, "/tf")


def test_a_quarter_turn_by_hand():
    half = np.sqrt(0.5)
    sample = decode(transform((0.0, 0.0, half, half), stamp_ns=3), transform(stamp_ns=9, child="imu"), static=True)
    np.testing.assert_allclose(
        sample.transforms[0].parent_from_child, [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], atol=1e-12
    )
    assert (sample.transforms[0].parent, sample.transforms[0].child, sample.transforms[0].stamp_ns) == ("base", "lidar", 3)
    assert (sample.stamp_ns, sample.static, len(sample.transforms)) == (9, True, 2)


@pytest.mark.parametrize("scale", [1e-3, 0.999, 2.0, 1e300])
def test_quaternions_are_normalised(scale):
    quaternion = np.array([0.1, -0.2, 0.3, 0.9])
    expected = Rotation.from_quat(quaternion).as_matrix()
    matrix = decode(transform(tuple(scale * quaternion))).transforms[0].parent_from_child
    np.testing.assert_allclose(matrix[:3, :3], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"quaternion": (0.0, 0.0, 0.0, 0.0)}, "zero_quaternion", "from 'lidar' to 'base' on topic '/tf'"),
        ({"quaternion": (0.0, float("nan"), 0.0, 1.0)}, "not_finite", "nan"),
        ({"translation": (0.0, float("inf"), 0.0)}, "not_finite", "inf"),
        ({"child": ""}, "no_frame_id", "names of both frames"),
        ({"parent": "/"}, "no_frame_id", "names of both frames"),
    ],
)
def test_a_bad_transform_refuses_the_message(changes, reason, words):
    with pytest.raises(DecodeError) as error:
        decode(transform(), transform(**changes))
    assert error.value.reason == reason
    assert words in str(error.value)


def test_a_message_without_transforms_is_refused():
    with pytest.raises(DecodeError) as error:
        decode()
    assert error.value.reason == "no_transforms"


@given(st.tuples(*[st.floats()] * 4), st.tuples(*[st.floats()] * 3))
def test_any_numbers_give_a_rotation_or_an_error(quaternion, translation):
    try:
        matrix = decode(transform(quaternion, translation)).transforms[0].parent_from_child
    except DecodeError:
        return
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-9)
    np.testing.assert_array_equal(matrix[:3, 3], translation)
