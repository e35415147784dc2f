"""Archives that are nothing but RGB images, in folders or a zip: what GeoPile and MillionAID have in common."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import PurePosixPath
from typing import ClassVar

from gfm_pipeline.errors import ArchiveError, ItemError
from shard_builder.archive import MemberRef, archive_kind
from shard_builder.images import IMAGE_EXTENSIONS, decode_rgb, extension_of, image_size, tile_windows
from shard_builder.source import Decoded, Ignored, InputView, PlannedRaster, PlannedSample, ignore_rest

MAX_SLUG = 48


class ImageArchive:
    """A source of single RGB images. A subclass says which names in the input folder belong to it."""

    sensors: ClassVar[tuple[str, ...]] = ("rgb",)
    tiled: ClassVar[bool] = True
    archive_names: ClassVar[re.Pattern[str]]
    """Matches the names of its archives and folders, in lower case."""

    def scan(self, view: InputView) -> None:
        """Plan one sample per image, or per tile of a large one, in the order of the archives."""
        used = [name for name in view.names() if self._is_mine(name, view)]
        tops = [name.partition(".")[0] for name in used]
        if not used and not view.only and self.archive_names.match(view.root.resolve().name.lower()):
            # The input is the unpacked archive itself: its folders, or the zips it was published in, are its splits.
            used = [name for name in view.names() if archive_kind(view.root / name) in ("folder", "zip")]
            tops = [""] * len(used)
        for name, top in zip(used, tops, strict=True):
            self._scan_archive(view, name, top)
        ignore_rest(view, used, {}, f"not part of {view.config.source}")

    def decode(self, data: bytes, ref: MemberRef, sensor: str) -> Decoded:
        """Return the 8-bit RGB raster of an image."""
        return decode_rgb(data, ref)

    def _is_mine(self, name: str, view: InputView) -> bool:
        kind = archive_kind(view.root / name)
        return kind is not None and (view.only is not None or self.archive_names.match(name.lower()) is not None)

    def _scan_archive(self, view: InputView, name: str, top: str) -> None:
        """Plan the images of an archive; names and labels start below its folder `top`."""
        listing = view.open(name)
        images = [ref for ref in listing.members if _is_image(ref.member)]
        others = len(listing.members) - len(images)
        if others:
            view.scan.ignored.append(Ignored(name, "hidden, or no images by their names", others))
        if not images and not listing.refused:
            raise ArchiveError(f"{view.root / name} holds no {', '.join(IMAGE_EXTENSIONS)} images. Move it elsewhere.")
        keys = unique_keys([below(top, ref.member) for ref in images])
        reader = view.reader()
        try:
            for ref, key in zip(images, keys, strict=True):
                try:
                    samples = self._plan_image(view, ref, key, reader.read(ref), folder_labels(below(top, ref.member)))
                except ItemError as error:
                    view.reject(key, ref.source_file, str(error))
                else:
                    view.scan.items += 1
                    view.scan.samples += samples
        finally:
            reader.close()
        view.add_input(name, len(images))

    def _plan_image(
        self, view: InputView, ref: MemberRef, key: str, data: bytes, labels: dict[str, str]
    ) -> list[PlannedSample]:
        height, width = image_size(data, ref)
        if max(height, width) <= view.config.tile_px:
            return [PlannedSample(key, {"rgb": PlannedRaster(ref)}, labels)]
        return [
            PlannedSample(f"{key}_r{window[0]}_c{window[1]}", {"rgb": PlannedRaster(ref, window)}, labels)
            for window in tile_windows(height, width, view.config)
        ]


def _is_image(member: str) -> bool:
    """Return whether a name is one of an image; macOS puts hidden shadows of every file into its zips."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(member).parts)
    return not hidden and extension_of(member) in IMAGE_EXTENSIONS


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


def unique_keys(members: list[str]) -> list[str]:
    """Return one key per member name: readable, and with a digest of the name where that alone tells two apart."""
    slugs = [_slug(member) for member in members]
    # Compared without case: two keys should not collide on a file system that ignores it.
    seen = Counter(slug.lower() for slug in slugs)
    return [
        slug
        if seen[slug.lower()] == 1 and len(slug) <= MAX_SLUG
        else f"{slug[: MAX_SLUG - 9]}-{hashlib.sha256(member.encode()).hexdigest()[:8]}"
        for slug, member in zip(slugs, members, strict=True)
    ]


def _slug(member: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", member.rpartition(".")[0]).strip("_") or "image"
