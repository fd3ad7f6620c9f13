"""The sealed half of the toy trainer: random numbers, data and its hash, records, weights on disk, turns.

The build puts it in front of `trainer.py`; together they are one program that needs only Python's standard library.
"""
import os
import struct
import sys

VOCABULARY = " .adehilmnorstuw"


class Random:
    """SplitMix64: a stream of numbers for a seed and a purpose."""

    def __init__(self, seed, purpose):
        self.state = (seed * 0x9E3779B97F4A7C15 + purpose * 0xD1B54A32D192ED03) % 2**64

    def bits(self):
        self.state = z = (self.state + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    def below(self, n):
        return self.bits() % n

    def uniform(self):
        return (self.bits() >> 11) / 2**53


def encode(text):
    return [VOCABULARY.index(char) for char in text]


def decode(tokens):
    return "".join(VOCABULARY[token] for token in tokens)


def read_tokens():
    """Tokens for training, and the last tenth, which is held out."""
    with open("data/text.txt", encoding="ascii") as file:
        tokens = encode(file.read().replace("\n", " "))
    cut = len(tokens) * 9 // 10
    return tokens[:cut], tokens[cut:]


class Loader:
    """Windows at random places, and a hash (FNV-1a) over every token that it gave."""

    def __init__(self, tokens, seed, block):
        self.tokens, self.block = tokens, block
        self.random = Random(seed, 1)
        self.hash = 0xCBF29CE484222325

    def batch(self, size):
        """`size` windows of `block` tokens and the one after."""
        windows = []
        for _ in range(size):
            start = self.random.below(len(self.tokens) - self.block)
            windows.append(self.tokens[start : start + self.block + 1])
            for token in windows[-1]:
                self.hash = (self.hash ^ token) * 0x100000001B3 % 2**64
        return windows


class Metrics:
    """One JSON object a step, in the file when `row` returns."""

    def __init__(self):
        os.makedirs("run", exist_ok=True)
        self.file = open("run/metrics.jsonl", "w", buffering=1, encoding="ascii")

    def row(self, **values):
        self.file.write("{%s}\n" % ", ".join(f'"{name}": {json_value(value)}' for name, value in values.items()))


def json_value(value):
    if isinstance(value, str):
        return f'"{value}"'
    return "null" if value != value or abs(value) == float("inf") else repr(value)


def write_weights(folder, params):
    """Safetensors, f32. A parameter is a list of rows; one row alone is a vector."""
    header, data = [], b""
    for name, rows in params.items():
        shape = [len(rows), len(rows[0])] if len(rows) > 1 else [len(rows[0])]
        flat = [value for row in rows for value in row]
        offsets = [len(data), len(data) + 4 * len(flat)]
        header.append(f'"{name}":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}')
        data += struct.pack(f"<{len(flat)}f", *flat)
    text = "{%s}" % ",".join(header)
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text.encode() + data)


def read_weights(folder):
    import json

    with open(f"{folder}/model.safetensors", "rb") as file:
        data = file.read()
    (length,) = struct.unpack_from("<Q", data)
    params = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        begin, end = entry["data_offsets"]
        flat = struct.unpack_from(f"<{(end - begin) // 4}f", data, 8 + length + begin)
        width = entry["shape"][-1]
        params[name] = [list(flat[start : start + width]) for start in range(0, len(flat), width)]
    return params


class Turns:
    """Lets steps through when the loop says so; without a loop, lets all through (docs/turns.md)."""

    def __init__(self):
        path = os.environ.get("ALPHA_TURNS")
        self.file, self.left, self.done = None, 0, 0
        if path:
            import socket

            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(path)
            self.file = self.socket.makefile("r")
            self.say("hello 1")

    def say(self, line):
        self.socket.sendall(f"{line}\n".encode())

    def before_step(self, save):
        while self.file and self.left == 0:
            word, *number = self.file.readline().split() or ["gone"]
            if word == "go":
                self.left = int(number[0])
            elif word == "save":
                save(self.done)
                self.say("saved")
            else:
                sys.exit("the loop is gone")

    def after_step(self, is_last):
        self.done, self.left = self.done + 1, self.left - 1
        if self.file and (self.left == 0 or is_last):
            self.say(f"done {self.done}")
