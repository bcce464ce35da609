"""Every block of our GGUF files is the one that llama.cpp's own quantizer makes.

    blocks.py           compares each tensor of the files with llama.cpp's packing of merged/model.safetensors
    blocks.py --write   writes tests/fixtures/blocks: a few rows, packed by llama.cpp, for the Rust tests

The `gguf` package packs too; its Q4_0 rounds as a fused multiply-add would, which a default x86-64 build of llama.cpp
does not have, so where they differ llama.cpp is the reference and the script says how often.
"""

import ctypes
import sys
from pathlib import Path

import gguf
import numpy

ROOT = Path(__file__).resolve().parents[2]
TYPES = {
    "F16": gguf.GGMLQuantizationType.F16,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
    "Q4_0": gguf.GGMLQuantizationType.Q4_0,
}
INSTALLED = Path(gguf.__file__).parents[1] / "llama_cpp/lib"
library = ctypes.CDLL(str(next(INSTALLED.glob("libggml-base.so*"))))
library.ggml_quantize_chunk.restype = ctypes.c_size_t
library.ggml_quantize_chunk.argtypes = [
    ctypes.c_int,  # type
    ctypes.c_void_p,  # f32 numbers
    ctypes.c_void_p,  # blocks
    ctypes.c_int64,  # first number
    ctypes.c_int64,  # rows
    ctypes.c_int64,  # numbers a row
    ctypes.c_void_p,  # importance
]


def packed(numbers: numpy.ndarray, block_type: gguf.GGMLQuantizationType) -> bytes:
    """What llama.cpp makes of rows of f32 numbers."""
    numbers = numpy.ascontiguousarray(numbers, dtype=numpy.float32)
    block, size = gguf.GGML_QUANT_SIZES[block_type]
    blocks = numpy.zeros(numbers.size // block * size, dtype=numpy.uint8)
    rows, columns = numbers.shape
    wrote = library.ggml_quantize_chunk(int(block_type), numbers.ctypes.data, blocks.ctypes.data, 0, rows, columns, None)
    assert wrote == blocks.size, (wrote, blocks.size)
    return blocks.tobytes()


def differing(a: bytes, b: bytes, block_type: gguf.GGMLQuantizationType) -> int:
    size = gguf.GGML_QUANT_SIZES[block_type][1]
    blocks = [numpy.frombuffer(bytes_, dtype=numpy.uint8).reshape(-1, size) for bytes_ in (a, b)]
    return int((blocks[0] != blocks[1]).any(axis=1).sum())


def rows() -> numpy.ndarray:
    """Eight rows of 256 numbers: like weights, and what breaks a quantizer."""
    random = numpy.random.default_rng(7)
    made = random.normal(0, 0.05, (8, 256)).astype(numpy.float32)
    made[4] = 0
    made[5, :32] = numpy.arange(-16, 16)  # both signs of the largest; whole steps
    made[5, 32:64] = (numpy.arange(32) - 15.5) / 127 * 15.5  # halves of a Q8_0 step
    made[6] *= 1e-6  # scales that f16 cannot hold exactly, or at all
    made[7, ::32] = 1000  # one outlier a block
    return made


def write() -> None:
    folder = ROOT / "tests/fixtures/blocks"
    folder.mkdir(parents=True, exist_ok=True)
    numbers = rows()
    (folder / "numbers.f32").write_bytes(numbers.astype("<f4").tobytes())
    for name, block_type in TYPES.items():
        blocks = packed(numbers, block_type)
        (folder / f"{name}.blocks").write_bytes(blocks)
        package = gguf.quants.quantize(numbers, block_type).tobytes()
        print(f"{name}: {len(blocks)} bytes, {differing(blocks, package, block_type)} blocks differ in the gguf package")


def interleaved(weight: numpy.ndarray, heads: int) -> numpy.ndarray:
    """Rows of a query or key matrix in llama.cpp's order of rotation."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def compare() -> None:
    import json

    from common import BLOCK_TYPES, MADE, finish, tell
    from safetensors.numpy import load_file

    weights = load_file(MADE / "merged/model.safetensors")
    config = json.loads((MADE / "merged/config.json").read_text())
    names = gguf.TensorNameMap(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for file_type in BLOCK_TYPES:
        by_type, wrong, package_differs, blocks = {}, [], 0, 0
        tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(MADE / f"{file_type}.gguf").tensors}
        for name, weight in weights.items():
            tensor = tensors.pop(names.get_name(name, try_suffixes=(".weight",)))
            if "q_proj" in name:
                weight = interleaved(weight, config["num_attention_heads"])
            if "k_proj" in name:
                weight = interleaved(weight, config["num_key_value_heads"])
            if tensor.tensor_type == gguf.GGMLQuantizationType.F32:
                expected = weight.astype("<f4").tobytes()
            else:
                expected = packed(weight, tensor.tensor_type)
                package = gguf.quants.quantize(weight, tensor.tensor_type).tobytes()
                package_differs += differing(expected, package, tensor.tensor_type)
                blocks += len(expected) // gguf.GGML_QUANT_SIZES[tensor.tensor_type][1]
            by_type[tensor.tensor_type.name] = by_type.get(tensor.tensor_type.name, 0) + 1
            if tensor.data.tobytes() != expected:
                wrong.append(name)
        counts = ", ".join(f"{count} {name}" for name, count in sorted(by_type.items()))
        note = f"; the gguf package differs in {package_differs} of {blocks} blocks"
        tell(f"{file_type} file equals llama.cpp's packing", not wrong and not tensors, counts + note + f" {wrong[:3]}" * bool(wrong))
    finish()


if __name__ == "__main__":
    write() if sys.argv[1:] == ["--write"] else compare()
