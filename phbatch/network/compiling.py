"""A network and what else is done on the device, as one function of fixed shape that its framework compiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.network.backend import network_threads, starting
from phbatch.network.c_api import GraphFunction, Runtime
from phbatch.network.functions import Network
from phbatch.network.programs import Program
from phbatch.network.steps import Steps, Windows, apply_steps
from phbatch.words.choices import Backend

Call = Callable[[Windows], Sequence[Any]]
"""Takes as many windows as it was compiled for through all steps."""


@dataclass(frozen=True)
class Compiled:
    """A network with its steps.

    Attributes
    ----------
    call : callable
        Computes it.
    program : callable
        Gives what computes the same without Keras (`open_program`).
    """

    call: Call
    program: Callable[[], Program]


def compile_network(network: Network, shape: tuple[int, ...], backend: Backend, steps: Steps) -> Compiled:
    """Compile a network for batches of a shape ``(n, *tile, n_channel_in)``."""
    compiling = _compile_tensorflow if backend == "tensorflow" else _compile_jax
    return compiling(network, shape, steps)


def open_program(backend: Backend, program: Program) -> Call:
    """What computes a program, without Keras and, on cores, without TensorFlow's Python."""
    with starting(backend):
        return _open_tensorflow(program) if backend == "tensorflow" else _open_jax(program)


def _compile_tensorflow(network: Network, shape: tuple[int, ...], steps: Steps) -> Compiled:
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(network.precision == "tf32")

    batch, *tile, channels = shape
    weights = [tf.convert_to_tensor(array) for array in network.arrays]
    signature = [
        [tf.TensorSpec(array.shape, tf.float32) for array in network.arrays],
        tf.TensorSpec(shape, steps.windows),
        tf.TensorSpec((batch, 4, channels), tf.float32),
        tf.TensorSpec((batch, len(tile), 2), tf.int32),
    ]
    on_gpu = bool(tf.config.list_physical_devices("GPU"))

    @tf.function(input_signature=signature, jit_compile=on_gpu, autograph=False)  # type: ignore[untyped-decorator]
    def call(weights: list[Any], pixels: Any, scaling: Any, owned: Any) -> Any:
        return apply_steps(partial(network.apply, weights), steps, pixels, scaling, owned)

    def start(windows: Windows) -> Sequence[Any]:
        given = [tf.convert_to_tensor(array) for array in (windows.pixels, windows.scaling, windows.owned)]
        return call(weights, *given)  # type: ignore[no-any-return]

    return Compiled(start, lambda: _graph_of(call.get_concrete_function(), network.arrays))


def _graph_of(concrete: Any, arrays: Sequence[NDArray[np.float32]]) -> Program:
    """The graph that a function was traced to, which is given the weights first."""
    names = [tensor.op.name for tensor in concrete.inputs]
    weights = dict(zip(names, arrays, strict=False))
    outputs = tuple(tensor.name for tensor in concrete.outputs)
    return Program(concrete.graph.as_graph_def().SerializeToString(), weights, tuple(names[len(weights) :]), outputs)


def _open_tensorflow(program: Program) -> Call:
    function = GraphFunction(_runtime(), program.graph, program.weights, program.inputs, program.outputs)
    return lambda windows: function(windows.pixels, windows.scaling, windows.owned)


@cache
def _runtime() -> Runtime:
    found = find_spec("tensorflow")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("tensorflow")
    return Runtime(Path(found.origin).parent, network_threads())


def _compile_jax(network: Network, shape: tuple[int, ...], steps: Steps) -> Compiled:
    import jax
    import jax.export

    products = "tensorfloat32" if network.precision == "tf32" else "float32"
    weights = [jax.numpy.asarray(array) for array in network.arrays]

    @jax.jit  # type: ignore[untyped-decorator]
    def call(weights: Any, pixels: Any, scaling: Any, owned: Any) -> Any:
        def predict(tiles: Any) -> Any:
            with jax.default_matmul_precision(products):
                return network.apply(weights, tiles)

        return apply_steps(predict, steps, pixels, scaling, owned)

    def program() -> Program:
        batch, *tile, channels = shape
        specified = [
            jax.ShapeDtypeStruct(shape, steps.windows),
            jax.ShapeDtypeStruct((batch, 4, channels), "float32"),
            jax.ShapeDtypeStruct((batch, len(tile), 2), "int32"),
        ]
        exported = jax.export.export(call)(weights, *specified)
        return Program(exported.serialize(), {str(place): np.asarray(each) for place, each in enumerate(weights)})

    return Compiled(partial(_start_jax, call, weights), program)


def _open_jax(program: Program) -> Call:
    import jax
    import jax.export

    call = jax.jit(jax.export.deserialize(bytearray(program.graph)).call)
    return partial(_start_jax, call, [jax.numpy.asarray(array) for array in program.weights.values()])


def _start_jax(call: Any, weights: list[Any], windows: Windows) -> Sequence[Any]:
    results = call(weights, windows.pixels, windows.scaling, windows.owned)
    for result in results:
        result.copy_to_host_async()
    return results  # type: ignore[no-any-return]
