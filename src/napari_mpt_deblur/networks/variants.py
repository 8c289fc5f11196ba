"""The network variants of the paper's ablations (Tables 3, 4, 9 and 10) and of its released code, by name; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, get_args

from napari_mpt_deblur.errors import ModelError
from napari_mpt_deblur.networks.config import Activate, MPTConfig, Shortcut
from napari_mpt_deblur.networks.spandrel_config import SpandrelConfig, network_from_dict

BASES = MappingProxyType(
    {
        "paper": MPTConfig.paper,
        "released": MPTConfig.released,
        "compact": MPTConfig.compact,
        "tiny": MPTConfig.tiny,
    }
)


@dataclass(frozen=True)
class Variant:
    """One row of an ablation table.

    Attributes
    ----------
    about : str
    changes : mapping
        Settings of `MPTConfig` other than the base's.
    plain_windows : bool
        All scales become 1, which makes plain window attention (WA) of CSWA.
    """

    about: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    plain_windows: bool = False

    def of(self, base: MPTConfig) -> MPTConfig:
        """The variant of a network.

        Raises
        ------
        ModelError
            If the variant sets scales and the base has another number of sub-blocks.
        """
        changes = dict(self.changes)
        if self.plain_windows:
            changes["scales"] = tuple((1.0,) * len(scales) for scales in base.scales)
        changed = replace(base, **changes)
        if list(map(len, changed.scales)) != list(map(len, base.scales)):
            raise ModelError(
                f"This variant ({self.about}) is of networks with 6 sub-blocks at every stage, as the paper's; "
                f"the base has {', '.join(str(len(scales)) for scales in base.scales)}: give it as many scales."
            )
        return changed


_BRANCHES: dict[str, Variant] = {
    "table3-cswa-cswa": Variant("CSWA twice", {"branches": ("cswa", "cswa")}),
    "table3-wa-wa": Variant("plain window attention twice", {"branches": ("cswa", "cswa")}, plain_windows=True),
    "table3-isca-isca": Variant("ISCA twice", {"branches": ("isca", "isca")}),
    "table3-wa-isca": Variant("plain window attention and ISCA", plain_windows=True),
}

_FEED_FORWARD: dict[str, Variant] = {
    "table4-concat-gelu": Variant("branches concatenated, then GELU", {"fefn_join": "concatenate"}),
    "table4-add-gelu": Variant("branches added, then GELU", {"fefn_join": "add"}),
    "table4-reversed": Variant("x1 activated; also Table 9's FEFN1", {"fefn_activate": "x1"}),
}

# Figure 8 is not to be had: our reading of Table 9's FEFN2 to FEFN4
_FIGURE_8: dict[str, Variant] = {
    f"fig8-activate-{activate}-shortcut-{shortcut}": Variant(
        f"FEFN activates {activate}, shortcut {shortcut}", {"fefn_activate": activate, "fefn_shortcut": shortcut}
    )
    for activate in get_args(Activate)
    for shortcut in get_args(Shortcut)
}

_WINDOWS: dict[str, Variant] = {
    "table9-no-shortcut": Variant("down-sampling without its shortcut", {"down_projection": "plain"}),
    "table9-no-linear": Variant("down-sampling without linear layer and shortcut", {"down_projection": "none"}),
    "table9-max-pooling": Variant("down-sampling by maximum pooling", {"down_sampling": "max"}),
    "table9-convolution": Variant("down-sampling by strided convolution", {"down_sampling": "convolution"}),
    "table9-bicubic": Variant("down-sampling by bicubic interpolation", {"down_sampling": "bicubic"}),
    "table9-no-npconv": Variant("CSWA projects without 3x3 convolutions", {"np_conv": False}),
    "table9-no-shift": Variant("windows are never shifted", {"window_shift": False}),
}

_HALVES = (1 / 2, 1 / 2, 1 / 2, 1 / 2, 1.0, 1.0)
_QUARTERS = (1 / 4, 1 / 4, 1 / 2, 1 / 2, 1.0, 1.0)
_EIGHTHS = (1 / 8, 1 / 8, 1 / 4, 1 / 4, 1.0, 1.0)
_SIXTEENTHS = (1 / 16, 1 / 16, 1 / 8, 1 / 8, 1.0, 1.0)

_SCALES: dict[str, Variant] = {
    "table10-v1": Variant("all scales 1", plain_windows=True),
    "table10-v2": Variant("coarser scales", {"scales": (_SIXTEENTHS, _EIGHTHS, _QUARTERS, _QUARTERS)}),
    "table10-v3": Variant("finer scales", {"scales": (_QUARTERS, _HALVES, _HALVES, _HALVES)}),
}

_RELEASED: dict[str, Variant] = {
    "released": Variant(
        "the arithmetic of the authors' released code",
        {
            "window_attention": "cosine",
            "window_pairing": "raster",
            "channel_attention": "normalised",
            "fefn_shortcut": "x2",
        },
    ),
}

VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {"baseline": Variant("the network as it is")}
    | _RELEASED
    | _BRANCHES
    | _FEED_FORWARD
    | _FIGURE_8
    | _WINDOWS
    | _SCALES
)


def network_variant(name: str, base: MPTConfig | None = None) -> MPTConfig:
    """A variant of a network, by its name.

    Parameters
    ----------
    name : str
        One of `VARIANTS`.
    base : MPTConfig, optional
        The network it is a variant of; the paper's, of one channel, by default.

    Returns
    -------
    MPTConfig

    Raises
    ------
    ModelError
        If the name is unknown, or the variant is of networks with another number of sub-blocks.
    """
    return _known(VARIANTS, name, "variant").of(base or MPTConfig())


def network_from_settings(values: Any) -> MPTConfig | SpandrelConfig:
    """A network from the settings that a person writes, in a training configuration's table ``[network]``.

    Besides the names of `MPTConfig`, ``base`` begins with one of `BASES` instead of the defaults, and ``variant``
    makes a variant of the result. With ``architecture`` they are those of `SpandrelConfig`.

    Raises
    ------
    ModelError
        If a name is unknown or a value is not accepted.
    """
    if not isinstance(values, dict) or "architecture" in values:
        return network_from_dict(values)
    values = dict(values)
    variant, base = values.pop("variant", "baseline"), values.pop("base", None)
    if base is not None:
        values = _known(BASES, base, "base")().to_dict() | values
    return network_variant(variant, MPTConfig.from_dict(values))


def _known(choices: Mapping[str, Any], name: object, what: str) -> Any:
    if not isinstance(name, str) or name not in choices:
        (nearest,) = get_close_matches(str(name)[:80], choices, n=1, cutoff=0)
        raise ModelError(f"Unknown {what} of the network: {str(name)[:80]!r}; the nearest known is {nearest!r}.")
    return choices[name]
