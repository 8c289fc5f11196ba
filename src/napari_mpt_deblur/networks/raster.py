"""Cross-scale windows paired as the authors' released code pairs them: by their number, not by their place."""

from __future__ import annotations

from torch import Tensor


class RasterPairing:
    """Windows of queries are counted row by row on the full map; number i attends to window i // G of the small map.

    G = (1/S)^2 windows of queries follow one another for each window of keys, so they form one query set and the keys
    are never repeated. Before the convolution and the shift, the same list of windows is laid out, in its order, as G
    maps of the down-scaled size; after them it is read from these maps in the same order.

    Parameters
    ----------
    factor : int
        1/S.
    window : int
        M.
    """

    def __init__(self, factor: int, window: int) -> None:
        self.factor, self.group, self.window = factor, factor**2, window

    def deal(self, x: Tensor) -> Tensor:
        """(N, C, H, W), its M x M windows laid out anew as small maps, (N G, C, H S, W S)."""
        n, c, height, width = x.shape
        m, rows, columns = self.window, height // self.factor // self.window, width // self.factor // self.window
        windows = x.movedim(1, -1).reshape(n, height // m, m, width // m, m, c).transpose(2, 3)
        maps = windows.reshape(n * self.group, rows, columns, m, m, c).transpose(2, 3)
        return maps.reshape(n * self.group, rows * m, columns * m, c).movedim(-1, 1)

    def query_sets(self, windows: Tensor, images: int) -> Tensor:
        """Windows of the small maps, (N G, windows, heads, M^2, d), to (N, windows, heads, G M^2, d)."""
        _, count, heads, tokens, d = windows.shape
        sets = windows.reshape(images, count, self.group, heads, tokens, d).transpose(2, 3)
        return sets.reshape(images, count, heads, self.group * tokens, d)

    def single_windows(self, sets: Tensor) -> Tensor:
        """(N windows, heads, G M^2, d) to (N windows G, heads, M^2, d), in the order of the full map."""
        count, heads, tokens, d = sets.shape
        windows = sets.reshape(count, heads, self.group, tokens // self.group, d).transpose(1, 2)
        return windows.reshape(count * self.group, heads, tokens // self.group, d)

    def bias(self, position: Tensor, mask: Tensor | None, images: int) -> Tensor:
        """Added to the products of `query_sets` and keys.

        Parameters
        ----------
        position : Tensor
            (M^2, M^2, heads), of a window of queries and one of keys.
        mask : Tensor, optional
            (windows, M^2, M^2), of the small map.
        images : int
            N.

        Returns
        -------
        Tensor
            (1 or N windows, heads, G M^2, M^2).
        """
        bias = position.permute(2, 0, 1)[None]  # (1, heads, M^2, M^2)
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(images, 1, 1, 1)
        return bias.repeat(1, 1, self.group, 1)
