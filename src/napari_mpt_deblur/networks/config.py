"""The configuration of a Multi-Pyramid Transformer: plain data, no torch, travels with the weights."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from fractions import Fraction
from typing import Any, Literal, get_args

from napari_mpt_deblur.errors import ModelError, ParameterError

Branch = Literal["cswa", "isca"]
WindowAttention = Literal["scaled", "cosine"]
WindowPairing = Literal["location", "raster"]
ChannelAttention = Literal["normalised", "literal"]
GlobalResidual = Literal["image", "features"]
DownSampling = Literal["average", "max", "convolution", "bicubic"]
DownProjection = Literal["residual", "plain", "none"]
Join = Literal["multiply", "concatenate", "add"]
Activate = Literal["x2", "x1", "both", "none"]
Shortcut = Literal["x1", "x2", "none"]

STAGES = 4
_MAX_DIM = 4096
_MAX_SUB_BLOCKS = 64
_MAX_MULTIPLE_PX = 2048  # the smallest image is padded to a square of it
_CHOICES = {
    "window_attention": get_args(WindowAttention),
    "window_pairing": get_args(WindowPairing),
    "channel_attention": get_args(ChannelAttention),
    "global_residual": get_args(GlobalResidual),
    "down_sampling": get_args(DownSampling),
    "down_projection": get_args(DownProjection),
    "fefn_join": get_args(Join),
    "fefn_activate": get_args(Activate),
    "fefn_shortcut": get_args(Shortcut),
}


@dataclass(frozen=True)
class MPTConfig:
    """Shape and variants of an `MPT` network.

    Parameters
    ----------
    in_channels : int
        Channels of the image, in and out.
    dims : tuple of int
        Feature width of the four stages; even, and from the second stage on a multiple of 4 (pixel-unshuffle).
    heads : tuple of int
        Attention heads of the four stages; each divides its width.
    scales : tuple of tuple of float
        Local scales S of each stage, one a sub-block, coarse to fine; each 1 / 2**k. Their number is the stage's
        number of sub-blocks and is even, since windows are shifted in every other sub-block (section 3.1).
    window : int
        Side M of an attention window, in pixels of its map.
    expansion : float
        alpha, the hidden width of the feed-forward network in units of the stage's width.
    stem : int
        Pixel-unshuffle factor before the first convolution; 1 is the paper's network, 2 works at half resolution.
    window_attention : {"scaled", "cosine"}
        ``"scaled"`` divides by the root of the head's width (the paper); ``"cosine"`` normalises q and k and learns a
        temperature (the released code).
    window_pairing : {"location", "raster"}
        Which window of keys a window of queries attends to where scales are below 1: ``"location"`` the one that
        covers its place (the paper); ``"raster"`` the one that comes to it when windows are counted row by row (the
        released code, see `networks.raster`).
    channel_attention : {"normalised", "literal"}
        ``"normalised"`` L2-normalises q and k over the pixels and learns a temperature; ``"literal"`` is equation 2 as
        printed, whose softmax saturates with the image's area.
    global_residual : {"image", "features"}
        What is added before the output: the image after the last convolution, or the first convolution's features
        before it (Figure 2).
    branches : tuple of str
        The two attentions of a sub-block, each ``"cswa"`` or ``"isca"``: the first gives x1, the second x2
        (Table 3). Scales that are all 1 make plain window attention of CSWA.
    down_sampling : {"average", "max", "convolution", "bicubic"}
        How CSWA scales its map down (Table 9): average or maximum pooling, a depth-wise convolution whose stride is
        its kernel, or bicubic interpolation with antialiasing.
    down_projection : {"residual", "plain", "none"}
        The linear layer after it: with a shortcut, without, or neither of the two (Table 9).
    np_conv : bool
        Whether CSWA's projections end in a 3x3 convolution over the whole map, or are linear layers only (Table 9).
    window_shift : bool
        Whether every other sub-block has shifted windows (Table 9).
    fefn_join : {"multiply", "concatenate", "add"}
        How the feed-forward network joins its branches; ``"concatenate"`` and ``"add"`` are followed by GELU (Table 4).
    fefn_activate : {"x2", "x1", "both", "none"}
        What GELU is applied to before branches are multiplied; ``"x1"`` is Table 4's reversed structure.
    fefn_shortcut : {"x1", "x2", "none"}
        Which branch, as it came, is added to the feed-forward network's result.

    Notes
    -----
    What does not stand in a model file has the value given here: the paper's network. `networks.variants` names the
    variants of the paper's tables.

    Raises
    ------
    ModelError
        If a value is outside what the network accepts.
    """

    in_channels: int = 1
    dims: tuple[int, ...] = (40, 80, 160, 320)
    heads: tuple[int, ...] = (1, 2, 4, 8)
    scales: tuple[tuple[float, ...], ...] = (
        (1 / 8, 1 / 8, 1 / 4, 1 / 4, 1.0, 1.0),
        (1 / 4, 1 / 4, 1 / 2, 1 / 2, 1.0, 1.0),
        (1 / 2, 1 / 2, 1 / 2, 1 / 2, 1.0, 1.0),
        (1 / 2, 1 / 2, 1 / 2, 1 / 2, 1.0, 1.0),
    )
    window: int = 8
    expansion: float = 2.6
    stem: int = 1
    window_attention: WindowAttention = "scaled"
    window_pairing: WindowPairing = "location"
    channel_attention: ChannelAttention = "normalised"
    global_residual: GlobalResidual = "image"
    branches: tuple[Branch, Branch] = ("cswa", "isca")
    down_sampling: DownSampling = "average"
    down_projection: DownProjection = "residual"
    np_conv: bool = True
    window_shift: bool = True
    fefn_join: Join = "multiply"
    fefn_activate: Activate = "x2"
    fefn_shortcut: Shortcut = "x1"

    def __post_init__(self) -> None:
        # TOML, JSON and safetensors headers bring lists
        object.__setattr__(self, "dims", tuple(self.dims))
        object.__setattr__(self, "heads", tuple(self.heads))
        object.__setattr__(self, "scales", tuple(tuple(float(s) for s in stage) for stage in self.scales))
        object.__setattr__(self, "branches", tuple(self.branches))
        _validate_shape(self)
        _validate_variant(self)

    @classmethod
    def paper(cls, in_channels: int = 3) -> MPTConfig:
        """The paper's configuration: 19.80 M parameters (section 4.2)."""
        return cls(in_channels=in_channels)

    @classmethod
    def released(cls, in_channels: int = 3) -> MPTConfig:
        """The paper's configuration with the arithmetic of the authors' released code, of their checkpoints."""
        return cls(in_channels=in_channels, window_attention="cosine", window_pairing="raster", fefn_shortcut="x2")

    @classmethod
    def compact(cls, in_channels: int = 1) -> MPTConfig:
        """The configuration of the bundled model: half resolution inside, 24 sub-blocks, for CPUs."""
        return cls(
            in_channels=in_channels,
            dims=(32, 64, 96, 128),
            heads=(1, 2, 3, 4),
            scales=((1 / 8, 1.0), (1 / 4, 1 / 4, 1.0, 1.0), (1 / 2, 1 / 2, 1.0, 1.0), (1.0, 1.0, 1.0, 1.0)),
            expansion=2.0,
            stem=2,
        )

    @classmethod
    def tiny(cls, in_channels: int = 1) -> MPTConfig:
        """The smallest useful network: for tests and trying things out."""
        return cls(
            in_channels=in_channels,
            dims=(8, 8, 16, 16),
            heads=(1, 1, 2, 2),
            scales=((1 / 2, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0)),
            window=4,
            expansion=1.5,
            stem=2,
        )

    @property
    def size_multiple(self) -> int:
        """Height and width that the network accepts are multiples of this many pixels (SPEC A, size rule)."""
        rule = 1
        for stage, scales in enumerate(self.scales):
            for scale in scales:
                rule = math.lcm(rule, round(self.window / scale) * 2**stage)
        return rule * self.stem

    def describe(self) -> str:
        """In a line, for people."""
        arithmetic = {"raster": "the released arithmetic", "location": "the paper's arithmetic"}[self.window_pairing]
        scales = " | ".join(",".join(f"1/{round(1 / s)}" if s < 1 else "1" for s in stage) for stage in self.scales)
        return f"Multi-Pyramid Transformer, {self.in_channels} channels, {arithmetic}, scales {scales}"

    @property
    def pools_channels(self) -> bool:
        """Whether tiles share the channel attention of their plane (`ChannelPool`)."""
        return True

    @property
    def tiles_agree(self) -> bool:
        """Whether tiles can be restored as their whole plane would be: not where windows are paired by number."""
        return self.window_pairing == "location" or all(scale == 1 for scales in self.scales for scale in scales)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for JSON and TOML; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MPTConfig:
        """A configuration from plain data.

        Raises
        ------
        ModelError
            If a key is unknown or a value is not accepted.
        """
        if not isinstance(values, dict):
            raise ModelError("The network configuration is not a table of names and values; the file is damaged.")
        known = {field.name for field in fields(cls)}
        unknown = sorted(map(str, set(values) - known))
        if unknown:
            name = unknown[0][:80]  # a hostile file's has no end
            (nearest,) = get_close_matches(name, known, n=1, cutoff=0)
            raise ModelError(f"Unknown network setting {name!r}; the nearest known is {nearest!r}.")
        try:
            return cls(**values)
        except ModelError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise ModelError(f"The network configuration is damaged: {error}.") from error


def stage_scales(text: str) -> tuple[float, ...]:
    """Local scales of a stage as people write them, such as ``1/8,1/4,1``.

    Raises
    ------
    ParameterError
        If they are not numbers.
    """
    try:
        return tuple(float(Fraction(part.strip())) for part in text.split(","))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise ParameterError(f"Scales must be numbers such as 1/8,1/4,1; got {text[:80]!r}.") from error


def _validate_shape(config: MPTConfig) -> None:
    _whole(config.in_channels, "in_channels", 1, 64)
    _whole(config.window, "window", 2, 64)
    if config.window % 2:
        raise ModelError(f"window must be even, since windows shift by half of it; got {config.window}.")
    _whole(config.stem, "stem", 1, 4)
    if config.stem == 3:
        raise ModelError(f"stem must be 1, 2 or 4; got {config.stem!r}.")
    if type(config.expansion) not in (int, float) or not 0.1 <= config.expansion <= 16:
        raise ModelError(f"expansion must be between 0.1 and 16; got {config.expansion!r}.")
    for name in ("dims", "heads", "scales"):
        if len(getattr(config, name)) != STAGES:
            raise ModelError(f"{name} must have {STAGES} entries, one a stage; got {len(getattr(config, name))}.")
    for dim, heads in zip(config.dims, config.heads, strict=True):
        _whole(dim, "dims", 2, _MAX_DIM)
        _whole(heads, "heads", 1, _MAX_DIM)
        if dim % heads or dim % 2:
            raise ModelError(f"each width must be even and a multiple of its heads; got width {dim}, heads {heads}.")
    if any(dim % 4 for dim in config.dims[1:]):
        raise ModelError(f"from the second stage on, each width must be a multiple of 4; got {config.dims}.")
    if int(config.expansion * min(config.dims)) < 1:
        raise ModelError(f"expansion {config.expansion} of width {min(config.dims)} leaves no hidden channel.")
    for scales in config.scales:
        if not scales or len(scales) % 2 or len(scales) > _MAX_SUB_BLOCKS:
            raise ModelError(f"each stage needs an even number of scales, at most {_MAX_SUB_BLOCKS}; got {scales}.")
        for scale in scales:
            if not 1 / 64 <= scale <= 1 or math.log2(scale) != int(math.log2(scale)):
                raise ModelError(f"each scale must be 1, 1/2, 1/4, ... 1/64; got {scale}.")
        if list(scales) != sorted(scales):
            raise ModelError(f"the scales of a stage go from coarse to fine; got {scales}.")
    if config.size_multiple > _MAX_MULTIPLE_PX:
        raise ModelError(
            f"windows, scales and stem accept sizes that are multiples of {config.size_multiple} pixels only; "
            f"at most {_MAX_MULTIPLE_PX} fit a computer's memory."
        )


def _validate_variant(config: MPTConfig) -> None:
    if len(config.branches) != 2:
        raise ModelError(f"branches must be two attentions; got {config.branches}.")
    for branch in config.branches:
        _choice(branch, "each of branches", get_args(Branch))
    for name, choices in _CHOICES.items():
        _choice(getattr(config, name), name, choices)
    for name in ("np_conv", "window_shift"):
        _choice(getattr(config, name), name, (True, False))
    if config.fefn_join != "multiply" and config.fefn_activate != "x2":
        raise ModelError(
            "fefn_activate is for branches that are multiplied: leave it out, or set fefn_join to multiply."
        )


def _whole(value: object, name: str, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ModelError(f"{name} must be a whole number from {low} to {high}; got {value!r}.")


def _choice(value: object, name: str, choices: tuple[str | bool, ...]) -> None:
    if type(value) is not type(choices[0]) or value not in choices:
        raise ModelError(f"{name} must be one of {', '.join(map(str, choices)).lower()}; got {value!r}.")
