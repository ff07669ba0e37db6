"""Motion compensation by odometry: brings data to where the reference camera was at its own stamp.

A frame that stays in place (``motion.fixed_frame``, REP 105's odom) leads from one stamp to the other:
``reference_from_sensor = inv(fixed_from_reference(reference's stamp)) @ fixed_from_sensor(data's stamp)``.

Odometry comes on topics of its own, or never. Which frames count on it must not depend on what has arrived when, so it
follows from stamps alone, of which those older than ``sync.max_wait_ms`` are there by promise: see ``_counts_on_odometry``.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from gemini_core.config.fusion import FusionConfig
from gemini_core.rig.transform_tree import TransformTree
from gemini_core.types import F64, I64, Placement, SweepMotion

_SILENCE_NS = 10_000_000_000
"""Odometry that has sent nothing for so long has ended; as long as transforms are kept, as in tf2."""

_LARGEST_TURN = 8e-3
"""Radians between two poses that points are blended between: errs by at most 100 m * turn**2 / 8 = 0.8 mm at 100 m."""


def buffer_ns(max_wait_ns: int) -> int:
    """How long transforms must be kept for the rule of odometry."""
    return _SILENCE_NS + 2 * max_wait_ns


class Motion:
    """Answers for data of one frame at a time.

    Args:
        config: the fixed frame, and for how long a frame waits.
        tree: the transforms.
    """

    def __init__(self, config: FusionConfig, tree: TransformTree) -> None:
        self._tree = tree
        self._fixed = config.motion.fixed_frame
        self._max_wait_ns = round(config.sync.max_wait_ms * 1e6)
        self._first_image_ns: int | None = None

    @property
    def enabled(self) -> bool:
        """Whether motion is looked at."""
        return bool(self._fixed)

    def begin(self, stamp_ns: int) -> None:
        """Learn the stamp of an image; the oldest since the start or ``clear`` counts, as the first may have a wrong stamp."""
        self._first_image_ns = stamp_ns if self._first_image_ns is None else min(self._first_image_ns, stamp_ns)

    def clear(self) -> None:
        """Begin anew with the next image."""
        self._first_image_ns = None

    def expected(self, reference_frame_id: str) -> bool:
        """Whether the transforms say that the reference camera may move: they know the fixed frame, or something that moves it.

        For people alone: what arrived so far decides it.
        """
        return self.enabled and (self._tree.knows(self._fixed) or self._tree.moves(reference_frame_id))

    def needed(self, data: Placement) -> bool:
        """Whether odometry moves the data: not events, which end at the reference's stamp, nor what was measured at it."""
        moves = data.modality in {"depth", "lidar"} and self.enabled
        return moves and not data.start_ns == data.end_ns == data.stamp_ns

    def must_wait(self, data: Placement) -> bool:
        """Whether odometry at the data's stamps is still to be waited for."""
        return self.needed(data) and self._counts_on_odometry(data) and bool(self._unknown(data))

    def lack(self, data: Placement) -> str:
        """Say in one sentence which odometry the data lacks to be brought to the reference's stamp, "" where none."""
        if not self.needed(data):
            return ""
        unknown = self._unknown(data)
        if unknown or self._counts_on_odometry(data):
            return unknown
        return (
            f"expected transforms to {self._fixed!r} from at least {self._max_wait_ns / 1e6:g} ms before the image, so that "
            "frames can count on them; got newer ones only"
        )

    def reference_from_sensor(self, data: Placement, stamps_ns: I64) -> F64:
        """(K, 4, 4) float64 from the sensor's frame at K stamps to the reference's at its own.

        Raises:
            CalibrationError: unknown; ``lack`` says so before.
        """
        reference_from_fixed = np.linalg.inv(self._tree.lookup(self._fixed, data.reference_frame_id, data.stamp_ns))
        found: F64 = reference_from_fixed @ self._tree.lookups(self._fixed, data.frame_id, stamps_ns)
        return found

    def sweep(self, data: Placement) -> SweepMotion:
        """Poses over a sweep with point times, so close that blending points between two of them errs below 1 mm at 100 m.

        Raises:
            CalibrationError: unknown; ``lack`` says so before.
        """
        # Between two known stamps the turn is even; at them it may change.
        bends = self._tree.stamps_between(self._fixed, data.frame_id, data.start_ns, data.end_ns)
        stamps_ns = np.array([data.start_ns, *bends, data.end_ns])
        poses = self.reference_from_sensor(data, stamps_ns)
        parts = np.maximum(1, np.ceil(_turns(poses) / _LARGEST_TURN)).astype(int)
        if parts.max() > 1:
            finer = [
                first + (last - first) * part // count
                for (first, last), count in zip(itertools.pairwise(stamps_ns.tolist()), parts.tolist(), strict=True)
                for part in range(count)
            ]
            stamps_ns = np.unique([*finer, data.end_ns])
            poses = self.reference_from_sensor(data, stamps_ns)
        return SweepMotion(stamps_ns, poses)

    def _counts_on_odometry(self, data: Placement) -> bool:
        """Whether the frame waits for odometry and uses it.

        So do frames less than twice the wait after the first image, since odometry may begin as late as other topics; after
        that, frames before which it has come within ten seconds, and no later than ``sync.max_wait_ms`` before the image: what
        is older is there already. A rig without odometry so waits for it at the start alone.
        """
        if self._first_image_ns is None or data.stamp_ns < self._first_image_ns + 2 * self._max_wait_ns:
            return True
        until_ns = data.stamp_ns - self._max_wait_ns
        return all(
            self._tree.told_within(self._fixed, frame_id, until_ns - _SILENCE_NS, until_ns)
            for frame_id in (data.reference_frame_id, data.frame_id)
        )

    def _unknown(self, data: Placement) -> str:
        return (
            self._tree.why_not(self._fixed, data.reference_frame_id, data.stamp_ns)
            or self._tree.why_not(self._fixed, data.frame_id, data.start_ns)
            or self._tree.why_not(self._fixed, data.frame_id, data.end_ns)
        )


def _turns(poses: F64) -> F64:
    """Angles (K - 1,) between neighbouring rotations; the norm of their difference is sqrt(8) sin(angle / 2)."""
    difference = np.linalg.norm(np.diff(poses[:, :3, :3], axis=0), axis=(1, 2))
    angles: F64 = 2.0 * np.arcsin(np.minimum(difference / math.sqrt(8.0), 1.0))
    return angles
