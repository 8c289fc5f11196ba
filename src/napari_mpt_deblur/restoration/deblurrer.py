"""`Deblurrer`: the one engine behind widget, command line and Python."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.images import ImageView, Normalization, PlaneIndex
from napari_mpt_deblur.images.statistics import normalization_steps
from napari_mpt_deblur.networks.guard import no_runtime_errors
from napari_mpt_deblur.networks.host_memory import kept_memory
from napari_mpt_deblur.restoration.devices import pick_device
from napari_mpt_deblur.restoration.outcomes import Estimate, Progress, Restored
from napari_mpt_deblur.restoration.pace import seconds_per_megapixel
from napari_mpt_deblur.restoration.planes import PlaneGroup, PlanePixels, ReducedPixels
from napari_mpt_deblur.restoration.request import Request
from napari_mpt_deblur.restoration.scaling import PlaneScaling
from napari_mpt_deblur.restoration.session import NO_ROOM, Session
from napari_mpt_deblur.restoration.settings import Settings, tile_sides, whole_number
from napari_mpt_deblur.tiling import Region

if TYPE_CHECKING:
    from napari_mpt_deblur.checkpoints import Model


_FAILED = "The computation failed ({reason}): try again with device cpu and precision float32."
_LARGEST_NUCLEUS = 10  # times the plane's longer side: a part of a nucleus is an image, too


class Deblurrer:
    """Restores images with a model, tile by tile.

    Parameters
    ----------
    model : Model
    device : str
        ``"auto"``: where the model is.
    precision : {"auto", "float32", "bfloat16", "float16"}
        Of the network's products. ``"auto"``: what the model was loaded with; if that is ``"auto"`` as well, the faster
        one where it makes no visible difference.
    tile_px : int or sequence of int, optional
        Side of the tiles, or height and width, rounded up to what the network accepts; by default as memory allows.
    batch : int, optional
        Tiles in one pass; by default as serves the device.
    threads : int, optional
        Processor threads; torch's own number by default.
    max_pixels : int, optional
        Most pixels of an automatic tile and of the samples that measure channel attention; by default as memory allows.

    Raises
    ------
    DeviceError
        If the device is not present or does not offer the precision.
    ParameterError
        If a number is not at least 1.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str = "auto",
        precision: str = "auto",
        tile_px: int | Sequence[int] | None = None,
        batch: int | None = None,
        threads: int | None = None,
        max_pixels: int | None = None,
    ) -> None:
        batch, threads, max_pixels = (
            whole_number(number, name)
            for name, number in (("batch", batch), ("threads", threads), ("max_pixels", max_pixels))
        )
        self.model, self.threads = model, threads
        self.device = str(model.device) if str(device) == "auto" else pick_device(device)
        precision = model.precision if precision == "auto" else precision
        self.settings = Settings.of(
            model.config.network, self.device, precision, tile_sides(tile_px), batch, max_pixels
        )

    @property
    def precision(self) -> str:
        """The precision in use."""
        return self.settings.precision

    def estimate(
        self, view: ImageView, *, planes: tuple[PlaneIndex, ...] | None = None, region: Region | None = None
    ) -> Estimate:
        """What `run` with the same arguments will take, if memory suffices."""
        request = self._request(view, planes, region, None)
        height, width, area = request.reduced(self._scaling(view))
        plan = self.settings.plan(height, width)
        groups, batch = len(request.groups), self.settings.batch_for(plan)
        tiles = len(plan.tiles_for(area))
        pixels = plan.tile_pixels * tiles
        if len(plan.tiles) == 1:
            forwards = -(-groups // batch)
        else:
            forwards = groups * -(-tiles // batch)
            if self.model.config.network.pools_channels:
                side, offsets = self.settings.samples(plan)
                pixels += side**2 * len(offsets)
                forwards += groups
        return Estimate(tiles * groups, forwards, pixels * groups / 1e6, self.settings.memory_bytes(plan, groups))

    def pace(self) -> float:
        """Seconds for a megapixel through the network, as `Estimate` counts them; measured when first asked for.

        Raises
        ------
        DeblurError
            One of its kinds, and no RuntimeError.
        """
        with no_runtime_errors(NO_ROOM, _FAILED):
            most = self.settings.max_pixels
            return seconds_per_megapixel(self.model, self.device, self.precision, most, self.threads)

    def run(
        self,
        view: ImageView,
        *,
        planes: tuple[PlaneIndex, ...] | None = None,
        region: Region | None = None,
        normalization: Normalization | None = None,
        dtype: Any = None,
        out: Any = None,
    ) -> Generator[Progress, None, Restored]:
        """Restore an image, or a part of it, step by step.

        Parts are restored as they are in the whole: with the whole image's normalisation, and with the tiles and
        channel statistics of the whole plane.

        Parameters
        ----------
        view : ImageView
        planes : tuple of PlaneIndex, optional
            Some of the view's planes; all by default.
        region : tuple of int, optional
            (y0, x0, y1, x1) of each plane, cut to the image; whole planes by default.
        normalization : Normalization, optional
            Measured on the view by default.
        dtype : optional
            ``None`` or ``"input"`` for the view's, or a numpy dtype such as ``"float32"``. Whole numbers are rounded
            and clipped.
        out : array_like, optional
            Where to write: anything of the result's shape with ``__setitem__``, a memory-mapped or zarr array for
            example. A new array by default.

        Returns
        -------
        generator
            Yields `Progress` at the start, before the first tile and after every batch of tiles; returns a `Restored`.
            The array has the view's axes, Y and X cut to the region; with some planes only, their leading axes are one
            axis, in the order given. Closing the generator ends the work and frees its memory.

        Raises
        ------
        DeblurError
            One of its kinds, and no RuntimeError, from here and from the generator.
        """
        request = self._request(view, planes, region, dtype)
        self._scaling(view)  # refuses a diameter that cannot be
        if out is not None:
            request.check_out(out)
        if normalization is not None:
            request.check_normalization(normalization)
        return _guarded(self._steps(request, normalization, out))

    def _request(
        self, view: ImageView, planes: tuple[PlaneIndex, ...] | None, region: Region | None, dtype: Any
    ) -> Request:
        return Request.of(view, self.model.config.network.in_channels, planes, region, dtype)

    def _scaling(self, view: ImageView) -> PlaneScaling:
        diameter = view.nucleus_diameter_px
        if diameter is not None and diameter > _LARGEST_NUCLEUS * max(view.height, view.width):
            raise ParameterError(
                f"Nuclei of {diameter:g} pixels do not fit into planes of {view.height} x {view.width}: "
                "give the diameter in pixels of the image, or leave it out."
            )
        return PlaneScaling.of(view.nucleus_diameter_px, self.model.config.nucleus_diameter_px)

    def _steps(
        self, request: Request, normalization: Normalization | None, out: Any
    ) -> Generator[Progress, None, Restored]:
        started = time.perf_counter()
        height, width, area = request.reduced(scaling := self._scaling(request.view))
        session = Session(self.model.network, self.settings, height, width, area, self.threads)
        start = Progress(0, session.tiles_per_plane * len(request.groups), request.groups[0][0])
        if normalization is None:  # reading a lazy image takes its time: whoever drives may stop between planes
            measuring = replace(start, measuring=True)
            yield measuring
            rule = self.model.config.intensity_rule
            normalization = yield from normalization_steps(request.view, rule, step=measuring)
        yield start
        if out is None:
            out = np.empty(request.shape, request.dtype)
        request.copy_alpha(out)
        prepare = self._reader(request, normalization, scaling, partial(request.write, out))
        for done, total, group in session.restore(request.groups, prepare):
            yield Progress(done, total, group[0])
        record = self._record(request, normalization, scaling, session, time.perf_counter() - started)
        return Restored(out, record)

    def _reader(
        self, request: Request, normalization: Normalization, scaling: PlaneScaling, write: Callable[..., None]
    ) -> Callable[[PlaneGroup], PlanePixels | ReducedPixels]:
        def prepare(group: PlaneGroup) -> PlanePixels | ReducedPixels:
            pixels = PlanePixels(
                request.view, group, normalization, request.region, request.dtype, write, clip=self.model.config.clips
            )
            return pixels if scaling.factor == 1 else ReducedPixels(pixels, scaling)

        return prepare

    def _record(
        self,
        request: Request,
        normalization: Normalization,
        scaling: PlaneScaling,
        session: Session,
        seconds: float,
    ) -> dict[str, Any]:
        view, settings = request.view, session.settings
        return {
            "model": {"name": self.model.name, "sha256": self.model.sha256},
            "axes": str(view.axes),
            "shape": list(view.shape),
            "dtype": str(request.dtype),
            "planes": None if request.covers_stack else [list(i) for i in request.positions],
            "region_px": None if request.covers_plane else list(request.region),
            "pixel_size_um": view.pixel_size_um,
            "nucleus_diameter_px": view.nucleus_diameter_px,
            "reduced_by": scaling.factor,
            "normalization": normalization.to_dict(),
            "clipped": self.model.config.clips,
            "tiles": session.plan.to_dict()
            | {"batch": settings.batch_for(session.plan), "max_pixels": settings.max_pixels},
            "channel_statistics": session.channel_statistics,
            "device": settings.device,
            "precision": settings.precision,
            "notes": [*self.model.notes, *session.all_notes],
            "versions": _versions(),
            "seconds": round(seconds, 3),
        }


def _guarded(steps: Generator[Progress, None, Restored]) -> Generator[Progress, None, Restored]:
    """The same steps; what torch raises becomes a DeblurError, since superqt's worker swallows RuntimeErrors."""
    no_memory = (
        "The memory does not suffice for the image and its result: restore a part, or give a memory-mapped output."
    )
    with no_runtime_errors(no_memory, _FAILED), kept_memory():
        return (yield from steps)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("napari-mpt-deblur", "torch", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a source tree
            found[name] = "unknown"
    return found
