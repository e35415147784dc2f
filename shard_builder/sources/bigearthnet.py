"""BigEarthNet: Sentinel-2 (L2A) and Sentinel-1 patches of ten countries with land-cover classes, 120 px at 10 m.

Version 1, 590,326 pairs: Sumbul et al., "BigEarthNet-MM: a large-scale, multimodal, multilabel benchmark archive for
remote sensing image classification and retrieval", IEEE GRSM 2021. Published as `BigEarthNet-S2-v1.0.tar.gz` (top
folder `BigEarthNet-v1.0`) and `BigEarthNet-S1-v1.0.tar.gz`, a folder for each patch with a file for each band and
`<patch>_labels_metadata.json`, which has the CORINE classes (43 of them) and, with Sentinel-1, the Sentinel-2 patch
that it belongs to. Splits are lists beside them (`train.csv`, `val.csv`, `test.csv`), and so are the patches with snow
and with clouds.

Version 2, 549,488 pairs: Clasen et al., "reBEN: refined BigEarthNet dataset for remote sensing image analysis", 2024.
Published as `BigEarthNet-S2.tar.zst`, `BigEarthNet-S1.tar.zst` and `Reference_Maps.tar.zst`, which have to be unpacked
first (zstd has no index to read single files by; their copies as split `tar.gz` are read as they are), with
`metadata.parquet`, which has the pairs, the 19 classes and the splits. The maps of CORINE codes are label rasters.

Stated rule: the 20 m and 60 m bands are brought to the 10 m grid by repeating their pixels 2 x 2 and 6 x 6. Labels:
`labels_43` (version 1), `labels_19` (in version 1 derived by the authors' table), `split`, `country`, snow and clouds.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import groupby
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gfm_pipeline.config import load_json
from gfm_pipeline.errors import ArchiveError, ItemError
from gfm_pipeline.sensors import SensorSpec, builtin_sensor
from gfm_pipeline.shards.parquet import ParquetReader
from shard_builder.archives import ArchiveReader, MemberRef, item_error
from shard_builder.archives.parts import is_later_part
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.images import decode_tiff
from shard_builder.rasters.raster import Decoded
from shard_builder.sources.base import SOURCES, InputView, Source
from shard_builder.sources.shared.corine import nineteen
from shard_builder.sources.shared.patterns import iso_date
from shard_builder.sources.shared.stacking import stack_bands

_NAME = re.compile(r"(bigearthnet|reference_maps)", re.IGNORECASE)
_PATCH = re.compile(r"(S2[A-D])_MSIL2A_\d{8}T\d{5,6}_\w*|(S1[A-D])_IW_GRDH_\w+")
_TIME = re.compile(r"(?<=_)(\d{8})T(\d{5,6})(?=_|$)")
_FILE = re.compile(r"_(?:(B\d{2}|B8A|VV|VH)|(reference_map))\.tif$")
_METADATA = "_labels_metadata.json"
_SPLIT = re.compile(r"(?:bigearthnet-)?(train|val|test)\.csv")
_LISTS = {"patches_with_seasonal_snow.csv": "seasonal_snow", "patches_with_cloud_and_shadow.csv": "cloud_or_shadow"}
_TABLE = "metadata.parquet"
_COLUMNS = ("split", "country", "contains_seasonal_snow", "contains_cloud_or_shadow")
_ROWS = 10_000


@SOURCES.register("bigearthnet")
class BigEarthNet(Source):
    """`s1` and `s2_l2a`, in version 2 with the label raster `corine`."""

    reads: ClassVar[str] = "BigEarthNet-S2*.tar.gz and BigEarthNet-S1*.tar.gz"
    sensors = (
        builtin_sensor("s1"),
        builtin_sensor("s2_l2a"),
        SensorSpec(name="corine", bands=("code",), dtype="uint16", units="class", gsd_m=10.0, kind="labels"),
    )

    def scan(self, view: InputView) -> None:
        """Plan the patches in the order of the archives; tables first, as they say what belongs together."""
        names = view.names()
        packed = next((name for name in names if name.endswith(".tar.zst")), None)
        if packed:
            raise ArchiveError(
                f"{view.where}/{packed}: single files of a tar.zst cannot be read in place. Unpack it: "
                f"tar --zstd -xf {packed}, and move it out of the input."
            )
        used = [name for name in names if view.kind(name) and (view.only or _NAME.match(name))]
        direct = not used and any(_PATCH.match(name) or name in (_TABLE, "BigEarthNet-S2") for name in names)
        tables = [name for name in names if _SPLIT.fullmatch(name) or name in _LISTS or name == _TABLE]
        pairs = self._read_tables(view, tables)
        for name in [""] if direct else used:
            self._scan_archive(view, name, pairs)
        if not direct:
            parts = [name for name in names if is_later_part(name)]
            view.ignore_rest([*used, *tables, *parts], "not part of bigearthnet")

    def load(self, planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Decoded:
        """Return the bands of a patch over each other, [C,H,W]."""
        parts = [decode_tiff(files.read(ref), ref) for ref in planned.files]
        return parts[0] if spec.kind == "labels" else stack_bands(parts, spec.bands, planned.files, published=True)

    def _read_tables(self, view: InputView, names: Iterable[str]) -> _Pairs | None:
        """Tell the labels of all patches that the tables know; return the pairs of version 2."""
        pairs = None
        for name in names:
            with view.store.open(name) as file:
                data = file.read()
            match = _SPLIT.fullmatch(name)
            if name == _TABLE:
                pairs = _Pairs(data, f"{view.where}/{name}")
                for key, labels in pairs.labels():
                    view.label(key, name, **labels)
                continue
            for patch in _listed(data, f"{view.where}/{name}"):
                view.label(patch, name, **({"split": match[1]} if match else {_LISTS[name]: True}))
        return pairs

    def _scan_archive(self, view: InputView, name: str, pairs: _Pairs | None) -> None:
        for folder, group in groupby(view.open(name), key=lambda ref: ref.member.rpartition("/")[0]):
            patch = folder.rpartition("/")[2]
            refs = list(group)
            match = _PATCH.fullmatch(patch)
            if match is None:
                for ref in refs:
                    known = ref.member in (_TABLE, *_LISTS) or _SPLIT.fullmatch(ref.member)
                    if not known and not is_later_part(ref.member):
                        view.ignore(name or ref.member, "no BigEarthNet patch by its name")
                continue
            try:
                self._plan(view, patch, refs, pairs)
            except Exception as error:
                view.reject(patch, refs[0].source_file, str(item_error(error, refs[0].source_file)), len(refs))

    def _plan(self, view: InputView, patch: str, refs: list[MemberRef], pairs: _Pairs | None) -> None:
        """Plan the files of one folder: the bands of a patch, or its map."""
        bands, about, reference = _sorted_out(view, refs)
        if reference is not None:
            view.add(patch, "corine", PlannedRaster((reference,)))
            return
        if patch.startswith("S2"):
            key, sensor = patch, "s2_l2a"
        else:
            key, sensor = _partner(patch, about, pairs), "s1"
        spec = next(spec for spec in self.sensors if spec.name == sensor)
        lacking = [band for band in spec.bands if band not in bands]
        if lacking:
            raise ItemError(f"{patch} lacks {', '.join(lacking)}")
        labels: dict[str, Any] = {"s1_patch": patch} if sensor == "s1" else {}
        if about and sensor == "s2_l2a":
            labels = {"labels_43": about["labels"], "labels_19": nineteen(about["labels"])}
        files = tuple(bands[band] for band in spec.bands)
        view.add(key, sensor, PlannedRaster(files, dates=(_date(patch, about),)), **labels)


def _date(patch: str, about: Mapping[str, Any] | None) -> str:
    """Return when a patch was taken, as ISO 8601.

    Names have the time as HHMMSS, or as HMMSS before ten o'clock, of which some have 60 or 61 for seconds: then the
    patch's own metadata says it. A time that no clock shows and no metadata corrects is left out.
    """
    found = _TIME.search(patch)
    if found is None:
        return iso_date(patch)
    told = str((about or {}).get("acquisition_date", "")) if len(found[2]) == 5 else ""
    for text in (told.replace(" ", "T").replace("-", "").replace(":", ""), f"{found[1]}T{found[2]:0>6}"):
        with suppress(ValueError):
            return datetime.strptime(text, "%Y%m%dT%H%M%S").strftime("%Y-%m-%dT%H:%M:%SZ")
    return iso_date(found[1])


class _Pairs:
    """What `metadata.parquet` of version 2 says, by Sentinel-1 and by Sentinel-2 patch; compact for half a million."""

    def __init__(self, data: bytes, where: str) -> None:
        try:
            self._table = ParquetReader(io.BytesIO(data)).read()
        except (pa.ArrowException, OSError) as error:
            raise ArchiveError(f"{where} is no readable Parquet file: {error}. Copy or download it again.") from error
        lacking = {"patch_id", "s1_name", "labels"} - set(self._table.column_names)
        if lacking:
            raise ArchiveError(f"{where} has no column {', '.join(sorted(lacking))}, expected those of BigEarthNet v2.")
        names, keys = (np.array(self._table[column].to_pylist(), dtype=np.bytes_) for column in ("s1_name", "patch_id"))
        order = np.argsort(names)
        self._names, self._keys = names[order], keys[order]

    def key(self, s1_patch: str) -> str | None:
        """Return the Sentinel-2 patch that a Sentinel-1 patch belongs to, or None."""
        at = int(np.searchsorted(self._names, s1_patch.encode()))
        if at == len(self._names) or self._names[at] != s1_patch.encode():
            return None
        found: bytes = self._keys[at]
        return found.decode()

    def labels(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the labels of every Sentinel-2 patch."""
        columns = [name for name in _COLUMNS if name in self._table.column_names]
        for batch in self._table.to_batches(max_chunksize=_ROWS):
            for row in batch.to_pylist():
                labels = {name.removeprefix("contains_"): row[name] for name in columns if row[name] is not None}
                labels["split"] = {"validation": "val"}.get(labels.get("split", ""), labels.get("split"))
                yield row["patch_id"], {"labels_19": row["labels"], **labels}


def _partner(patch: str, about: Mapping[str, Any] | None, pairs: _Pairs | None) -> str:
    """Return the Sentinel-2 patch of a Sentinel-1 patch, which names the pair."""
    if about is not None:
        key = about.get("corresponding_s2_patch")
        if not isinstance(key, str) or not _PATCH.fullmatch(key):
            raise ItemError(f"{patch}{_METADATA} names no corresponding_s2_patch")
        return key
    if pairs is None:
        raise ItemError(
            f"nothing tells which Sentinel-2 patch {patch} belongs to: it has no {patch}{_METADATA} (version 1), and "
            f"the input no {_TABLE} (version 2)"
        )
    found = pairs.key(patch)
    if found is None:
        raise ItemError(f"{_TABLE} does not know {patch}")
    return found


def _sorted_out(
    view: InputView, refs: Iterable[MemberRef]
) -> tuple[dict[str, MemberRef], dict[str, Any] | None, MemberRef | None]:
    """Return the bands of a patch by name, its metadata, and the map that is there instead."""
    bands: dict[str, MemberRef] = {}
    about: dict[str, Any] | None = None
    reference: MemberRef | None = None
    for ref in refs:
        match = _FILE.search(ref.member)
        if ref.member.endswith(_METADATA):
            about = _metadata(view.reader.read(ref), ref)
        elif match is None:
            view.ignore(ref.source_file, "no band, map or metadata of BigEarthNet by its name")
        elif match[2]:
            reference = ref
        else:
            bands[match[1].replace("B0", "B")] = ref
    return bands, about, reference


def _metadata(data: bytes, ref: MemberRef) -> dict[str, Any]:
    try:
        tree = load_json(data, constants=True)
    except ValueError as error:
        raise ItemError(f"{ref.source_file} is no JSON: {error}") from error
    labels = tree.get("labels") if isinstance(tree, dict) else None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ItemError(f"{ref.source_file} has no list of labels")
    return dict(tree)


def _listed(data: bytes, where: str) -> Iterator[str]:
    """Yield the Sentinel-2 patches that a list names, one in the first column of every line."""
    try:
        for number, row in enumerate(csv.reader(io.StringIO(data.decode())), start=1):
            if row and _PATCH.fullmatch(row[0].strip()):
                yield row[0].strip()
            elif row and number > 1:  # the first line may be a heading
                raise ArchiveError(f"{where}, line {number}: found {row[0][:80]!r}, expected the name of a patch.")
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArchiveError(f"{where} is no list of patches: {error}. Copy or download it again.") from error
