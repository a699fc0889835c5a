"""Goldens of dequantization: raw blocks of each GGUF type and the floats that `gguf` makes of them."""

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

import places

SEED = 20261123

#: Type -> byte offsets of its f16 fields, which random bytes would make NaN or infinite.
HALF_FIELDS = {
    Kind.Q4_0: [0],
    Kind.Q4_1: [0, 2],
    Kind.Q5_0: [0],
    Kind.Q5_1: [0, 2],
    Kind.Q8_0: [0],
    Kind.Q4_K: [0, 2],
    Kind.Q5_K: [0, 2],
    Kind.Q6_K: [208],
}

#: Scales of the blocks: one as in real files, then negative, the largest f16, the smallest, zero.
SCALES = [0.0123, -0.75, 65504.0, 5.9604645e-08, 0.0]

#: Plain 16-bit floats: both zeros, subnormals, the largest finite values, and ordinary numbers.
F16_BITS = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00, 0xBC01, 0x2E66, 0x5640]
BF16_BITS = [0x0000, 0x8000, 0x0001, 0x807F, 0x0080, 0x7F7F, 0xFF7F, 0x3F80, 0xBF81, 0x3DCD, 0x42C8]


def make() -> None:
    """Write dequant.json."""
    random = np.random.default_rng(SEED)
    items = [
        golden(kind, raw_block(random, kind, offsets, scale))
        for kind, offsets in HALF_FIELDS.items()
        for scale in SCALES
    ]
    items.append(golden(Kind.F16, np.array(F16_BITS, dtype="<u2").view(np.uint8)))
    items.append(golden(Kind.BF16, np.array(BF16_BITS, dtype="<u2").view(np.uint8)))
    head = places.made_by("dequant", "gguf")
    places.write_lines(places.KERNEL_GOLDENS / "dequant.json", head, "blocks", items)


def raw_block(random, kind: Kind, half_offsets: list[int], scale: float) -> np.ndarray:
    """One block of random bytes whose first f16 field is `scale` and whose second a third of it."""
    _, num_bytes = gguf.GGML_QUANT_SIZES[kind]
    block = random.integers(0, 256, num_bytes, dtype=np.uint8)
    for offset, half in zip(half_offsets, [scale, scale / 3]):
        block[offset : offset + 2] = np.array([half], dtype="<f2").view(np.uint8)
    return block


def golden(kind: Kind, block: np.ndarray) -> dict:
    """The block's bytes in hexadecimal and its floats, each in the shortest form that is exact."""
    if kind == Kind.F16:
        values = block.view("<f2").astype(np.float32)  # `dequantize` returns f16 unchanged
    else:
        values = gguf.dequantize(block, kind)
    assert values.dtype == np.float32 and np.isfinite(values).all()
    return {"type": kind.name, "hex": block.tobytes().hex(), "values": [float(str(v)) for v in values]}
