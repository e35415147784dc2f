"""A place: terrain and what stands on it, before any sensor looks at it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shard_builder.demo.materials import Cover, Material
from shard_builder.demo.noise import BoolArray, Cells, FloatArray, Shape, slope
from shard_builder.demo.scenery import Scale, Season

ByteArray = npt.NDArray[np.uint8]


@dataclass
class Place:
    """Fields [H,W] of one place, all on the same grid with row 0 in the north."""

    scale: Scale
    season: Season
    terrain: FloatArray
    """Ground height in metres."""
    crowns: Cells
    """Tree crowns, wherever there are trees."""
    regions: Cells
    """Regions of farmland; roads follow their borders."""
    cover: ByteArray
    """`Cover` per pixel."""
    material: ByteArray
    """`Material` that is seen most."""
    second: ByteArray
    """`Material` mixed into it ..."""
    mix: FloatArray
    """... by this share, 0 to 1."""
    brightness: FloatArray
    """Relative brightness on top of the material's own texture, around 1."""
    buildings: FloatArray
    """Height of buildings above ground in metres."""
    canopy: FloatArray
    """Height of plants above ground in metres."""

    @property
    def shape(self) -> Shape:
        """Rows and columns."""
        height, width = self.terrain.shape
        return height, width

    @property
    def surface(self) -> FloatArray:
        """What a surface model measures: ground plus whatever stands on it, in metres."""
        return self.terrain + np.maximum(self.buildings, self.canopy)

    def steepness(self) -> FloatArray:
        """Return the rise per metre of the ground."""
        south, east = slope(self.terrain, self.scale.gsd_m)
        return np.hypot(south, east)

    def paint(
        self,
        where: BoolArray,
        cover: Cover,
        material: Material | ByteArray,
        second: Material | ByteArray | None = None,
        mix: float | FloatArray = 0.0,
    ) -> None:
        """Lay a material over the pixels `where`, with whatever stood there cleared."""
        np.copyto(self.cover, cover, where=where, casting="unsafe")
        np.copyto(self.material, material, where=where, casting="unsafe")
        np.copyto(self.second, material if second is None else second, where=where, casting="unsafe")
        np.copyto(self.mix, mix, where=where, casting="same_kind")
        np.copyto(self.brightness, 1.0, where=where)
        np.copyto(self.buildings, 0.0, where=where)
        np.copyto(self.canopy, 0.0, where=where)

    def crown_dome(self) -> FloatArray:
        """Return the relative height [H,W] of tree crowns, 1 at a tree top and 0 between trees."""
        radius = np.float32(0.68 * self.scale.crown_px)
        dome: FloatArray = np.maximum(1 - (self.crowns.distance / radius) ** 2, 0)
        return dome

    def dominant_cover(self) -> Cover:
        """Return the class that covers most of the place."""
        return Cover(int(np.argmax(self.cover_shares())))

    def cover_shares(self) -> FloatArray:
        """Return the share of each class [cover]."""
        counts = np.bincount(self.cover.ravel(), minlength=len(Cover))
        return (counts / self.cover.size).astype(np.float32)
