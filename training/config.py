"""Configuration of a training run, as one validated dataclass.

A run is configured by a recipe (``recipe.py``) and overrides on the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gemini_core.config.engine import build, named_numbers, option, to_flat
from gemini_core.config.sections import BACKBONES
from gemini_core.documents import parse_yaml
from gemini_core.errors import ConfigError, shown
from gemini_core.model.detection.mvxnet.config import MvxNetConfig
from gemini_core.model.detection.mvxnet.sparse import AUTO, RUNTIMES
from gemini_core.model.detection.pillars.detector import FUSIONS as DETECTOR_FUSIONS
from gemini_core.model.detection.pillars.detector import DetectorConfig
from gemini_core.model.segmentation import SegmenterConfig
from training.recipe import read_recipe, recipe_path

FUSIONS = ("gemini", "none", "cross_attention", "exchange")
DETECTORS = ("pillars", "mvxnet")
ALL_BLOCKS = -1

_SHORT_M = 2.5  # between a cyclist (1.76 m) and a car (3.9 m)


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which bags, and how they become frames."""

    train: tuple[str, ...] = option((), "bags to train on: paths of bags, of folders of bags, or patterns with * in them")
    val: tuple[str, ...] = option((), "bags that choose the best weights; the same forms")
    fusion: str = option("config/fusion.yaml", "the node's configuration, by which frames are made: sensors, topics, grid")
    cache: str = option("out/training/cache", "folder for the aligned frames, made on first use")
    labels: str = option(
        "/ground_truth/segmentation", "topic of the label images, stamped like the reference images; empty: there are none"
    )
    label_info: str = option(
        "/ground_truth/label_info", "topic that names the labels' values; empty: they are indices of model.classes"
    )
    boxes: str = option("/ground_truth/detections", "topic of the labelled boxes, stamped like the reference images")
    workers: int = option(1, "processes that load and augment frames; 0: the training process itself", minimum=0, maximum=64)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The network to train; its classes are those of the node's configuration."""

    modalities: tuple[str, ...] = option(("rgb", "depth", "event", "lidar"), "inputs of the network, rgb first")
    given: tuple[str, ...] = option((), "the ones of them that this run gives it, rgb first; empty: all")
    backbone: str = option("mit_b0", "backbone", choices=BACKBONES)
    head_width: int = option(256, "width of the segmentation head", minimum=8, maximum=4096)
    fusion: str = option("gemini", "how the streams are fused", choices=FUSIONS)
    fused_blocks: int = option(ALL_BLOCKS, "fuse in the last blocks only; -1: in all", minimum=ALL_BLOCKS, maximum=1000)
    drop_path: float = option(0.1, "rate of stochastic depth in the last block", minimum=0.0, maximum=0.9)
    head_dropout: float = option(0.1, "dropout in the head", minimum=0.0, maximum=0.9)
    gradient_checkpointing: bool = option(False, "compute blocks twice instead of keeping what they compute")
    weights: str = option(
        "",
        "safetensors file of ours to begin with (gemini-fusion import-weights makes one), of the same modalities, or of more "
        "where rgb is the only one here; empty: random",
    )


@dataclass(frozen=True, slots=True)
class DetectionConfig:
    """The detector of 3D boxes; its classes are ``detections.classes`` of the node's configuration."""

    enabled: bool = option(False, "train a detector on the labelled boxes of data.boxes")
    alone: bool = option(False, "train the detector only; everything else stays as model.weights has it")
    detector: str = option(
        "pillars",
        "which: 'pillars' on the backbone of the masks, or the paper's 'mvxnet', which has an image branch of its own and is "
        "trained alone",
        choices=DETECTORS,
    )
    fusion: str = option(
        "gemini", "how the image joins the points; 'none': their average, 'lidar': not at all", choices=DETECTOR_FUSIONS
    )
    painted: bool = option(
        False,
        "pillars: the detector also gets what the masks say at each point, so model.weights should have good masks; nothing to "
        "fusion 'lidar'",
    )
    x_min_m: float = option(0.0, "points and boxes from here on, ahead", minimum=-500.0, maximum=500.0)
    x_max_m: float = option(51.2, "and up to here", minimum=-500.0, maximum=500.0)
    y_max_m: float = option(25.6, "points and boxes up to here, to both sides", minimum=0.1, maximum=500.0)
    z_min_m: float = option(-3.0, "points and boxes from this height on", minimum=-100.0, maximum=100.0)
    z_max_m: float = option(4.0, "and up to this one", minimum=-100.0, maximum=100.0)
    cell_m: float = option(0.2, "pillars: side of one", minimum=0.01, maximum=10.0)
    covariance: bool = option(False, "pillars: give the variance of a box's place and yaw")
    voxel_m: float = option(0.05, "mvxnet: side of a voxel along x and y", minimum=0.01, maximum=10.0)
    voxel_height_m: float = option(0.1, "mvxnet: height of a voxel", minimum=0.01, maximum=10.0)
    channels: float = option(1.0, "mvxnet: share of the released model's channels", minimum=0.125, maximum=1.0)
    sparse: str = option(
        AUTO,
        "mvxnet: what computes its sparse convolutions; auto: spconv on a GPU where it is installed, else torch",
        choices=(AUTO, *RUNTIMES),
    )
    weight: float = option(1.0, "what the boxes' loss counts beside that of the masks", minimum=0.0, maximum=1000.0)
    lr_factor: float = option(10.0, "the detector learns this much faster than the backbone", minimum=0.01, maximum=1000.0)
    points: str = option(
        "auto",
        "whose points it gets; auto: the LiDAR's, of depth where the LiDAR is taken away",
        choices=("auto", "lidar", "depth"),
    )
    min_points: int = option(
        1, "labelled boxes with fewer points in them are neither asked for nor counted as wrong", minimum=0, maximum=1000
    )

    @property
    def range_m(self) -> tuple[float, float, float, float, float, float]:
        """The least x, y, z, then the largest."""
        return (self.x_min_m, -self.y_max_m, self.z_min_m, self.x_max_m, self.y_max_m, self.z_max_m)


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """What is done to a training frame: to all its modalities and its label alike, unless it says otherwise."""

    crop_height: int = option(0, "height of the training crop, grid pixels; 0: the whole grid", minimum=0, maximum=4096)
    crop_width: int = option(0, "width of the training crop, grid pixels; 0: the whole grid", minimum=0, maximum=8192)
    focus: float = option(
        0.0,
        "share of crops that are placed around a pixel of augment.focus_classes, each class in the frame as likely; the others "
        "lie anywhere",
        minimum=0.0,
        maximum=1.0,
    )
    focus_classes: tuple[str, ...] = option((), "classes of masks that crops are placed around; empty: all")
    flip: float = option(0.5, "share of frames mirrored left to right", minimum=0.0, maximum=1.0)
    scale_min: float = option(0.5, "least factor of the random scale", minimum=0.1, maximum=4.0)
    scale_max: float = option(2.0, "largest factor of the random scale", minimum=0.1, maximum=4.0)
    color_jitter: float = option(
        0.2, "rgb alone: largest relative change of brightness, contrast and saturation", minimum=0.0, maximum=0.9
    )
    blur: float = option(0.2, "rgb alone: share of frames blurred", minimum=0.0, maximum=1.0)
    noise: float = option(0.0, "depth and lidar alone: largest relative error of one frame's scale", minimum=0.0, maximum=0.5)
    drop_points: float = option(
        0.0,
        "lidar and event alone: largest share of a frame's pixels, and of its points, that lose their data",
        minimum=0.0,
        maximum=0.9,
    )
    turn_deg: float = option(0.0, "points and boxes alone: largest turn about the vertical", minimum=0.0, maximum=180.0)
    stretch: float = option(0.0, "points and boxes alone: largest relative change of their scale", minimum=0.0, maximum=0.5)
    paste: int = option(
        0, "most things of other frames put into a frame: points, boxes, pixels of all modalities, label", minimum=0, maximum=50
    )
    paste_points: int = option(5, "points that such a thing has at least", minimum=1, maximum=1000)
    modality_dropout: float = option(
        0.1, "rate at which each extra modality is missing from a whole batch, as the node meets it", minimum=0.0, maximum=0.9
    )
    modality_rates: str = option(
        "", "modality_dropout of single extra modalities instead, as 'modality:rate, modality:rate', such as 'lidar:0.5'"
    )

    def __post_init__(self) -> None:
        """Check what one option's range cannot say.

        Raises:
            ConfigError: scales out of order; a crop of one side only; a focus without a crop, or its classes without it.
        """
        if self.scale_min > self.scale_max:
            msg = f"augment.scale_min: expected at most augment.scale_max, got {self.scale_min}"
            raise ConfigError(msg)
        if bool(self.crop_height) != bool(self.crop_width):
            msg = "augment.crop_height: expected both sides of the crop or neither, got one"
            raise ConfigError(msg)
        if self.focus and not self.crop_height:
            msg = f"augment.focus: expected 0 without augment.crop_height and crop_width, got {self.focus}"
            raise ConfigError(msg)
        if self.focus_classes and not self.focus:
            msg = f"augment.focus_classes: expected none without augment.focus, got {', '.join(self.focus_classes)}"
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """AdamW, its schedule and the loss."""

    lr: float = option(6e-5, "learning rate of the backbone", minimum=1e-8, maximum=1.0)
    head_lr_factor: float = option(10.0, "the head learns this many times faster", minimum=0.01, maximum=1000.0)
    beta1: float = option(0.9, "AdamW's first beta", minimum=0.0, maximum=0.9999)
    beta2: float = option(0.999, "AdamW's second beta", minimum=0.0, maximum=0.999999)
    weight_decay: float = option(0.01, "weight decay; norms, biases and stream weights have none", minimum=0.0, maximum=1.0)
    steps: int = option(1000, "updates of the weights in the whole run", minimum=1, maximum=100_000_000)
    warmup_steps: int = option(100, "updates over which the rate rises linearly from a millionth", minimum=0, maximum=1_000_000)
    power: float = option(
        1.0, "power of the polynomial by which the rate falls to 0 at the last step", minimum=0.0, maximum=5.0
    )
    phases: int = option(
        1, "equal parts of the run, each with its own warm-up and half the rate of the one before", minimum=1, maximum=10
    )
    batch_size: int = option(4, "frames per process and micro-batch", minimum=1, maximum=1024)
    accumulate: int = option(1, "micro-batches whose gradients are added before an update", minimum=1, maximum=1024)
    clip_norm: float = option(0.0, "largest norm of the gradient; 0: not clipped", minimum=0.0, maximum=1e6)
    loss: str = option("cross_entropy", "loss of each stream and of the ensemble", choices=("cross_entropy", "ohem"))
    ohem_threshold: float = option(
        0.7, "ohem: pixels whose class has less than this probability count", minimum=0.0, maximum=1.0
    )
    ohem_least: float = option(0.0625, "ohem: at least this share of the pixels counts", minimum=0.0, maximum=1.0)
    class_balance: float = option(
        0.0,
        "classes weigh by their share of the pixels of whole frames to the power of minus this; 0: all alike",
        minimum=0.0,
        maximum=1.0,
    )
    ema_decay: float = option(
        0.0,
        "decay of the averaged weights, which are validated and saved; 0: the weights themselves",
        minimum=0.0,
        maximum=0.99999,
    )


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Where and how the run goes."""

    out: str = option("out/training/run", "folder of the run: checkpoints, weights, log, TensorBoard")
    seed: int = option(0, "seed of weights, order and augmentation", minimum=0, maximum=2**31 - 1)
    device: str = option("auto", "where to train", choices=("auto", "cpu", "cuda"))
    precision: str = option("fp32", "arithmetic of the forward pass", choices=("fp32", "bf16"))
    half: bool = option(False, "keep the saved weights as fp16, in half the space")
    threads: int = option(0, "CPU threads; 0: torch decides. A resumed run needs the same number", minimum=0, maximum=256)
    validate_every: int = option(500, "updates between validations", minimum=1, maximum=100_000_000)
    checkpoint_every: int = option(100, "updates between checkpoints to resume from", minimum=1, maximum=100_000_000)
    log_every: int = option(10, "updates between lines of the log", minimum=1, maximum=100_000)


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Everything about one run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        """Check what one option's range cannot say.

        Raises:
            ConfigError: a focus without labels; phases longer than their warm-up; modalities that the network cannot take.
        """
        if self.augment.focus and not self.data.labels:
            msg = f"augment.focus: expected 0 without data.labels, got {self.augment.focus}"
            raise ConfigError(msg)
        if self.optimizer.warmup_steps * self.optimizer.phases >= max(self.optimizer.steps, 2):
            msg = (
                f"optimizer.warmup_steps: expected less than the {self.optimizer.steps // self.optimizer.phases} steps of a "
                f"phase, got {self.optimizer.warmup_steps}"
            )
            raise ConfigError(msg)
        given = self.model.given
        if given and (given[0] != "rgb" or not set(given) <= set(self.model.modalities)):
            msg = f"model.given: expected rgb and others of {', '.join(self.model.modalities)}, got {', '.join(given)}"
            raise ConfigError(msg)
        if not (self.data.labels or self.detection.alone):
            msg = "data.labels: expected a topic of label images, but for detection.alone, got none"
            raise ConfigError(msg)
        if self.detection.alone and not self.detection.enabled:
            msg = "detection.alone: expected detection.enabled, got false"
            raise ConfigError(msg)
        if self.detection.alone and self.detection.painted and not self.model.weights and self.detection.detector != "mvxnet":
            msg = "detection.painted: expected model.weights with detection.alone, which leaves the masks as they are, got none"
            raise ConfigError(msg)
        if self.detection.detector == "mvxnet":
            self._check_mvxnet()
        self.dropout_rates()
        self.segmenter(1, ("any",))

    def dropout_rates(self) -> tuple[float, ...]:
        """The rate at which each of ``model.modalities`` is missing from a batch; rgb never is.

        Raises:
            ConfigError: ``augment.modality_rates`` is not 'modality:rate', names no extra modality, or has rates above 0.9.
        """
        extras = self.model.modalities[1:]
        single = named_numbers(
            self.augment.modality_rates,
            "augment.modality_rates",
            ("modality", "model.modalities without rgb", extras),
            ("rate", 0.9),
        )
        return (0.0, *(single.get(name, self.augment.modality_dropout) for name in extras))

    def _check_mvxnet(self) -> None:
        wanted = self.detection
        if not wanted.alone:
            msg = "detection.detector: expected detection.alone for mvxnet, which shares nothing with the masks, got false"
            raise ConfigError(msg)
        if wanted.fusion != "gemini":
            msg = f"detection.fusion: expected gemini for mvxnet, which knows no other, got {wanted.fusion}"
            raise ConfigError(msg)
        if wanted.covariance:
            msg = "detection.covariance: expected false for mvxnet, which gives no variances, got true"
            raise ConfigError(msg)
        if wanted.painted:
            msg = "detection.painted: expected false for mvxnet, which shares nothing with the masks, got true"
            raise ConfigError(msg)
        self.mvxnet(("any",), ((1.0, 1.0, 1.0),), (0.0,))

    def mvxnet(
        self, classes: tuple[str, ...], sizes_m: tuple[tuple[float, float, float], ...], bottoms_m: tuple[float, ...]
    ) -> MvxNetConfig:
        """Give MVX-Net's own configuration.

        The overlaps that make an anchor a box are those of the released model: lower for what is as short as a cyclist. Its
        image branch is frozen as there where weights are given to begin with, and learns as a whole where there are none.

        Args:
            classes: names of boxes.
            sizes_m: length, width and height of each class's anchors.
            bottoms_m: height of their lower faces.

        Raises:
            ConfigError: ranges or voxels that the network cannot take.
        """
        wanted, released = self.detection, MvxNetConfig()
        short = [length < _SHORT_M for length, _, _ in sizes_m]

        def share(width: int, of: int = 1) -> int:
            return max(1, round(width * wanted.channels / of)) * of

        def shares(widths: tuple[int, ...], of: int = 1) -> tuple[int, ...]:
            return tuple(share(width, of) for width in widths)

        return replace(
            released,
            classes=classes,
            anchor_sizes_m=sizes_m,
            anchor_bottoms_m=bottoms_m,
            positive_ious=tuple(0.35 if each else 0.6 for each in short),
            negative_ious=tuple(0.2 if each else 0.45 for each in short),
            range_m=wanted.range_m,
            voxel_m=(wanted.voxel_m, wanted.voxel_m, wanted.voxel_height_m),
            voxel_widths=shares(released.voxel_widths, released.fusion_heads),
            fused_width=share(released.fused_width, released.fusion_heads),
            image_base=share(released.image_base),
            image_width=share(released.image_width),
            image_frozen=bool(self.model.weights),
            sparse_base=share(released.sparse_base),
            sparse_widths=tuple(shares(stage) for stage in released.sparse_widths),
            sparse_output=share(released.sparse_output),
            plane_widths=shares(released.plane_widths),
            plane_outputs=shares(released.plane_outputs),
        )

    def segmenter(self, num_classes: int, box_classes: tuple[str, ...]) -> SegmenterConfig:
        """Give the network's own configuration.

        Args:
            num_classes: of masks.
            box_classes: names of boxes, used where a detector is to be trained.

        Raises:
            ConfigError: modalities, rates, blocks or ranges that the network cannot take.
        """
        wanted = self.detection
        detector = DetectorConfig(
            box_classes,
            range_m=wanted.range_m,
            cell_m=wanted.cell_m,
            fusion=wanted.fusion,  # type: ignore[arg-type]  # one of its choices
            painted=wanted.painted,
            covariance=wanted.covariance,
        )
        return SegmenterConfig(
            backbone=self.model.backbone,
            modalities=self.model.modalities,
            num_classes=num_classes,
            head_width=self.model.head_width,
            drop_path=self.model.drop_path,
            head_dropout=self.model.head_dropout,
            fusion=self.model.fusion,
            fused_blocks=None if self.model.fused_blocks == ALL_BLOCKS else self.model.fused_blocks,
            gradient_checkpointing=self.model.gradient_checkpointing,
            detector=detector if wanted.enabled else None,
        )


def load_training_config(name_or_path: str, overrides: Mapping[str, object] | None = None) -> TrainingConfig:
    """Read a recipe; ``overrides`` (dotted keys) win over it.

    Raises:
        ConfigError: no such recipe or base of one, an unknown key, or a value that breaks its option's rules.
    """
    path = recipe_path(name_or_path)
    return build(TrainingConfig, {**read_recipe(path), **(overrides or {})}, str(path))


def to_flat_lists(config: TrainingConfig) -> dict[str, object]:
    """Every option by its dotted key, as YAML and JSON write them."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in to_flat(config).items()}


def parse_override(text: str) -> tuple[str, object]:
    """Read ``section.option=value``, the value as YAML.

    Raises:
        ConfigError: it has no ``=``, or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals:
        msg = f"{shown(text)}: expected section.option=value"
        raise ConfigError(msg)
    return key, parse_yaml(value, shown(key)[1:-1], ConfigError)
