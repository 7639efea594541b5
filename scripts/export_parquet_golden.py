# /// script
# requires-python = ">=3.10"
# dependencies = ["pyarrow==26.0.1"]
# ///
"""Writes crates/mixer-data/tests/fixtures/parquet: one small table in every packing of PyArrow."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

OUT = Path(__file__).parent.parent / "crates/mixer-data/tests/fixtures/parquet"
ROWS = 20

OUT.mkdir(parents=True, exist_ok=True)
pictures = [{"bytes": (f"picture {row} " * 40).encode(), "path": None} for row in range(ROWS)]
image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
# As programs write them that know no missing whole numbers.
labels = pa.array([float(row % 3) for row in range(ROWS)], pa.float64())
table = pa.table({"image": pa.array(pictures, image), "label": labels})
for name, options in {
    "none": {"compression": "none"},
    "snappy": {"compression": "snappy"},
    "gzip": {"compression": "gzip"},
    "lz4": {"compression": "lz4"},
    "brotli": {"compression": "brotli"},
    "zstd": {"compression": "zstd", "use_dictionary": False},
    "zstd_v2": {"compression": "zstd", "data_page_version": "2.0"},
}.items():
    pq.write_table(table, OUT / f"{name}.parquet", row_group_size=8, **options)
