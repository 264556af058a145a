"""Compiles the kernels for sm_80, sm_90a and sm_100 with NVRTC, which needs no device: python build_cubins.py libnvrtc.so.12

Writes cubin/ARCHITECTURE.gz and cubin/SOURCE, the hash of what was compiled; a test asks that it is that of the source at hand.
An older major version of NVRTC is the better choice: drivers load cubins of their own or an earlier one.
"""

import ctypes
import gzip
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
# moe.cu is no more than these.
PARTS = ["ptx.cuh", "route.cuh", "product.cuh", "stream.cuh"]
ARCHITECTURES = ["sm_80", "sm_90a", "sm_100"]


def compile_for(nvrtc, source, architecture):
    program = ctypes.c_void_p()
    check(nvrtc, nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"moe.cu", 0, None, None))
    options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17", b"-default-device"]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    if failed:
        sys.exit(f"{architecture}: {log.value.decode()}")
    check(nvrtc, nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)))
    cubin = ctypes.create_string_buffer(size.value)
    check(nvrtc, nvrtc.nvrtcGetCUBIN(program, cubin))
    return cubin.raw[: size.value]


def fnv1a(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) % 2**64
    return h


def check(nvrtc, status):
    if status:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        sys.exit(nvrtc.nvrtcGetErrorString(status).decode())


def main():
    nvrtc = ctypes.CDLL(sys.argv[1])
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    source = b"".join((HERE / part).read_bytes() for part in PARTS)
    out = HERE / "cubin"
    out.mkdir(exist_ok=True)
    for architecture in ARCHITECTURES:
        cubin = compile_for(nvrtc, source, architecture)
        (out / f"{architecture}.gz").write_bytes(gzip.compress(cubin, 9, mtime=0))
        print(architecture, len(cubin), "bytes")
    (out / "SOURCE").write_text(f"{fnv1a(source):016x} NVRTC {major.value}.{minor.value}\n")


if __name__ == "__main__":
    main()
