"""The authors' published checkpoints: their names and shapes of weights, and ours (SPEC D)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from napari_mpt_deblur.errors import ModelError
from napari_mpt_deblur.networks.config import STAGES, MPTConfig

_LEVELS = {"encoder_level1": ("encoder", 0), "encoder_level2": ("encoder", 1), "encoder_level3": ("encoder", 2)}
_LEVELS |= {"latent": ("encoder", 3)}
_LEVELS |= {"decoder_level1": ("decoder", 0), "decoder_level2": ("decoder", 1), "decoder_level3": ("decoder", 2)}
_BETWEEN = {"down1_2": "down.0", "down2_3": "down.1", "down3_4": "down.2"}
_BETWEEN |= {"up2_1": "up.0", "up3_2": "up.1", "up4_3": "up.2"}

# ours -> theirs, within a sub-block; several of theirs lie in one of ours, one below the other
_SUB_BLOCK: dict[str, tuple[str, ...]] = {
    "norm.weight": ("norm1.body.weight",),
    "norm.bias": ("norm1.body.bias",),
    "cswa.position_bias": ("attn.relative_position_bias_table",),
    "cswa.temperature": ("attn.temperature.1",),
    "cswa.scale_down.project.weight": ("attn.downsamp.downproj.weight",),
    "cswa.query.0.weight": ("attn.q.1.weight",),
    "cswa.query.1.weight": ("attn.q_dwconv.1.weight",),
    "cswa.key_value.0.weight": ("attn.kv.1.weight",),
    "cswa.key_value.1.weight": ("attn.kv_dwconv.1.weight",),
    "cswa.project.weight": ("attn.project_out.1.weight",),
    "isca.temperature": ("attn.temperature.0",),
    "isca.query_key_value.0.weight": ("attn.q.0.weight", "attn.kv.0.weight"),
    "isca.query_key_value.1.weight": ("attn.q_dwconv.0.weight", "attn.kv_dwconv.0.weight"),
    "isca.project.weight": ("attn.project_out.0.weight",),
    "fefn.spatial_norm.weight": ("norm2.1.body.weight",),
    "fefn.spatial_norm.bias": ("norm2.1.body.bias",),
    "fefn.spatial.weight": ("ffn.project_in2.weight",),
    "fefn.channel_norm.weight": ("norm2.0.body.weight",),
    "fefn.channel_norm.bias": ("norm2.0.body.bias",),
    "fefn.channel.0.weight": ("ffn.project_in1.weight",),
    "fefn.channel.1.weight": ("ffn.dwconv1.weight",),
    "fefn.project.weight": ("ffn.project_out.weight",),
}
_DOWN_SCALED = "cswa.scale_down.project.weight"
INDEX = "attn.relative_position_index"
_MARK = "encoder_level1.0.attn.temperature.1"
_SUB_BLOCK_KEY = re.compile(rf"({'|'.join(_LEVELS)})\.(\d{{1,3}})\.(.+)")


def without_prefix(names: Sequence[str]) -> dict[str, str]:
    """Each name without what wrappers put before all of them, such as ``module.Network.``, and as it is in the file."""
    prefixes = [name.removesuffix(_MARK) for name in names if name.endswith(_MARK)]
    prefix = prefixes[0] if prefixes else ""
    if prefix.endswith(".") and all(name.startswith(prefix) for name in names):
        return {name.removeprefix(prefix): name for name in names}
    return {name: name for name in names}


def is_released(names: Sequence[str]) -> bool:
    """Whether weights of these names (without prefix) are a Multi-Pyramid Transformer of the authors'."""
    return {"inproj.weight", "output.weight", _MARK} <= set(names)


def infer_config(
    shapes: Mapping[str, tuple[int, ...]], scales: tuple[tuple[float, ...], ...] | None = None
) -> MPTConfig:
    """The network that weights of these shapes belong to.

    Which sub-blocks work on a down-scaled map is seen by their projection; how far it is scaled down is not. Unless
    told, it is as in the paper, for as many sub-blocks and at the same places.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        By the released names, without prefix.
    scales : tuple of tuple of float, optional
        S of each sub-block of the four stages.

    Raises
    ------
    ModelError
        If they are not a network of the authors', contradict each other or what is told, or do not tell enough.
    """
    counts = _count_sub_blocks(shapes)
    encoder, decoder = list(counts.values())[:STAGES], list(counts.values())[STAGES:]
    if encoder[:-1] != decoder:
        raise ModelError("its encoder and decoder have different numbers of sub-blocks")
    levels = list(_LEVELS)[:STAGES]
    tables = [_shape(shapes, f"{level}.0.attn.relative_position_bias_table", 2) for level in levels]
    dims = tuple(_shape(shapes, f"{level}.0.norm1.body.weight", 1)[0] for level in levels)
    hidden = [_shape(shapes, f"{level}.0.ffn.project_in2.weight", 2)[0] for level in levels]
    return MPTConfig.from_dict(
        MPTConfig.released().to_dict()
        | {
            "in_channels": _shape(shapes, "inproj.weight", 4)[1],
            "dims": dims,
            "heads": tuple(table[1] for table in tables),
            "scales": _scales(shapes, encoder, scales),
            "window": _window(tables[0][0]),
            "expansion": _expansion(dims, hidden),
        }
    )


def converted_names(config: MPTConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each of our names of a network's weights, and those of the released weights that lie in it."""
    yield "input.weight", ("inproj.weight",)
    yield "output.weight", ("output.weight",)
    for theirs, ours in _BETWEEN.items():
        yield f"{ours}.0.weight", (f"{theirs}.body.0.weight",)
    for level, (path, stage) in _LEVELS.items():
        for j, scale in enumerate(config.scales[stage]):
            for name, parts in _SUB_BLOCK.items():
                if name != _DOWN_SCALED or scale < 1:
                    yield f"{path}.{stage}.{j}.{name}", tuple(f"{level}.{j}.{part}" for part in parts)


def convert(
    weights: Mapping[str, Any], config: MPTConfig, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Released weights as ours.

    Parameters
    ----------
    weights : mapping of str to ndarray
        float32, by the released names, without prefix.
    config : MPTConfig
    shapes : mapping of str to tuple of int
        What the configuration's network needs, by our names.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ModelError
        If weights are missing, surplus or of other shapes, or a table of positions is not Swin's.
    """
    left, found = dict(weights), {}
    for name, parts in converted_names(config):
        missing = [part for part in parts if part not in left]
        if missing:
            raise ModelError(f"it lacks the weights {missing[0]!r}")
        # 1x1 convolutions are linear layers here
        arrays = [_as_linear(left.pop(part), len(shapes[name])) for part in parts]
        if len({array.shape[1:] for array in arrays}) > 1 or _stacked(arrays) != shapes[name]:
            shape = " x ".join(map(str, _stacked(arrays)))
            needed = " x ".join(map(str, shapes[name]))
            raise ModelError(f"its weights {' and '.join(parts)} are {shape}, the network needs {needed}")
        found[name] = np.concatenate(arrays)
    for name in [name for name in left if name.endswith(INDEX)]:
        _check_index(name, left.pop(name), config.window)
    if left:
        raise ModelError(f"it holds weights {min(left)[:80]!r} that the network does not have")
    return found


def relative_position_index(window: int) -> np.ndarray:
    """Swin's table: which row of the position biases a query and a key of a window take, (M^2, M^2)."""
    y, x = (axis.ravel() for axis in np.mgrid[:window, :window])
    rows = y[:, None] - y + window - 1
    return rows * (2 * window - 1) + x[:, None] - x + window - 1


def _check_index(name: str, values: Any, window: int) -> None:
    if not np.array_equal(np.asarray(values), relative_position_index(window)):
        raise ModelError(f"its table {name!r} does not count positions as windows of {window} x {window} pixels do")


def _as_linear(array: Any, dimensions: int) -> np.ndarray:
    array = np.asarray(array)
    return array[..., 0, 0] if dimensions == 2 and array.ndim == 4 and array.shape[2:] == (1, 1) else array


def _stacked(arrays: Sequence[np.ndarray]) -> tuple[int, ...]:
    first, *_ = arrays
    return (sum(len(array) for array in arrays) if first.ndim else 0, *first.shape[1:])


def _count_sub_blocks(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    found: dict[str, set[int]] = {level: set() for level in _LEVELS}
    for name in shapes:
        match = _SUB_BLOCK_KEY.fullmatch(name)
        if match:
            found[match[1]].add(int(match[2]))
    for level, numbers in found.items():
        if numbers != set(range(len(numbers))) or not numbers:
            raise ModelError(f"the sub-blocks of its {level} are not numbered from 0 without a gap")
    return {level: len(numbers) for level, numbers in found.items()}


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str, dimensions: int) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None or len(shape) != dimensions:
        raise ModelError(f"it lacks the weights {name!r}, or they have not {dimensions} dimensions")
    return shape


def _window(rows: int) -> int:
    window = (math.isqrt(rows) + 1) // 2
    if (2 * window - 1) ** 2 != rows:
        raise ModelError(f"its tables of position biases have {rows} rows, which is no window's number")
    return window


def _expansion(dims: Sequence[int], hidden: Sequence[int]) -> float:
    """The shortest decimal number alpha for which ``int(alpha * dim)`` is the hidden width of every stage."""
    low = max(width / dim for dim, width in zip(dims, hidden, strict=True))
    for decimals in range(8):
        alpha = math.ceil(low * 10**decimals - 1e-6) / 10**decimals
        if all(int(alpha * dim) == width for dim, width in zip(dims, hidden, strict=True)):
            return alpha
    raise ModelError(f"its hidden widths {list(hidden)} are no common multiple of its widths {list(dims)}")


def _scales(
    shapes: Mapping[str, tuple[int, ...]], counts: Sequence[int], told: tuple[tuple[float, ...], ...] | None
) -> tuple[tuple[float, ...], ...]:
    scaled = [
        [f"{level}.{j}.attn.downsamp.downproj.weight" in shapes for j in range(count)]
        for level, count in zip(list(_LEVELS)[:STAGES], counts, strict=True)
    ]
    if told is None:
        paper = MPTConfig.paper().scales
        if scaled == [[scale < 1 for scale in stage] for stage in paper]:
            return paper
        if not any(map(any, scaled)):
            return tuple((1.0,) * count for count in counts)
        raise ModelError(
            "its scales are not the paper's and its weights do not tell them: give the scales of all stages"
        )
    if [[scale < 1 for scale in stage] for stage in told] != scaled:
        where = "; ".join(",".join("<1" if below else "1" for below in stage) for stage in scaled)
        raise ModelError(f"the scales given are not those of its sub-blocks, which are {where}")
    return told
