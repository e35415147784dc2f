"""Parquet is read without leaving a thread behind that could abort the interpreter at its end."""

from __future__ import annotations

import io
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gfm_pipeline.shards.parquet import ParquetReader
from tests.conftest import run_command

CODE = """
import io, os, sys
import pyarrow as pa, pyarrow.parquet as pq
{imports}
buffer = io.BytesIO()
pq.write_table(pa.table({{"a": range(4000), "b": [str(i) for i in range(4000)]}}), buffer, row_group_size=1000)
before = len(os.listdir("/proc/self/task"))
{read}
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc")
@pytest.mark.parametrize(
    "read",
    [
        "ParquetReader(buffer).read()",
        "ParquetReader(buffer).read_row_group(2)",
        "list(ParquetReader(buffer).batches(['a', 'b']))",
    ],
)
def test_no_thread_is_left(read: str) -> None:
    code = CODE.format(imports="from gfm_pipeline.shards.parquet import ParquetReader", read=read)
    assert run_command(sys.executable, "-c", code).stdout.strip() == "0"


def test_what_is_read() -> None:
    buffer = io.BytesIO()
    table = pa.table({"a": range(5), "b": list("vwxyz")})
    pq.write_table(table, buffer, row_group_size=2)
    reader = ParquetReader(buffer)
    assert (reader.columns, reader.metadata.num_row_groups) == (["a", "b"], 3)
    assert reader.read() == table
    assert reader.read_row_group(1) == table.slice(2, 2)
    assert pa.Table.from_batches(reader.batches(["b"])) == table.select(["b"])
