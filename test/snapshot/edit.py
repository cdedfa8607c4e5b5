#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Damages a snapshot: edit.py FROM TO EDIT…

flip OFFSET              one bit of the byte there
truncate SIZE
set NODE PROPERTY VALUE  of the device tree: s:STRING or b:HEX; behind `reseal` its hash is made right
                         again, behind `noseal` it stays
dataflip chunks          one of the hashes of the data, behind a right hash of the tree
"""
import ctypes.util
import struct
import sys

BEGIN, END_NODE, PROP, NOP, END = 1, 2, 3, 4, 9


def xxh3_128(data):
    lib = ctypes.CDLL(ctypes.util.find_library("xxhash") or "libxxhash.so.0")

    class Hash(ctypes.Structure):
        _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]

    lib.XXH3_128bits.restype = Hash
    lib.XXH3_128bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    h = lib.XXH3_128bits(bytes(data), len(data))
    return struct.pack(">QQ", h.high, h.low)


def unflatten(blob):
    """A node is [name, {property: value}, [nodes]]."""
    _, _, struct_at, strings_at = struct.unpack(">4I", blob[:16])
    at, stack = struct_at, [["", {}, []]]
    while True:
        (token,) = struct.unpack(">I", blob[at : at + 4])
        at += 4
        if token == BEGIN:
            end = blob.index(0, at)
            node = [blob[at:end].decode(), {}, []]
            stack[-1][2].append(node)
            stack.append(node)
            at = (end + 4) & ~3
        elif token == END_NODE:
            stack.pop()
        elif token == PROP:
            n, name = struct.unpack(">II", blob[at : at + 8])
            name = blob[strings_at + name : blob.index(0, strings_at + name)].decode()
            stack[-1][1][name] = blob[at + 8 : at + 8 + n]
            at = (at + 8 + n + 3) & ~3
        elif token == END:
            return stack[0][2][0]


def flatten(root):
    strings, body = bytearray(), bytearray()

    def put(node):
        body.extend(struct.pack(">I", BEGIN) + node[0].encode() + b"\0")
        body.extend(b"\0" * (-len(body) % 4))
        for name, value in node[1].items():
            at = strings.find(name.encode() + b"\0")
            if at < 0:
                at = len(strings)
                strings.extend(name.encode() + b"\0")
            body.extend(struct.pack(">III", PROP, len(value), at) + value)
            body.extend(b"\0" * (-len(body) % 4))
        for child in node[2]:
            put(child)
        body.extend(struct.pack(">I", END_NODE))

    put(root)
    body.extend(struct.pack(">I", END))
    size = 56 + len(body) + len(strings)
    head = struct.pack(">10I", 0xD00DFEED, size, 56, 56 + len(body), 40, 17, 16, 0, len(strings), len(body))
    return head + b"\0" * 16 + bytes(body) + bytes(strings)


def find(root, path):
    node = root
    for name in path.strip("/").split("/"):
        if name:
            node = next(c for c in node[2] if c[0] == name)
    return node


def seal(root):
    find(root, "/file")[1]["hash"] = b"\0" * 16
    find(root, "/file")[1]["hash"] = xxh3_128(flatten(root))


def main():
    source, target, *edits = sys.argv[1:]
    data = bytearray(open(source, "rb").read())
    (total,) = struct.unpack(">I", data[4:8])
    root, reseal = None, True
    while edits:
        what = edits.pop(0)
        if what == "flip":
            data[int(edits.pop(0))] ^= 4
        elif what == "truncate":
            del data[int(edits.pop(0)) :]
        elif what in ("reseal", "noseal"):
            reseal = what == "reseal"
        elif what == "set":
            path, name, value = edits.pop(0), edits.pop(0), edits.pop(0)
            root = root or unflatten(data)
            if value[:2] == "s:":
                value = value[2:].encode() + b"\0"
            else:
                value = value[2:]
                value = bytes.fromhex(value[: len(value) & ~1])
            find(root, path)[1][name] = value
        elif what == "dataflip":
            root = root or unflatten(data)
            props = find(root, "/file")[1]
            chunks = bytearray(props[edits.pop(0)])
            chunks[0] ^= 1
            props["chunks"] = bytes(chunks)
    if root:
        if reseal:
            seal(root)
        blob = flatten(root)
        (begin,) = struct.unpack(">Q", find(root, "/file")[1]["data"][:8])
        assert len(blob) <= begin
        data[:begin] = blob + b"\0" * (begin - len(blob))
    open(target, "wb").write(data)


main()
