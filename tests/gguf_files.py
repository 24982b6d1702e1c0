"""Writes GGUF files for the tests, following the format's description and not using the code under test."""

import struct

import numpy as np

from tinyllm.checkpoint import huggingface

CODES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "BF16": 30}


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(x):
    """The bytes of a setting: its type, then its value."""
    if isinstance(x, bool):
        return struct.pack("<I?", 7, x)
    if isinstance(x, int):
        return struct.pack("<II", 4, x)
    if isinstance(x, float):
        return struct.pack("<If", 6, x)
    if isinstance(x, str):
        return struct.pack("<I", 8) + string(x)
    if isinstance(x[0], str):
        return struct.pack("<IIQ", 9, 8, len(x)) + b"".join(map(string, x))
    return struct.pack("<IIQ", 9, 5, len(x)) + np.array(x, "<i4").tobytes()


def quantised(w, kind):
    """float32 (rows, columns) -> the bytes of a tensor, and the weights that the bytes stand for."""
    if kind in ("F32", "F16"):
        w = w.astype({"F32": "<f4", "F16": "<f2"}[kind])
        return w.tobytes(), w.astype(np.float32)
    if kind == "BF16":
        upper = w.astype("<f4").view("<u4") >> 16
        return upper.astype("<u2").tobytes(), (upper << 16).view("<f4")
    data, stored = b"", []
    for block in w.reshape(-1, 32):
        low, high = float(block.min()), float(block.max())
        scale = {"Q8_0": max(-low, high) / 127, "Q4_0": max(-low, high) / 7, "Q4_1": (high - low) / 15}[kind]
        scale, low = np.float16(scale or 1), np.float16(low)
        offset = {"Q8_0": 0, "Q4_0": 8, "Q4_1": 0}[kind]
        shifted = block - np.float32(low) if kind == "Q4_1" else block
        q = np.rint(shifted / np.float32(scale)).astype(int) + offset
        q = q.clip(-127, 127) if kind == "Q8_0" else q.clip(0, 15)
        stored.append(np.float32(scale) * (q - offset) + (np.float32(low) if kind == "Q4_1" else 0))
        data += scale.tobytes() + (low.tobytes() if kind == "Q4_1" else b"")
        if kind == "Q8_0":
            data += q.astype("i1").tobytes()
        else:  # byte i holds weight i in its lower half, weight 16 + i in its upper half
            data += bytes(int(a) | int(b) << 4 for a, b in zip(q[:16], q[16:], strict=True))
    return data, np.array(stored, np.float32).reshape(w.shape)


def settings_of(config, **more):
    value_of = {published: getattr(config, ours) for ours, published in huggingface.KEYS.items()}
    value_of |= {"model_type": "llama", "rope_theta": config.theta}
    return {name: value_of[key] for key, name in huggingface.GGUF_KEYS.items()} | more


def write(path, settings, tensors, kind_of=lambda name: "F32", version=3):
    """tensors: {name: array}. Returns the tensors with the values that the file stores: {name: array}."""
    infos, data, stored = b"", b"", {}
    for name, w in tensors.items():
        kind = kind_of(name) if w.ndim > 1 else "F32"
        packed, stored[name] = quantised(w, kind)
        dims = struct.pack(f"<I{w.ndim}Q", w.ndim, *reversed(w.shape))
        infos += string(name) + dims + struct.pack("<IQ", CODES.get(kind, 0), len(data))
        data += packed + bytes(-len(packed) % 32)
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(settings))
    head += b"".join(string(key) + value(x) for key, x in settings.items()) + infos
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return stored


def vocabulary(specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"), merges=("a b",), pre="smollm"):
    """Settings of a vocabulary that consists of special tokens, the 256 bytes and the merged tokens."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    names = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    tokens = [*specials, *names, *(pair.replace(" ", "") for pair in merges)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(specials) + [1] * (len(tokens) - len(specials)),
        "tokenizer.ggml.merges": list(merges),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def write_model(path, model, kind="F32", **more):
    """Writes a whole model with ChatML's special tokens, the bytes and one merge (260 ids)."""
    tensors = {huggingface.stored_name(name, huggingface.GGUF): w for name, w in model.params.items()}
    return write(path, settings_of(model.config, **vocabulary() | more), tensors, lambda name: kind)
