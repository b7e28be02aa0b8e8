"""TensorFlow's runtime without its Python: graphs computed through the C API, which starts in a fraction of a second.

The functions and structures are those of ``tensorflow/c/c_api.h`` and ``tensorflow/c/eager/c_api.h``. A graph becomes a
function, as `tf.function` makes one: in a session, TensorFlow would optimize it otherwise, to other last bits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_ubyte, c_void_p
from functools import cache
from itertools import count as counting
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.words.errors import DeviceError

_LIBRARY = "libtensorflow_cc.so.2"
_DTYPES = {"float32": 1, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "uint16": 17, "float16": 19}
_NAMES = {number: name for name, number in _DTYPES.items()}
_OUT_OF_MEMORY = 8
_INTRA_OP_THREADS = b"\x10"  # field 2 of a ConfigProto
_NUMBERS = counting()  # of functions, whose names a process has once


class _Buffer(ctypes.Structure):
    _fields_ = (("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p))


class _Output(ctypes.Structure):
    _fields_ = (("operation", c_void_p), ("index", c_int))


_FUNCTIONS: Mapping[str, tuple[Any, Sequence[Any]]] = {
    "TF_NewStatus": (c_void_p, ()),
    "TF_GetCode": (c_int, (c_void_p,)),
    "TF_Message": (c_char_p, (c_void_p,)),
    "TF_DeleteStatus": (None, (c_void_p,)),
    "TF_NewGraph": (c_void_p, ()),
    "TF_DeleteGraph": (None, (c_void_p,)),
    "TF_NewImportGraphDefOptions": (c_void_p, ()),
    "TF_DeleteImportGraphDefOptions": (None, (c_void_p,)),
    "TF_GraphImportGraphDef": (None, (c_void_p, POINTER(_Buffer), c_void_p, c_void_p)),
    "TF_GraphOperationByName": (c_void_p, (c_void_p, c_char_p)),
    "TF_GraphToFunction": (
        c_void_p,
        (
            *(c_void_p, c_char_p, c_ubyte, c_int, c_void_p),
            *(c_int, POINTER(_Output), c_int, POINTER(_Output)),
            *(c_void_p, c_void_p, c_char_p, c_void_p),
        ),
    ),
    "TF_DeleteFunction": (None, (c_void_p,)),
    "TF_AllocateTensor": (c_void_p, (c_int, POINTER(c_int64), c_int, c_size_t)),
    "TF_TensorData": (c_void_p, (c_void_p,)),
    "TF_TensorType": (c_int, (c_void_p,)),
    "TF_TensorByteSize": (c_size_t, (c_void_p,)),
    "TF_NumDims": (c_int, (c_void_p,)),
    "TF_Dim": (c_int64, (c_void_p, c_int)),
    "TF_DeleteTensor": (None, (c_void_p,)),
    "TFE_NewContextOptions": (c_void_p, ()),
    "TFE_ContextOptionsSetConfig": (None, (c_void_p, c_char_p, c_size_t, c_void_p)),
    "TFE_DeleteContextOptions": (None, (c_void_p,)),
    "TFE_NewContext": (c_void_p, (c_void_p, c_void_p)),
    "TFE_ContextAddFunction": (None, (c_void_p, c_void_p, c_void_p)),
    "TFE_NewTensorHandle": (c_void_p, (c_void_p, c_void_p)),
    "TFE_TensorHandleResolve": (c_void_p, (c_void_p, c_void_p)),
    "TFE_DeleteTensorHandle": (None, (c_void_p,)),
    "TFE_NewOp": (c_void_p, (c_void_p, c_char_p, c_void_p)),
    "TFE_OpAddInput": (None, (c_void_p, c_void_p, c_void_p)),
    "TFE_OpSetAttrString": (None, (c_void_p, c_char_p, c_char_p, c_size_t)),
    "TFE_DeleteOp": (None, (c_void_p,)),
    "TFE_Execute": (None, (c_void_p, POINTER(c_void_p), POINTER(c_int), c_void_p)),
}


@cache
def _load(folder: Path) -> Any:
    """The library of the TensorFlow that is installed there; the one that its Python uses, too."""
    library = ctypes.CDLL(str(folder / _LIBRARY))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, tuple(arguments)
    return library


class Runtime:
    """TensorFlow's eager runtime, which lasts as long as the process.

    Parameters
    ----------
    folder : Path
        Of the package ``tensorflow``.
    threads : int, optional
        At most so many compute.

    Raises
    ------
    OSError, AttributeError
        The library is not there, or is another one.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self.library = _load(folder)
        options = self.library.TFE_NewContextOptions()
        self.config = b"" if threads is None else _INTRA_OP_THREADS + _varint(threads)
        """A ``ConfigProto``; a function that is called without one is not optimized as that of `tf.function` is."""
        self.ask("TFE_ContextOptionsSetConfig", options, self.config, len(self.config))
        self.context = self.ask("TFE_NewContext", options)
        self.library.TFE_DeleteContextOptions(options)

    def ask(self, name: str, *arguments: Any) -> Any:
        """Call a function that takes a status, and raise what that tells.

        Raises
        ------
        MemoryError
            There is not enough memory.
        DeviceError
            TensorFlow failed.
        """
        library = self.library
        status = library.TF_NewStatus()
        try:
            result = getattr(library, name)(*arguments, status)
            code = library.TF_GetCode(status)
            text = (library.TF_Message(status) or b"").decode(errors="replace")
        finally:
            library.TF_DeleteStatus(status)
        if code == _OUT_OF_MEMORY:
            raise MemoryError(text)
        if code:
            raise DeviceError(f"TensorFlow failed with code {code}: {text.partition(chr(10))[0]}")
        return result

    def to_handle(self, array: NDArray[Any]) -> Any:
        """A copy of an array, which is to be deleted."""
        library, lengths = self.library, (c_int64 * array.ndim)(*array.shape)
        tensor = library.TF_AllocateTensor(_DTYPES[array.dtype.name], lengths, array.ndim, array.nbytes)
        if not tensor:
            raise MemoryError(f"{array.nbytes} bytes for a tensor")
        try:
            self._view(tensor, np.dtype(array.dtype.name), array.shape)[...] = array
            return self.ask("TFE_NewTensorHandle", tensor)
        finally:
            library.TF_DeleteTensor(tensor)

    def to_array(self, handle: Any) -> NDArray[Any]:
        """A copy of what a handle stands for."""
        library, tensor = self.library, self.ask("TFE_TensorHandleResolve", handle)
        try:
            shape = tuple(library.TF_Dim(tensor, axis) for axis in range(library.TF_NumDims(tensor)))
            return self._view(tensor, np.dtype(_NAMES[library.TF_TensorType(tensor)]), shape).copy()
        finally:
            library.TF_DeleteTensor(tensor)

    def _view(self, tensor: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        size = self.library.TF_TensorByteSize(tensor)
        held = (ctypes.c_char * size).from_address(self.library.TF_TensorData(tensor))
        return np.frombuffer(held, dtype).reshape(shape)


class GraphFunction:
    """A graph as a function of arrays, on the cores of this machine.

    Parameters
    ----------
    runtime : Runtime
        Of this process.
    graph : bytes
        A serialized ``GraphDef``.
    constants : mapping of str to ndarray
        What placeholders of the graph stand for at every call.
    inputs, outputs : sequence of str
        Placeholders that differ from call to call, and what is computed, as ``name:index``.

    Raises
    ------
    DeviceError
        The graph is none, or lacks what is named.
    """

    def __init__(
        self,
        runtime: Runtime,
        graph: bytes,
        constants: Mapping[str, NDArray[Any]],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        self._runtime, self._count = runtime, len(outputs)
        self._name = f"phbatch_{next(_NUMBERS)}".encode()
        self._define(graph, [*(f"{name}:0" for name in (*constants, *inputs)), *outputs])
        self._constants = [runtime.to_handle(array) for array in constants.values()]

    def _define(self, graph: bytes, names: Sequence[str]) -> None:
        library, ask = self._runtime.library, self._runtime.ask
        body = library.TF_NewGraph()
        options = library.TF_NewImportGraphDefOptions()
        try:
            buffer = _Buffer(ctypes.cast(c_char_p(graph), c_void_p), len(graph), None)
            ask("TF_GraphImportGraphDef", body, byref(buffer), options)
            found = [_find(library, body, name) for name in names]
            given = len(found) - self._count
            inputs, outputs = (_Output * given)(*found[:given]), (_Output * self._count)(*found[given:])
            ends = *(given, inputs), *(self._count, outputs)
            function = ask("TF_GraphToFunction", body, self._name, 0, -1, None, *ends, None, None, None)
            ask("TFE_ContextAddFunction", self._runtime.context, function)
            library.TF_DeleteFunction(function)
        finally:
            library.TF_DeleteImportGraphDefOptions(options)
            library.TF_DeleteGraph(body)

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs, of inputs in the order of their names.

        Raises
        ------
        MemoryError
            There is not enough memory.
        DeviceError
            TensorFlow failed.
        """
        runtime, library = self._runtime, self._runtime.library
        given: list[Any] = []
        results, count = (c_void_p * self._count)(), c_int(self._count)
        operation = runtime.ask("TFE_NewOp", runtime.context, self._name)
        try:
            library.TFE_OpSetAttrString(operation, b"config_proto", runtime.config, len(runtime.config))
            given += [runtime.to_handle(array) for array in inputs]
            for handle in (*self._constants, *given):
                runtime.ask("TFE_OpAddInput", operation, handle)
            runtime.ask("TFE_Execute", operation, results, byref(count))
            return [runtime.to_array(result) for result in results]
        finally:
            library.TFE_DeleteOp(operation)
            for handle in (*given, *filter(None, results)):
                library.TFE_DeleteTensorHandle(handle)


def _find(library: Any, graph: Any, name: str) -> _Output:
    operation, _, index = name.rpartition(":")
    found = library.TF_GraphOperationByName(graph, operation.encode())
    if not found:
        raise DeviceError(f"the graph has no {operation}")
    return _Output(found, int(index))


def _varint(number: int) -> bytes:
    """A number as protocol buffers write it."""
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])
