# /// script
# requires-python = ">=3.11"
# dependencies = ["pillow==13.0.0"]
# ///
"""Decodes a folder of JPEGs with Pillow, as the example `whole_speed` of mixer-jpeg does, and prints the
same: processor time of a picture, and the CRC-32 of all pixels.

Run     uv run scripts/check_jpeg.py FOLDER [DENOMINATOR [ROUNDS]]
        uv run scripts/check_jpeg.py FOLDER --progressive OUT    writes progressive copies to OUT instead
"""

import statistics
import sys
import time
import zlib
from io import BytesIO
from pathlib import Path

from export_jpeg_golden import at_scale
from PIL import Image


def main() -> None:
    paths = sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_file())
    if sys.argv[2:3] == ["--progressive"]:
        out = Path(sys.argv[3])
        out.mkdir(parents=True, exist_ok=True)
        for path in paths:
            image = Image.open(path)
            if image.format == "JPEG" and image.mode in ("L", "RGB"):
                image.save(out / f"{path.stem}.jpg", quality="keep", progressive=True)
        return
    by, rounds = int((sys.argv[2:3] or [1])[0]), int((sys.argv[3:4] or [5])[0])
    files = [file for file in (path.read_bytes() for path in paths) if file[:3] == b"\xff\xd8\xff"]
    crc, times = 0, []
    for file in files:
        crc = zlib.crc32(at_scale(Image.open(BytesIO(file)), by).convert("RGB").tobytes(), crc)
    for _ in range(rounds):
        start = time.process_time()
        for file in files:
            at_scale(Image.open(BytesIO(file)), by).load()
        times.append((time.process_time() - start) * 1e3 / len(files))
    print(f"{len(files)} pictures, {statistics.median(times):.3f} ms each, CRC-32 {crc:08x}")


if __name__ == "__main__":
    main()
