"""Cross-scale windows paired as the authors' released code pairs them: by their number, not by their place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_mpt_deblur.networks.windows import Windows


class RasterPairing:
    """Windows of queries are counted row by row on the full map; number i attends to window i // G of the small map.

    G = (1/S)^2 windows of queries follow one another for each window of keys, so they form one query set and the keys
    are never repeated. Before the convolution and the shift, the same list of windows is laid out, in its order, as G
    maps of the down-scaled size; after them it is read from these maps in the same order.

    Parameters
    ----------
    windows : Windows
        Of the queries, were they paired by their place.
    """

    def __init__(self, windows: Windows) -> None:
        self.factor, self.group = windows.patches, windows.patches**2
        self.single = windows.keys  # M x M, on any map

    def deal(self, x: Tensor) -> Tensor:
        """(N, C, H, W), its M x M windows laid out anew as small maps, (N G, C, H S, W S)."""
        n, c, height, width = x.shape
        m = self.single.side
        rows, columns = height // self.factor // m, width // self.factor // m
        windows = x.movedim(1, -1).reshape(n, height // m, m, width // m, m, c).transpose(2, 3)
        maps = windows.reshape(n * self.group, rows, columns, m, m, c).transpose(2, 3)
        return maps.reshape(n * self.group, rows * m, columns * m, c).movedim(-1, 1)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
        """Within each window of keys and its set of queries, Softmax(scale q k^T + bias) v.

        Parameters
        ----------
        query : Tensor
            (N G, C, H S, W S), as `deal` lays maps out.
        key, value : Tensor
            (N, C, H S, W S).
        bias : Tensor
            (heads, M^2, M^2).
        scale : float

        Returns
        -------
        Tensor
            (N, C, H, W), the windows back in their places on the full map.
        """
        n, c, height, width = value.shape
        heads, tokens, _ = bias.shape
        q, k, v = (self.single.cut(x.to(value.dtype)) for x in (query, key, value))  # (windows, M^2, C)
        q = q.reshape(k.shape[0], self.group * tokens, c)  # windows in a row are those that share their keys
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        bias = self._masked(bias.to(value.dtype), n, height, width).repeat(1, 1, self.group, 1)
        out = F.scaled_dot_product_attention(q, k, v, bias, scale=scale)  # (N windows, heads, G M^2, d)
        windows = out.transpose(1, 2).reshape(-1, tokens, c)
        return self.single.join(windows, torch.Size((n, c, height * self.factor, width * self.factor)))

    def _masked(self, bias: Tensor, n: int, height: int, width: int) -> Tensor:
        """The bias of every window of keys, the mask of shifted ones added: (1 or N windows, heads, M^2, M^2)."""
        if not self.single.shifted:
            return bias[None]
        side = self.single.side
        masked = bias[:, None].expand(n, height // side, width // side, -1, 1, -1, -1).clone()
        self.single.mask_(masked)
        return masked.flatten(0, 2).squeeze(2)
