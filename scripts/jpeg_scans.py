"""Writes JPEGs that Pillow does not write: any sampling, any split into scans, sequential and progressive.

A picture is made of random coefficients, so that every kind of block occurs. All codes have the same
length, which costs bytes and makes tables small.
"""

import numpy as np

ZIGZAG = np.array([
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61,
    54, 47, 55, 62, 63,
])
DC_SYMBOLS = list(range(12))
AC_SYMBOLS = [run << 4 | size for run in range(16) for size in range(11)]
# A script of scans for progressive files: components, first and last coefficient, high and low bit.
PROGRESSIVE = [
    ((0, 1, 2), 0, 0, 0, 1), ((0,), 1, 5, 0, 2), ((2,), 1, 63, 0, 1), ((1,), 1, 63, 0, 1), ((0,), 6, 63, 0, 2),
    ((0,), 1, 63, 2, 1), ((0, 1, 2), 0, 0, 1, 0), ((2,), 1, 63, 1, 0), ((1,), 1, 63, 1, 0), ((0,), 1, 63, 1, 0),
]


def separate(components: int) -> list:
    """The same without interleaving, for any number of components."""
    return [((at,), *scan) for at in range(components) for scan in
            [(0, 0, 0, 1), (1, 9, 0, 1), (10, 63, 0, 1), (0, 0, 1, 0), (1, 63, 1, 0)]]


class Bits:
    def __init__(self):
        self.text = []

    def put(self, value: int, count: int) -> None:
        if count:
            self.text.append(format(value & ((1 << count) - 1), f"0{count}b"))

    def value(self, value: int, count: int) -> None:
        self.put(value if value >= 0 else value - 1, count)

    def dc(self, symbol: int) -> None:
        self.put(DC_SYMBOLS.index(symbol), 4)

    def ac(self, symbol: int) -> None:
        self.put(AC_SYMBOLS.index(symbol), 8)

    def bytes(self) -> bytes:
        text = "".join(self.text)
        text += "1" * (-len(text) % 8)
        return bytes(int(text[at:at + 8], 2) for at in range(0, len(text), 8)).replace(b"\xff", b"\xff\x00")


def size(value: int) -> int:
    return int(abs(value)).bit_length()


def shifted(value: int, low: int) -> int:
    """Towards zero, as AC coefficients lose bits."""
    return (abs(value) >> low) * (1 if value >= 0 else -1)


def marker(code: int, payload: bytes) -> bytes:
    return bytes([0xFF, code]) + (len(payload) + 2).to_bytes(2, "big") + payload


class Encoder:
    """`factors` are the sampling factors of each component."""

    def __init__(self, width: int, height: int, factors: list, seed: int, density: float = 0.12):
        self.width, self.height, self.factors = width, height, factors
        self.most = (max(h for h, _ in factors), max(v for _, v in factors))
        self.mcus = (-(-width // (8 * self.most[0])), -(-height // (8 * self.most[1])))
        random = np.random.default_rng(seed)
        self.blocks = []
        for h, v in factors:
            shape = (self.mcus[1] * v, self.mcus[0] * h, 64)
            blocks = random.integers(-6, 7, shape) * (random.random(shape) < density)
            blocks[..., 0] = random.integers(-45, 46, shape[:2])
            self.blocks.append(blocks)

    def used(self, at: int) -> tuple:
        h, v = self.factors[at]
        return (-(-(-(-self.width * h // self.most[0])) // 8), -(-(-(-self.height * v // self.most[1])) // 8))

    def order(self, components: tuple):
        """The blocks of a scan, by MCUs."""
        if len(components) == 1:
            across, down = self.used(components[0])
            for y in range(down):
                for x in range(across):
                    yield [(components[0], y, x)]
            return
        for my in range(self.mcus[1]):
            for mx in range(self.mcus[0]):
                yield [(at, my * v + j, mx * h + i) for at in components
                       for h, v in [self.factors[at]] for j in range(v) for i in range(h)]

    def scan(self, components: tuple, first: int, last: int, high: int, low: int, progressive: bool, restart: int) -> bytes:
        selectors = b"".join(bytes([at + 1, 0]) for at in components)
        out = marker(0xDA, bytes([len(components)]) + selectors + bytes([first, last, high << 4 | low]))
        bits, before, run, number = Bits(), {}, 0, 0

        def end_run():
            nonlocal run
            if run:
                count = run.bit_length() - 1
                bits.ac(count << 4)
                bits.put(run, count)
                run = 0

        for mcu, blocks in enumerate(self.order(components)):
            if restart and mcu and mcu % restart == 0:
                end_run()
                out += bits.bytes() + bytes([0xFF, 0xD0 | number & 7])
                bits, before, number = Bits(), {}, number + 1
            for at, y, x in blocks:
                block = self.blocks[at][y, x]
                if first == 0:
                    dc = int(block[0]) >> low
                    if high:
                        bits.put(dc, 1)
                    else:
                        difference = dc - before.get(at, 0)
                        bits.dc(size(difference))
                        bits.value(difference, size(difference))
                        before[at] = dc
                if last == 0:
                    continue
                values = [shifted(int(value), low) for value in block[max(first, 1):last + 1]]
                known = [abs(value) > 1 for value in values] if high else [False] * len(values)
                new = [at for at, value in enumerate(values) if value and not known[at]]
                zeros, corrections = 0, []
                if high and not new and any(known):
                    end_run()
                if new:
                    end_run()
                for place, value in enumerate(values):
                    if known[place]:
                        corrections.append(abs(value) & 1)
                        continue
                    if value == 0:
                        zeros += 1
                        if zeros == 16 and new and place < new[-1]:
                            bits.ac(0xF0)
                            for bit in corrections:
                                bits.put(bit, 1)
                            zeros, corrections = 0, []
                        continue
                    bits.ac(zeros << 4 | (1 if high else size(value)))
                    bits.value(value, 1 if high else size(value)) if not high else bits.put(int(value > 0), 1)
                    for bit in corrections:
                        bits.put(bit, 1)
                    zeros, corrections = 0, []
                if zeros or corrections:
                    if progressive:
                        run += 1
                        if corrections or run == 1023:
                            end_run()
                            for bit in corrections:
                                bits.put(bit, 1)
                    else:
                        bits.ac(0)
        end_run()
        return out + bits.bytes()

    def encode(self, scans: list, progressive: bool = False, restart: int = 0, markers: bytes = b"") -> bytes:
        steps = bytes([3 + at // 4 for at in range(64)])
        out = b"\xff\xd8" + markers + marker(0xDB, b"\0" + steps)
        parts = b"".join(bytes([at + 1, h << 4 | v, 0]) for at, (h, v) in enumerate(self.factors))
        frame = bytes([8]) + self.height.to_bytes(2, "big") + self.width.to_bytes(2, "big") + bytes([len(self.factors)])
        out += marker(0xC2 if progressive else 0xC1, frame + parts)
        lengths = bytes([0, 0, 0, len(DC_SYMBOLS)]) + bytes(12)
        out += marker(0xC4, b"\0" + lengths + bytes(DC_SYMBOLS))
        lengths = bytes(7) + bytes([len(AC_SYMBOLS)]) + bytes(8)
        out += marker(0xC4, b"\x10" + lengths + bytes(AC_SYMBOLS))
        if restart:
            out += marker(0xDD, restart.to_bytes(2, "big"))
        for scan in scans:
            components, first, last, high, low = scan if progressive else (scan, 0, 63, 0, 0)
            out += self.scan(components, first, last, high, low, progressive, restart)
        return out + b"\xff\xd9"
