"""Loads the empty libraries that stand in for CUDA's, so that torch can be imported without the real ones.

`ops/setup-peers` makes them, and puts this file where every start of `.peers/bin/python` imports it. Without
stand-ins, because the real libraries are there, it does nothing.
"""
import ctypes
import os
import pathlib
import sys

_libraries = sorted((pathlib.Path(sys.prefix) / "lib/stand-ins").glob("*.so*"))
if _libraries:
    # An empty library has no functions to call: no device may be found, and no symbol looked up before its use.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    sys.setdlopenflags(os.RTLD_LAZY)
    for _library in _libraries:
        ctypes.CDLL(str(_library))
