"""Archives that are nothing but RGB images, in folders, a zip or a tar: what GeoPile and MillionAID have in common."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import ClassVar

from gfm_pipeline.errors import ArchiveError
from gfm_pipeline.sensors import SensorSpec, builtin_sensor
from shard_builder.archives import ArchiveReader, MemberRef, item_error, kind_of
from shard_builder.archives.member import parts_of
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.images import (
    IMAGE_EXTENSIONS,
    extension_of,
    load_rgb,
    original_jpeg,
    read_size,
    tile_windows,
)
from shard_builder.rasters.raster import Decoded, Original
from shard_builder.sources.base import InputView, Source


class ImageArchive(Source):
    """A source of single RGB images. A subclass says which names in the input folder belong to it."""

    sensors = (builtin_sensor("rgb"),)
    tiled: ClassVar[bool] = True
    archive_names: ClassVar[re.Pattern[str]]
    """Matches the names of its archives and folders, in lower case."""
    split_names: ClassVar[frozenset[str]] = frozenset()
    """Names of published archives and their folders that do not say of what: taken where nothing else is its own."""

    def scan(self, view: InputView) -> None:
        """Plan one sample per image, or per tile of a large one, in the order of the archives."""
        used = [name for name in view.names() if self._is_mine(name, view)]
        tops = [name.partition(".")[0] for name in used]
        if not used and not view.only:
            # The input may be the unpacked archive itself: its folders, or the zips it was published in, are splits.
            itself = bool(self.archive_names.match(view.folder_name.lower()))
            parts = [name for name in view.names() if view.kind(name) is not None]
            used = [name for name in parts if itself or name.lower() in self.split_names]
            tops = [""] * len(used)
        for name, top in zip(used, tops, strict=True):
            self._scan_archive(view, name, top)
        view.ignore_rest(used, f"not part of {view.config.source}")

    def load(self, planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Decoded:
        """Return the 8-bit RGB raster of an image."""
        return load_rgb(planned, spec, files)

    def original(self, planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Original | None:
        """Return a whole RGB JPEG as it is."""
        return original_jpeg(planned, files)

    def _is_mine(self, name: str, view: InputView) -> bool:
        return view.kind(name) is not None and (view.only is not None or bool(self.archive_names.match(name.lower())))

    def _scan_archive(self, view: InputView, name: str, top: str) -> None:
        """Plan the images of an archive; names and labels start below its folder `top`."""
        images = ((below(top, ref.member), ref) for ref in view.open(name) if self._is_image(view, name, ref))
        found = False
        for key, path, ref in view.scan.keyed(images):
            found = True
            try:
                self._plan_image(view, key, path, ref)
            except Exception as error:
                view.reject(key, ref.source_file, str(item_error(error, ref.source_file)))
        if not found and name not in view.left_out and not view.scan.num_rejected:
            text = f"{view.where}/{name} holds no {', '.join(IMAGE_EXTENSIONS)} images. Move it elsewhere."
            view.leave_out(name, ArchiveError(text))

    def _is_image(self, view: InputView, archive: str, ref: MemberRef) -> bool:
        """Return whether a name is one of an image; macOS puts hidden shadows of every file into its zips."""
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts_of(ref.member))
        if not hidden and kind_of(ref.member):
            view.ignore(archive, "archives inside an archive: unpack them, or give them as inputs of their own")
            return False
        if hidden or extension_of(ref.member) not in IMAGE_EXTENSIONS:
            view.ignore(archive, "hidden, or no images by their names")
            return False
        return True

    def _plan_image(self, view: InputView, key: str, path: str, ref: MemberRef) -> None:
        height, width = read_size(ref, view.reader)
        labels = folder_labels(path)
        if max(height, width) <= view.config.tile_px:
            view.add(key, "rgb", PlannedRaster((ref,)), **labels)
            return
        for window in tile_windows(height, width, view.config):
            view.add(f"{key}_r{window[0]}_c{window[1]}", "rgb", PlannedRaster((ref,), window), **labels)


def below(top: str, member: str) -> str:
    """Return a member's path below the archive's own top folder, so that a zip and its unpacked folder agree."""
    first, slash, rest = member.partition("/")
    return rest if slash and first == top else member


def folder_labels(path: str) -> dict[str, str]:
    """Return what the folders of an image say: all of them, and the innermost as its class.

    The first folder is a collection or a split ("NAIP", "test"), so a class needs a second one.
    """
    folders = PurePosixPath(path).parts[:-1]
    labels = {"folder": "/".join(folders)} if folders else {}
    return labels | {"class": folders[-1]} if len(folders) > 1 else labels
