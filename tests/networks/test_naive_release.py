"""The yardstick of the benchmarks is what it says: the released arithmetic, which is ours but for known differences."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from napari_mpt_deblur.networks import MPT, CrossScaleWindowAttention, MPTConfig

_NAIVE = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "naive_release.py"))
NaiveRelease, Attention = _NAIVE["NaiveRelease"], _NAIVE["Attention"]

STAGES = {"encoder.0": "encoder_level1", "encoder.1": "encoder_level2", "encoder.2": "encoder_level3"}
STAGES |= {"encoder.3": "latent"} | {f"decoder.{i}": f"decoder_level{i + 1}" for i in range(3)}
SUB_BLOCK = {
    "norm.weight": "norm1.body.weight",
    "norm.bias": "norm1.body.bias",
    "cswa.query.0.weight": "attn.q.1.weight",
    "cswa.query.1.weight": "attn.q_dwconv.1.weight",
    "cswa.key_value.0.weight": "attn.kv.1.weight",
    "cswa.key_value.1.weight": "attn.kv_dwconv.1.weight",
    "cswa.scale_down.project.weight": "attn.downsamp.downproj.weight",
    "cswa.project.weight": "attn.project_out.1.weight",
    "cswa.position_bias": "attn.relative_position_bias_table",
    "cswa.temperature": "attn.temperature.1",
    "isca.project.weight": "attn.project_out.0.weight",
    "isca.temperature": "attn.temperature.0",
    "fefn.spatial_norm.weight": "norm2.1.body.weight",
    "fefn.spatial_norm.bias": "norm2.1.body.bias",
    "fefn.spatial.weight": "ffn.project_in2.weight",
    "fefn.channel_norm.weight": "norm2.0.body.weight",
    "fefn.channel_norm.bias": "norm2.0.body.bias",
    "fefn.channel.0.weight": "ffn.project_in1.weight",
    "fefn.channel.1.weight": "ffn.dwconv1.weight",
    "fefn.project.weight": "ffn.project_out.weight",
}


def random_weights(module: torch.nn.Module) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in module.parameters():
            weights.normal_(std=0.3)


def released_names(network: MPT) -> dict[str, torch.Tensor]:
    """The network's weights by the released names and in the released shapes."""
    released = {}
    for key, values in network.state_dict().items():
        path, stage, *rest = key.split(".")
        if path in ("input", "output"):
            released[{"input": "inproj", "output": "output"}[path] + ".weight"] = values
        elif path in ("down", "up"):
            low, high = int(stage) + 1, int(stage) + 2
            released[f"{f'down{low}_{high}' if path == 'down' else f'up{high}_{low}'}.body.0.weight"] = values
        else:
            prefix, name = f"{STAGES[f'{path}.{stage}']}.{rest[0]}", ".".join(rest[1:])
            if name.startswith("isca.query_key_value"):  # one layer here, two there
                layer, dim = ("", "_dwconv")[int(name.split(".")[2])], values.shape[0] // 3
                shape = (-1, values.shape[1], 1, 1) if not layer else values.shape
                q, kv = values[:dim], values[dim:]
                released[f"{prefix}.attn.q{layer}.0.weight"] = q.reshape(-1, *shape[1:])
                released[f"{prefix}.attn.kv{layer}.0.weight"] = kv.reshape(-1, *shape[1:])
            else:
                is_1x1 = name == "fefn.channel.0.weight"
                released[f"{prefix}.{SUB_BLOCK[name]}"] = values[..., None, None] if is_1x1 else values
    return released


def test_without_scales_it_is_our_network() -> None:
    """Cosine attention, the channel branch as shortcut; windows of one scale pair alike by index and by location."""
    tiny = MPTConfig.tiny()
    config = replace(tiny, scales=((1.0, 1.0),) * 4, stem=1, window_attention="cosine", fefn_shortcut="x2")
    network, naive = MPT(config).double(), NaiveRelease(config).double()
    random_weights(network)
    missing, unexpected = naive.load_state_dict(released_names(network), strict=False)
    assert not unexpected
    assert all(name.endswith("relative_position_index") for name in missing)
    image = torch.rand(2, 1, 32, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = network(image)
        assert (expected - image).abs().max() > 0.1
        torch.testing.assert_close(naive(image), expected, rtol=0, atol=1e-9 * expected.abs().max().item())


@pytest.mark.parametrize("columns", [1, 2])
def test_across_scales_it_pairs_by_raster_index(columns: int) -> None:
    """In a map that is one window of keys wide, that is by location; in a wider one it is not.

    The 3x3 convolutions are the identity here: in the released arithmetic they run on queries dealt out anew.
    """
    naive = Attention(4, 2, 4, 2, False).double()
    ours = CrossScaleWindowAttention(4, 2, 1 / 2, 4, False, "cosine").double()
    random_weights(naive)
    with torch.no_grad():
        for convolution in (naive.q_dwconv[1], naive.kv_dwconv[1]):
            convolution.weight.zero_()[:, :, 1, 1] = 1
    state = naive.state_dict()
    names = {name[5:]: released[5:] for name, released in SUB_BLOCK.items() if name.startswith("cswa.")}
    ours.load_state_dict({name: state[released] for name, released in names.items()})
    x = torch.randn(1, 4, 24, 8 * columns, dtype=torch.float64)
    difference = (naive.windows(x) - ours(x)).abs().max()
    assert (difference < 1e-12) == (columns == 1)


def test_it_has_the_papers_weights() -> None:
    with torch.device("meta"):
        network = NaiveRelease(MPTConfig.paper())
        assert network(torch.empty(1, 3, 128, 128)).shape == (1, 3, 128, 128)
    assert sum(weights.numel() for weights in network.parameters()) == pytest.approx(19.80e6, abs=5e3)
    names = set(network.state_dict())
    assert {"inproj.weight", "down3_4.body.0.weight", "up2_1.body.0.weight", "latent.5.norm1.body.bias"} < names
    assert "encoder_level1.0.attn.downsamp.downproj.weight" in names
    assert "encoder_level1.4.attn.downsamp.downproj.weight" not in names
