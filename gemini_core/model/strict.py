"""Strict loading of tensors into a network, all or nothing: none too many, none too few, none of another shape."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from gemini_core.errors import WeightsError, shown
from gemini_core.files import check_regular

_Network = TypeVar("_Network", bound=nn.Module)

_MOST_PER_TENSOR, _FEW = 4, 100  # parameters made for each that stays: some are replaced while a network is built
_NAMED = 3  # keys that an error names before it only counts


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file.

    Raises:
        WeightsError: the file is missing or is not of that format.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - not a dict


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata alone.

    Raises:
        WeightsError: as ``read_safetensors``.
    """
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    check_regular(path, WeightsError, "safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        msg = f"{path}: expected a readable safetensors file, got {' '.join(str(error).split())}"
        raise WeightsError(msg) from None


def fill(make: Callable[[], _Network], tensors: Mapping[str, Tensor], where: str) -> _Network:
    """Give a network, in evaluation mode, tensors that must fit exactly; floating-point ones become fp32.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape, or the network has far more of them than there are, or
            sizes that no tensor has; ``where`` says where they come from.
    """
    # On "meta" no time, memory or random numbers are spent on weights that are replaced at once.
    with torch.device("meta"), _at_most(_MOST_PER_TENSOR * len(tensors) + _FEW, where):
        network = make()
    expected = network.state_dict()
    _check_keys(expected, tensors, where)
    check_shapes(expected, tensors, where)
    # Cloned, since the tensors may be the caller's, or parts of one.
    state = {
        name: tensor.to(expected[name].dtype).clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    trained = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    network.load_state_dict(state, assign=True)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trained[name])
    return network.eval()


@contextmanager
def _at_most(parameters: int, where: str) -> Iterator[None]:
    """Stop the building of a network that has more parameters: a file may ask for any number of blocks.

    Raises:
        WeightsError: it has, or its numbers are too large to be sizes.
    """
    made, thread = 0, threading.get_ident()

    def count(_module: nn.Module, _name: str, _parameter: object) -> None:
        nonlocal made
        made += threading.get_ident() == thread
        if made > parameters:
            msg = f"{where}: expected a network of as many weights as the file has, got one of more than {parameters}"
            raise WeightsError(msg)

    counting = register_module_parameter_registration_hook(count)
    try:
        yield
    except (RuntimeError, ArithmeticError, ValueError, TypeError, MemoryError) as error:
        msg = f"{where}: expected a network of sizes that can be, got {type(error).__name__}: {shown(str(error))}"
        raise WeightsError(msg) from None
    finally:
        counting.remove()


def check_shapes(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: str) -> None:
    """Compare tensors, all of them expected, with those that they are to replace.

    Raises:
        WeightsError: one has another shape.
    """
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            msg = f"{where}: expected {name} of shape {tuple(expected[name].shape)}, got {tuple(tensor.shape)}"
            raise WeightsError(msg)


def _check_keys(expected: Iterable[str], got: Iterable[str], where: str) -> None:
    missing = sorted(set(expected) - set(got))
    unknown = sorted(set(got) - set(expected))
    if missing or unknown:
        msg = f"{where}: expected exactly the model's weights, got {some(missing)} missing and {some(unknown)} unknown"
        raise WeightsError(msg)


def some(names: list[str]) -> str:
    """Say how many names there are and which are the first."""
    if not names:
        return "none"
    shown = ", ".join(names[:_NAMED])
    return f"{len(names)} ({shown}{', ...' if len(names) > _NAMED else ''})"
