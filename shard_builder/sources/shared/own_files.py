"""The files of an input laid out as its owner likes: folders, and archives as if they were unpacked in place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from gfm_pipeline.errors import ArchiveError
from shard_builder.archives import MemberRef, kind_of
from shard_builder.rasters.location import SIDE_FILES, ending_of, side_endings
from shard_builder.sources.base import InputView
from shard_builder.sources.shared.cubes import is_cube
from shard_builder.sources.shared.patterns import FilePattern
from shard_builder.sources.shared.zarr_store import zarr_folder

MASK = ".msk"
"""What GDAL adds to the name of an image for the file of its mask."""
PAM = ".aux.xml"
"""What GDAL adds to the name of an image for the file of all that the image cannot hold."""
_PAM_BYTES = 2**20
_PAM_SAYS = {
    b"<NoDataValue": "nodata",
    b"<Scale": "scale",
    b"<Offset": "offset",
    b"<SRS": "coordinate reference system",
    b"<GeoTransform": "location",
    b"<GCPList": "ground control points",
    b"<Description": "band names",
}
"""Elements that would change what is packed; most such files hold statistics and histograms alone."""
HELD = 2**16
"""Files of a folder that are held until it ends: those beside an image may come before or after it."""


_Item = tuple[str, str, tuple[MemberRef, ...]]
"""(name in the input folder, path as if unpacked, files)."""


class FoundFile(NamedTuple):
    """A file that fits a sensor's pattern."""

    sensor: str
    parts: dict[str, str]
    """What the named parts of the pattern stand for."""
    refs: tuple[MemberRef, ...]
    """The file; for a zarr folder the files in it."""


def find_files(
    view: InputView,
    patterns: Mapping[str, FilePattern],
    archives: bool,
    optional: Collection[str] = (),
    used: Callable[[MemberRef], bool] = lambda _: False,
) -> Iterator[FoundFile]:
    """Yield the files that fit the pattern of a sensor, in the order of the input, and take note of all others.

    A file may fit the patterns of several sensors. Raises ArchiveError when no file fits a pattern; where that is one
    of the `optional` sensors, others being found, the report says so. The mask beside an image (GDAL's x.tif.msk) is
    given to it, wherever in the listing it is; files that say where it lies (world files, .prj) are `beside` it: they
    are listed next to it, or in its folder no more than HELD files away. `used` is asked whether a file that fits no
    pattern is of use nevertheless.
    """
    matched: set[str] = set()
    example = ""
    for top, path, refs in _with_beside(_items(_all(view, patterns, archives))):
        is_beside = _goes_with_image(view, top, path, refs[0], patterns)
        found = [
            (sensor, parts)
            for sensor, pattern in patterns.items()
            if (parts := pattern.match(path)) is not None
            and not (is_beside and pattern.match(_image_of(path)) is not None)  # "{key}.*" is meant for the image
        ]
        for sensor, parts in found:
            matched.add(sensor)
            yield FoundFile(sensor, parts, refs)
        if found or is_beside or used(refs[0]):
            continue
        if ending_of(path) in SIDE_FILES:
            view.ignore(top or ".", "world file or .prj beside no image", len(refs))
        else:
            example = example or path
            view.ignore(top or ".", "fits the pattern of no sensor", len(refs))
    missing = sorted(set(patterns) - matched)
    if matched and view.left_out:  # the files may be in what could not be read
        for sensor in sorted(set(missing) - set(optional)):
            view.warn(f"no file fits {patterns[sensor].text!r} of options.sensors.{sensor}.files in what can be read")
        missing = [sensor for sensor in missing if sensor in optional]
    if matched:
        for sensor in sorted(set(missing) & set(optional)):
            view.warn(f"no file fits {patterns[sensor].text!r} of options.sensors.{sensor}.files, which is optional")
        missing = [sensor for sensor in missing if sensor not in optional]
    if missing and (matched or example):
        pattern = patterns[missing[0]].text
        other = f", which has e.g. {example}" if example else ""
        raise ArchiveError(
            f"no file in {view.where} fits {pattern!r}{other}. Correct options.sensors.{missing[0]}.files"
            f"{'' if archives else ', or set options.archives if they lie in zip or tar archives'}."
        )


def _all(view: InputView, patterns: Mapping[str, FilePattern], archives: bool) -> Iterator[tuple[str, str, MemberRef]]:
    """Yield (name in the input folder, path as if unpacked, file)."""
    for name in view.names():
        kind = view.kind(name)
        if kind == "folder" and any(pattern.may_begin_with(name) for pattern in patterns.values()):
            for ref in view.open(name):
                yield from _with_inside(view, name, ref, patterns, archives)
        elif kind not in (None, "folder") and (archives or view.only) and not _fits(name, patterns):
            yield from ((name, ref.member, ref) for ref in view.open(name))
        elif kind == "folder":
            view.ignore(name, "fits the pattern of no sensor")
    files = [name for name in view.names() if view.kind(name) is None]
    loosely = any(not pattern.is_nested for pattern in patterns.values()) or any(
        _fits(name, patterns) for name in files
    )
    if view.only is None and loosely:
        loose = (ref for ref in view.open("") if "/" not in ref.member)
        yield from (
            ("", ref.member, ref)
            for ref in loose
            if not (archives and kind_of(ref.member)) or _fits(ref.member, patterns)
        )


def _with_inside(
    view: InputView, name: str, ref: MemberRef, patterns: Mapping[str, FilePattern], archives: bool
) -> Iterator[tuple[str, str, MemberRef]]:
    if not archives or kind_of(ref.member) is None or _fits(ref.member, patterns) or zarr_folder(ref.member):
        yield name, ref.member, ref
        return
    folder = ref.member.rpartition("/")[0]
    for inner in view.open(ref.member):
        yield name, f"{folder}/{inner.member}" if folder else inner.member, inner


def _image_of(path: str) -> str:
    """Return the path of the image that a file of GDAL's beside it goes with; "" for any other file."""
    ending = next((ending for ending in (MASK, PAM) if path.lower().endswith(ending)), None)
    image = path[: -len(ending)] if ending else ""
    return "" if is_cube(image) or image.lower().endswith(".npy") else image


def _goes_with_image(view: InputView, top: str, path: str, ref: MemberRef, patterns: Mapping[str, FilePattern]) -> bool:
    """Return whether a file is GDAL's beside an image of a sensor; its mask is filed, what else is not read named."""
    image = _image_of(path)
    if not image or not _fits(image, patterns):
        return False
    if path.lower().endswith(MASK):
        view.mask(ref.source_file[: -len(MASK)], ref)
        return True
    held = view.reader.head(ref, _PAM_BYTES)
    said = [name for element, name in _PAM_SAYS.items() if element in held]
    view.ignore(
        top or ".",
        f"{PAM} beside images with {', '.join(said)}: not read; write it into the images with gdal_translate"
        if said
        else f"{PAM} beside images, which hold statistics alone",
    )
    return True


def _fits(path: str, patterns: Mapping[str, FilePattern]) -> bool:
    return any(pattern.match(path) is not None for pattern in patterns.values())


def _items(files: Iterable[tuple[str, str, MemberRef]]) -> Iterator[_Item]:
    """Yield single files as they are, and the files of a zarr folder, which follow each other, as one."""
    held: tuple[str, str] | None = None
    refs: list[MemberRef] = []
    for top, path, ref in files:
        store = zarr_folder(path)
        if held is not None and held != (top, store):
            yield (*held, tuple(refs))
            held, refs = None, []
        if store is None:
            yield top, path, (ref,)
        else:
            held = (top, store)
            refs.append(ref)
    if held is not None:
        yield (*held, tuple(refs))


def _with_beside(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the items in their order, each with the files beside it that say where it lies."""
    held: list[_Item] = []
    for item in items:
        if held and (_folder(item) != _folder(held[0]) or (len(held) >= HELD and _stem(item) != _stem(held[-1]))):
            yield from _paired(held)
            held = []
        held.append(item)
    yield from _paired(held)


def _folder(item: _Item) -> tuple[str, str, str]:
    return item[0], item[2][0].archive, item[1].rpartition("/")[0]


def _stem(item: _Item) -> str:
    return item[1].rpartition("/")[2].partition(".")[0]


def _paired(items: list[_Item]) -> Iterator[_Item]:
    images = {path for _, path, _ in items}
    sides: dict[tuple[str, str], tuple[str, MemberRef]] = {}
    for _, path, refs in items:
        if ending_of(path) in SIDE_FILES:
            sides.setdefault((path.rpartition(".")[0], ending_of(path)), (path, refs[0]))
    beside: dict[str, tuple[MemberRef, ...]] = {}
    taken: set[str] = set()
    for path in images if sides else ():
        stem = path.rpartition(".")[0]
        found = [sides[stem, ending] for ending in side_endings(path) if (stem, ending) in sides]
        taken |= {side for side, _ in found}
        beside[path] = tuple(ref for _, ref in found)
    for top, path, refs in items:
        if path in taken:
            continue
        refs = (replace(refs[0], beside=beside[path]), *refs[1:]) if beside.get(path) else refs
        yield top, path, refs
