"""Networks of others', built by spandrel from a configuration or found by it from weights."""

from __future__ import annotations

import inspect
import json
import math
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from napari_mpt_deblur.errors import ImageError, ModelError
from napari_mpt_deblur.networks.spandrel_config import MAX_MULTIPLE_PX, SpandrelConfig

MISSING = (
    "networks of others need spandrel: pip install 'napari-mpt-deblur[spandrel]', "
    "or [spandrel-extra] for Restormer and others whose licences restrict their use"
)
_PROBE_PX = 64
_LEAST_MULTIPLE_PX = 8  # tiles are planned in units of it
_HELD_AT_ONCE = 6  # times the largest intermediate result; results of one layer, its inputs and a shortcut or two
_TABLES, _TABLES_BYTES = 1000, 2**26  # that a network may make for itself, beyond its weights
_TOO_MUCH = "its network would take far more memory than its weights; it is damaged or hostile"
_Call = Callable[[nn.Module, Tensor], Tensor]


class SpandrelNetwork(nn.Module):
    """A network of others' behind the interface of ours: (N, C, H, W) to the same, values of about 0 to 1.

    Parameters
    ----------
    config : SpandrelConfig
    model : nn.Module
    call : callable
        How spandrel calls it.
    """

    def __init__(self, config: SpandrelConfig, model: nn.Module, call: _Call) -> None:
        super().__init__()
        self.config, self.model, self._call = config, model, call

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W).

        Raises
        ------
        ImageError
            If the channels or the size do not fit the configuration.
        ModelError
            If the network makes something else of it.
        """
        multiple = self.config.size_multiple
        if image.ndim != 4 or image.shape[1] != self.config.in_channels or any(n % multiple for n in image.shape[2:]):
            raise ImageError(
                f"The network takes (N, {self.config.in_channels}, H, W) with sides that are multiples of {multiple}; "
                f"got {tuple(image.shape)}."
            )
        height, width = image.shape[2:]
        asked = _squared(image) if self.config.square else image
        out = self._call(self.model, asked)
        if isinstance(out, Tensor) and out.shape == asked.shape:
            out = out[..., :height, :width]
        if not isinstance(out, Tensor) or out.shape != image.shape:
            raise ModelError(f"{self.config.architecture} does not restore an image to one of its size: not usable.")
        return out


def build(config: SpandrelConfig, weights: Mapping[str, Tensor] | None = None) -> SpandrelNetwork:
    """A network with random weights.

    Parameters
    ----------
    config : SpandrelConfig
        May be absurd: it can come from a hostile file.
    weights : mapping of str to Tensor, optional
        Which the network is to have: one that would take much more memory is not built. They are not loaded.

    Raises
    ------
    ModelError
        If spandrel is not installed or does not know the architecture, or its parameters make no network.
    """
    support = _registry().get(config.architecture)
    if support is None:
        raise ModelError(f"The installed spandrel knows no {config.architecture}; {MISSING}.")
    architecture = support.architecture
    try:
        with _Watch(weights):
            model = _constructor(architecture)(**config.parameters)
            found = architecture.load(dict(model.state_dict()))  # says how it is called
    except ModelError:
        raise
    except Exception as error:  # whatever an architecture makes of such parameters
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise ModelError(f"{config.architecture} cannot be built from its parameters: {reason}.") from error
    if (found.input_channels, found.output_channels) != (config.in_channels,) * 2 or found.scale != 1:
        raise ModelError(
            f"{config.architecture} takes {found.input_channels} channels and gives {found.output_channels} "
            f"at {found.scale} times the size; the configuration says {config.in_channels} at the same size."
        )
    if config.size_multiple % _multiple(found):
        raise ModelError(
            f"{config.architecture} takes sizes that are multiples of {_multiple(found)}: set size_multiple to that, "
            f"not {config.size_multiple}."
        )
    if found.size_requirements.square and not config.square:
        raise ModelError(f"{config.architecture} takes squares only: set square to true.")
    return SpandrelNetwork(config, model, found._call_fn).eval()


def identify(weights: Mapping[str, Tensor]) -> SpandrelNetwork:
    """The network that a state dict belongs to, with these weights.

    Raises
    ------
    ModelError
        If spandrel is not installed, knows no such network or finds that it does something else than restore.
    """
    registry = _registry()
    from spandrel import ImageModelDescriptor, canonicalize_state_dict

    state = canonicalize_state_dict(dict(weights))
    support = next((support for support in registry.architectures("detection") if support.detect(state)), None)
    if support is None:
        raise ModelError("its weights are of no network that spandrel knows")
    name = support.architecture.id
    try:
        with _Watch(state):
            found = support.architecture.load(
                {key: values.float() if values.is_floating_point() else values for key, values in state.items()}
            )
    except ModelError:
        raise
    except Exception as error:  # whatever an architecture makes of weights that do not fit
        raise ModelError(f"its weights look like {name}, but do not fit it") from error
    if not isinstance(found, ImageModelDescriptor) or found.scale != 1 or found.purpose == "FaceSR":
        raise ModelError(f"it is {name}, which does something else than restoring an image at its own size")
    if found.input_channels != found.output_channels or found.input_channels not in (1, 3):
        raise ModelError(
            f"it is {name} of {found.input_channels} channels in and {found.output_channels} out; needed are 1 or 3"
        )
    if _multiple(found) > MAX_MULTIPLE_PX:
        raise ModelError(f"it is {name} for sizes that are multiples of {_multiple(found)}, more than any image's")
    try:
        return _like(name, found)
    except ModelError:
        raise
    except RuntimeError as error:  # of torch: what it makes of an image
        raise ModelError(f"it is {name}, which cannot restore an image with these weights") from error


def _like(name: str, found: Any) -> SpandrelNetwork:
    """The same network, built as it will be when it is loaded; checked against the one that spandrel made."""
    multiple = _multiple(found)
    try:
        parameters = json.loads(json.dumps(_told(found.model), allow_nan=False))
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"it is {name}, whose parameters cannot be written down") from error
    side = multiple * math.ceil(_PROBE_PX / multiple)
    image = torch.rand((1, found.input_channels, side, side), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), _Watch() as watch:
        expected = found._call_fn(found.model.eval(), image)
    bytes_per_px = max(1.0, _HELD_AT_ONCE * watch.largest_bytes / side**2)
    square = bool(found.size_requirements.square)
    network = build(SpandrelConfig(name, found.input_channels, multiple, square, bytes_per_px, parameters))
    network.model.load_state_dict(found.model.state_dict())
    with torch.inference_mode():
        if not torch.equal(network(image), expected):
            raise ModelError(f"it is {name}, of which another network comes back from its parameters")
    return network


def _told(model: Any) -> dict[str, Any]:
    """What its constructor was told beyond its defaults, some of which are no plain data."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(type(model)).parameters.items()}
    return {
        name: value
        for name, value in model.hyperparameters.items()
        if value != defaults.get(name, inspect.Parameter.empty)
    }


def _multiple(found: Any) -> int:
    """The least size that is allowed, of which multiples are allowed, too."""
    rule = max(found.size_requirements.multiple_of, found.size_requirements.minimum)
    return rule * math.ceil(_LEAST_MULTIPLE_PX / rule)


def _squared(image: Tensor) -> Tensor:
    """Continued by reflection, downwards or to the right."""
    side = max(image.shape[2:])
    for axis in (2, 3):
        length = image.shape[axis]
        place = torch.arange(side, device=image.device) % max(1, 2 * (length - 1))
        image = image.index_select(axis, torch.minimum(place, 2 * (length - 1) - place).clamp_min(0))
    return image


def _constructor(architecture: Any) -> Callable[..., nn.Module]:
    """The network's class, which stands beside its architecture."""
    module = sys.modules[type(architecture).__module__]
    for name in module.__all__:
        kind = getattr(module, name)
        if isinstance(kind, type) and issubclass(kind, nn.Module):
            return kind
    raise ModelError(f"{architecture.id} cannot be built by spandrel.")


class _Watch(TorchDispatchMode):
    """Sees what torch makes: refuses what a network of such weights does not need, before it is made, and notes the
    largest."""

    def __init__(self, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.largest_bytes, self._bytes_left, self._tensors_left = 0, math.inf, math.inf
        if weights is not None:
            self._bytes_left = 16 * sum(values.numel() for values in weights.values()) + _TABLES_BYTES
            self._tensors_left = 3 * len(weights) + _TABLES
        self._most_bytes = self._bytes_left

    def __torch_dispatch__(self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], (list, tuple)) and all(isinstance(n, int) for n in args[0]):
            self._take(8 * math.prod(args[0]))
        if 8 * _broadcast_size(args) > self._most_bytes:  # of a table that is made of small ones
            raise ModelError(_TOO_MUCH)
        result = function(*args, **(kwargs or {}))
        for part in result if isinstance(result, (list, tuple)) else (result,):
            if isinstance(part, Tensor):
                self.largest_bytes = max(self.largest_bytes, part.numel() * part.element_size())
        return result

    def _take(self, number: int) -> None:
        self._bytes_left -= number
        self._tensors_left -= 1
        if min(self._bytes_left, self._tensors_left) < 0:
            raise ModelError(_TOO_MUCH)


def _broadcast_size(args: Any) -> int:
    """Of what an operation makes of these arguments, number by number or one beside the other."""
    if args and isinstance(args[0], (list, tuple)):
        return sum(part.numel() for part in args[0] if isinstance(part, Tensor))
    try:
        return math.prod(torch.broadcast_shapes(*(part.shape for part in args if isinstance(part, Tensor))))
    except RuntimeError:  # it does something else, such as a product of matrices
        return 0


@lru_cache(maxsize=1)
def _registry() -> Any:
    """All architectures of the installed packages.

    Raises
    ------
    ModelError
        If spandrel is not installed.
    """
    try:
        with _torchvision():
            from spandrel import MAIN_REGISTRY

            registry = MAIN_REGISTRY.copy()
            try:
                from spandrel_extra_arches import EXTRA_REGISTRY
            except ModuleNotFoundError:
                return registry
            registry.add(*EXTRA_REGISTRY, ignore_duplicates=True)
            return registry
    except ImportError as error:
        raise ModelError(f"{MISSING[0].upper()}{MISSING[1:]}.") from error


@contextmanager
def _torchvision() -> Iterator[None]:
    """torchvision, or where it is missing or made for another torch, an empty stand-in while spandrel is imported.

    spandrel imports it for two of its networks (LaMa, RestoreFormer) that are not for restoring microscopy.
    """
    before = set(sys.modules)
    try:
        import_module("torchvision.transforms.functional")
        yield
        return
    except Exception:  # a RuntimeError where it does not fit torch
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "torchvision":
                del sys.modules[name]
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    stand_ins = {name: types.ModuleType(name) for name in names}
    functional = stand_ins[names[-1]]
    for name in ("InterpolationMode", "rotate", "normalize"):
        setattr(functional, name, None)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
