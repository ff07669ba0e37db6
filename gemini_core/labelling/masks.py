"""Mask labels as PNG: indices of classes, or the colours of CVAT's "Segmentation mask 1.1"."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gemini_core.bag.labels import NAMES_OF_NOTHING
from gemini_core.errors import DataError, nearest_names
from gemini_core.extras import need
from gemini_core.files import check_regular, read_text
from gemini_core.labelling.index import COLORED_MASKS, LABEL_MAP, MASKS, Index, IndexedFrame
from gemini_core.render import palette
from gemini_core.types import U8, UNLABELLED

LabelReader: TypeAlias = Callable[[IndexedFrame], "U8 | None"]
"""Gives the label (H, W) uint8 of a frame, None where there is none."""

_COLOR_PARTS = 3
_PNG_KIND = 25  # where a PNG says whether it is grey (0) or has a palette; its bits per value stand before that


def encode_mask(label: U8, classes: Sequence[str]) -> bytes:
    """Make a PNG of class indices (H, W) whose palette shows the classes' colours.

    Raises:
        DataError: Pillow is missing.
    """
    image = need("PIL.Image", "Pillow", "PNG files with a palette", "labelling").fromarray(label)
    image.putpalette(palette(classes).tobytes())  # and so the mode is P
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def open_masks(folder: Path, index: Index) -> LabelReader | None:
    """Find the PNG files of class indices in ``masks/``; None where there are none.

    Raises:
        DataError: a file that is no PNG or belongs to no frame, or two of one frame; from the reader: one that cannot be read,
            has another size than the image, is no picture of 8-bit indices, or has values that are no class.
    """
    paths = _pictures(folder / MASKS, index)

    def read(frame: IndexedFrame) -> U8 | None:
        path = paths.get(frame.name)
        return None if path is None else _indices(path, frame, index.classes)

    return read if paths else None


def open_colored_masks(folder: Path, index: Index) -> LabelReader | None:
    """Find what CVAT exports as "Segmentation mask 1.1": ``SegmentationClass/*.png`` and ``labelmap.txt``; None without.

    Black that ``labelmap.txt`` does not name is background, and so unlabelled.

    Raises:
        DataError: as :func:`open_masks`; and no ``labelmap.txt``, or a line of it that cannot be read; from the reader: a
            colour that it does not name, or names as something that is no class.
    """
    paths = _pictures(folder / COLORED_MASKS, index)
    if not paths:
        return None
    names = _label_map(folder / LABEL_MAP)

    def read(frame: IndexedFrame) -> U8 | None:
        path = paths.get(frame.name)
        return None if path is None else _from_colors(path, frame, index.classes, names)

    return read


def class_value(name: str, classes: Sequence[str], where: str) -> int:
    """Mask value of a class's name: its index, or UNLABELLED for names of nothing.

    Raises:
        DataError: it is no class; ``where`` says what names it.
    """
    if name in classes:
        return classes.index(name)
    if name in NAMES_OF_NOTHING:
        return UNLABELLED
    msg = f"{where}: expected a class of frames.json, got {name!r} ({nearest_names(name, classes)})"
    raise DataError(msg)


def _pictures(folder: Path, index: Index) -> dict[str, Path]:
    """All files below a folder by the name of their frame."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("[!.]*")):
        if path.is_dir():
            continue
        if path.suffix.lower() != ".png":
            msg = f"{path}: expected PNG files in {folder.name}/ only, got another one"
            raise DataError(msg)
        name = index.frame(path.stem, str(path)).name
        if name in found:
            msg = f"{folder}: expected one file for frame {name}, got {found[name].relative_to(folder)} and {path.name}"
            raise DataError(msg)
        found[name] = path
    return found


def _open(path: Path, frame: IndexedFrame, modes: dict[str, str], kind: str) -> npt.NDArray[Any]:
    """Read a picture of the frame's size; ``modes`` are Pillow's modes that will do, and what each is to become."""
    pillow = need("PIL.Image", "Pillow", "reading masks", "labelling")
    check_regular(path)
    try:
        with pillow.open(path) as image:
            if image.size != (frame.width, frame.height):
                msg = (
                    f"{path}: expected the image's {frame.width} x {frame.height} pixels, got {image.size[0]} x {image.size[1]}"
                )
                raise DataError(msg)
            if image.mode not in modes:
                msg = f"{path}: expected {kind} (mode {' or '.join(modes)}), got mode {image.mode}"
                raise DataError(msg)
            become = modes[image.mode]
            return np.array(image if image.mode == become else image.convert(become))
    except (OSError, EOFError, struct.error, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        msg = f"{path}: expected a PNG that can be read, got {' '.join(str(error).split()).replace(str(path), 'another file')}"
        raise DataError(msg) from None


def _indices(path: Path, frame: IndexedFrame, classes: Sequence[str]) -> U8:
    label: U8 = _open(path, frame, {"P": "P", "L": "L"}, "8-bit class indices").astype(np.uint8)
    with path.open("rb") as file:
        depth, kind = file.read(_PNG_KIND + 1)[-2:]
    if kind == 0 and depth < 8:  # noqa: PLR2004 - bits; Pillow spreads fewer of grey over 0 to 255
        msg = f"{path}: expected 8-bit class indices, got a grey picture of {depth} bits"
        raise DataError(msg)
    wrong = label[(label >= len(classes)) & (label != UNLABELLED)]
    if wrong.size:
        msg = (
            f"{path}: expected indices of {len(classes)} classes or {UNLABELLED}, got {np.bincount(wrong).argmax()} at "
            f"{wrong.size} pixels"
        )
        raise DataError(msg)
    return label


def _from_colors(path: Path, frame: IndexedFrame, classes: Sequence[str], names: dict[int, str]) -> U8:
    colors = _open(path, frame, {"RGB": "RGB", "RGBA": "RGB", "P": "RGB"}, "a picture in colours").astype(np.int32)
    codes = colors[..., 0] << 16 | colors[..., 1] << 8 | colors[..., 2]
    present, where = np.unique(codes, return_inverse=True)
    values = np.full(len(present), UNLABELLED, np.uint8)
    for position, code in enumerate(present.tolist()):
        if code in names:
            values[position] = class_value(names[code], classes, f"{path}: colour #{code:06x} of {LABEL_MAP}")
        elif code:
            msg = f"{path}: expected colours of {LABEL_MAP}, got #{code:06x} at {int((codes == code).sum())} pixels"
            raise DataError(msg)
    label: U8 = values[where].reshape(codes.shape)
    return label


def _label_map(path: Path) -> dict[int, str]:
    """Read lines such as ``road:128,64,128::`` as colour (red << 16 | green << 8 | blue) -> name."""
    try:
        lines = read_text(path).splitlines()
    except DataError as error:
        got = str(error).partition(", got ")[2]
        msg = f"{path}: expected the file that CVAT exports beside {COLORED_MASKS}/, got {got}"
        raise DataError(msg) from None
    names: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, color, *_ = *line.split(":"), ""
        parts = [part.strip() for part in color.split(",")]
        if len(parts) != _COLOR_PARTS or not all(part.isdecimal() and int(part) <= 255 for part in parts):  # noqa: PLR2004
            msg = f"{path}, line {number}: expected 'name:red,green,blue:parts:actions', got {line!r}"
            raise DataError(msg)
        red, green, blue = map(int, parts)
        code = red << 16 | green << 8 | blue
        if names.setdefault(code, name.strip()) != name.strip():
            msg = (
                f"{path}, line {number}: expected a colour for each label, got that of {names[code]!r} for {name.strip()!r} too"
            )
            raise DataError(msg)
    return names
