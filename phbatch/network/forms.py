"""The same network in fewer operations: convolutions rewritten by algebra on their weights alone.

A *form* of a network is an equal network that computes in another order:

``plain``
    CSBDeep's, layer by layer (`phbatch.network.unet.connect`).
``upsampling``
    No tensor is upsampled, and none is joined to a skip. A convolution of ``[upsampled, skip]`` is the sum of two:
    nearest upsampling by two followed by a kernel is one transposed convolution of stride two (`fold_upsampling`).
``polyphase-n``
    Besides, the levels ``0 .. n - 1`` hold the phases of each ``2 x 2`` block as channels of half the resolution (space
    to depth): a convolution stays a convolution (`to_blocks`), with four times the channels, which suits matrix units
    and networks of few filters; pooling becomes the maximum over the phases.

Zeros are padded where they were: every length that is halved is even, since tiles lie on the pooling grid. Only the
order of the float32 sums changes. Polyphase decomposition: Vaidyanathan, 1990, Multirate digital filters, filter banks,
polyphase networks, and applications: a tutorial, Proc. IEEE 78, 56-93, https://doi.org/10.1109/5.52200.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial, reduce
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.network.functions import Arrays, Functions, Network
from phbatch.network.unet import NetworkConfig, connect, list_layers
from phbatch.words.choices import FLOAT32, Precision
from phbatch.words.errors import UsageError

PLAIN = "plain"
UPSAMPLING = "upsampling"
POLYPHASE = "polyphase-"


def list_forms(config: NetworkConfig) -> tuple[str, ...]:
    """Names of all forms of a network.

    At most three levels are in space to depth, one in 3D: from there on there are too few pixels to gain anything, and
    the weights, 16 or 64 times as many, take more memory than the pixels.

    Examples
    --------
    >>> list_forms(NetworkConfig(2, 1, 1, 2, 5, 32, True, "linear", False))
    ('plain', 'upsampling', 'polyphase-1', 'polyphase-2')
    """
    deepest = min(config.depth, 3 if config.n_dim == 2 else 1)
    return (PLAIN, UPSAMPLING, *(f"{POLYPHASE}{count}" for count in range(1, deepest + 1)))


def require_form(config: NetworkConfig, form: str) -> None:
    """Refuse a form that a network does not have.

    Raises
    ------
    UsageError
        Names those that it has.
    """
    forms = list_forms(config)
    if form not in forms:
        raise UsageError(
            f"--network {form} is no form of a {config.n_dim}D network of depth {config.depth}; use {', '.join(forms)}."
        )


def fold_upsampling(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Kernel of the transposed convolution that equals nearest upsampling by two and a convolution after it.

    Parameters
    ----------
    kernel : (k, ..., n_in, n_out) ndarray
        Odd k along every spatial axis; padding ``"same"``.

    Returns
    -------
    (k + 1, ..., n_out, n_in) ndarray of float32
        For stride two and padding ``"same"``. A pixel is seen twice, so along each axis the kernel is summed with
        itself shifted by one; it is reversed, since a transposed convolution scatters. An output pixel costs
        ``((k + 1) / 2)**n_dim`` taps instead of ``k**n_dim``.

    Examples
    --------
    >>> fold_upsampling(np.float32([1, 2, 4]).reshape(3, 1, 1)).ravel()
    array([4., 6., 3., 1.], dtype=float32)
    """
    folded = kernel.astype(np.float64)
    for axis in range(kernel.ndim - 2):
        before, after = [[(0, 0)] * kernel.ndim for _ in range(2)]
        before[axis], after[axis] = (1, 0), (0, 1)
        folded = np.flip(np.pad(folded, before) + np.pad(folded, after), axis)
    return np.swapaxes(folded, -1, -2).astype(np.float32)


def to_blocks(kernel: NDArray[np.float32], *, upsampled: bool = False) -> NDArray[np.float32]:
    """Kernel of a convolution on tensors whose blocks of two pixels per axis are channels.

    Output phase p of a block sees input phase q of the block at offset b through the tap ``2 b + q - p``.

    Parameters
    ----------
    kernel : (k, ..., n_in, n_out) ndarray
        Odd k along every spatial axis; padding ``"same"``.
    upsampled : bool
        Whether the input was upsampled by two: all its phases are the same, and only one of them is given.

    Returns
    -------
    (b, ..., 2**n_dim * n_in, 2**n_dim * n_out) ndarray of float32
        ``b = 2 ceil((k - 1) / 4) + 1``; ``n_in`` input channels where it was upsampled. Channels are in the order of
        `space_to_depth`: phases in row-major order, then the channels of each.

    Examples
    --------
    >>> to_blocks(np.float32([1, 2, 4]).reshape(3, 1, 1))[1]  # taps within a block
    array([[2., 1.],
           [4., 2.]], dtype=float32)
    """
    n_dim = kernel.ndim - 2
    blocks = kernel.astype(np.float64)
    for width in kernel.shape[:-2]:
        taps = _block_taps(width)
        blocks = np.tensordot(blocks, taps.sum(1, keepdims=True) if upsampled else taps, axes=([0], [3]))
    # (n_in, n_out, b, q, p, ...), three axes per spatial axis
    offsets, inputs, outputs = (range(2 + part, 2 + 3 * n_dim, 3) for part in range(3))
    blocks = blocks.transpose(*offsets, *inputs, 0, *outputs, 1)
    shape = blocks.shape
    return blocks.reshape(*shape[:n_dim], prod(shape[n_dim : 2 * n_dim + 1]), -1).astype(np.float32)


def _block_taps(width: int) -> NDArray[np.float64]:
    """1 where block offset b, input phase q and output phase p meet in tap k, as ``(b, q, p, k)``."""
    reach = (width - 1) // 2
    blocks = -(-reach // 2)
    taps = np.zeros((2 * blocks + 1, 2, 2, width))
    for block, q, p in product(range(-blocks, blocks + 1), (0, 1), (0, 1)):
        tap = 2 * block + q - p
        if abs(tap) <= reach:
            taps[block + blocks, q, p, tap + reach] = 1
    return taps


def space_to_depth(tensor: Any) -> Any:
    """Blocks of two pixels per axis as channels: ``(n, y, x, c)`` to ``(n, y / 2, x / 2, 4 c)``, any number of axes."""
    from keras import ops

    _, *lengths, channels = tensor.shape
    n_dim = len(lengths)
    split = ops.reshape(tensor, (-1, *(part for length in lengths for part in (length // 2, 2)), channels))
    moved = ops.transpose(split, (0, *range(1, 2 * n_dim, 2), *range(2, 2 * n_dim + 1, 2), 2 * n_dim + 1))
    return ops.reshape(moved, (-1, *(length // 2 for length in lengths), channels << n_dim))


def depth_to_space(tensor: Any) -> Any:
    """The inverse of `space_to_depth`."""
    from keras import ops

    _, *lengths, channels = tensor.shape
    n_dim = len(lengths)
    split = ops.reshape(tensor, (-1, *lengths, *(2,) * n_dim, channels >> n_dim))
    order = [axis for pair in zip(range(1, n_dim + 1), range(n_dim + 1, 2 * n_dim + 1), strict=True) for axis in pair]
    moved = ops.transpose(split, (0, *order, 2 * n_dim + 1))
    return ops.reshape(moved, (-1, *(2 * length for length in lengths), channels >> n_dim))


def build_form(config: NetworkConfig, weights: Arrays, form: str, precision: Precision = FLOAT32) -> Network:
    """A form of the network, on whichever backend Keras runs.

    Parameters
    ----------
    config : NetworkConfig
        The architecture.
    weights : mapping of str to (kernel, bias)
        By layer name, as `phbatch.network.unet.list_layers` names them.
    form : str
        One of `list_forms`.
    precision : {"float32", "tf32", "float16", "bfloat16"}
        Of all layers but the first and the last ones, which are float32.

    Returns
    -------
    Network
        From ``(n, *tile, n_channel_in)``, a tile being a multiple of the pooling grid, to ``(n, *tile, n_output)``,
        float32: the function of `phbatch.network.unet.build_network`, in float32 to a few units of the last place of
        its sums.

    Raises
    ------
    UsageError
        The network has no such form.
    """
    require_form(config, form)
    if form == PLAIN:
        named = {layer.name: weights[layer.name] for layer in list_layers(config)}
        return Network(named, partial(connect, config), precision)
    rewritten = _Form(config, int(form.removeprefix(POLYPHASE)) if form.startswith(POLYPHASE) else 0)
    return Network(dict(rewritten.rewrite(weights)), rewritten.connect, precision)


_DIRECT, _UPSAMPLED, _HEADS = "/direct", "/upsampled", "heads"


@dataclass(frozen=True)
class _Form:
    """A form: the first `blocked` levels in space to depth, upsampling folded everywhere."""

    config: NetworkConfig
    blocked: int

    @property
    def phases(self) -> int:
        """Of a block."""
        return 1 << self.config.n_dim

    def rewrite(self, weights: Arrays) -> Iterator[tuple[str, tuple[NDArray[np.float32], ...]]]:
        """The weights by the names that `connect` uses."""
        for layer in list_layers(self.config):
            kernel, bias = weights[layer.name]
            _, _, rest = layer.name.partition("_level_")
            level = int(rest.partition("_")[0]) if rest else self.config.depth
            blocked = level < self.blocked
            if layer.name in ("mean", "scale"):
                continue
            if layer.name.startswith("up") and layer.name.endswith("_0"):
                own = self.config.n_first << level
                upsampled, direct = np.split(kernel, [kernel.shape[-2] - own], axis=-2)
                if blocked:
                    kernel = np.concatenate([to_blocks(upsampled, upsampled=True), to_blocks(direct)], axis=-2)
                    yield layer.name, (kernel, np.tile(bias, self.phases))
                else:
                    yield layer.name + _DIRECT, (direct, bias)
                    yield layer.name + _UPSAMPLED, (fold_upsampling(upsampled),)
            elif blocked:
                yield layer.name, (to_blocks(kernel), np.tile(bias, self.phases))
            else:
                yield layer.name, (kernel, bias)
        heads = [weights[name] for name in ("mean", "scale")[: 1 + self.config.probabilistic]]
        kernel = np.concatenate([kernel for kernel, _ in heads], axis=-1)
        bias = np.concatenate([bias for _, bias in heads])
        if self.blocked:
            kernel, bias = to_blocks(kernel), np.tile(bias, self.phases)
        yield _HEADS, (kernel.reshape(kernel.shape[-2:]), bias)

    def connect(self, parts: Functions, inputs: Any) -> Any:
        """The network, of tensors."""
        config, ops = self.config, parts.ops
        tensor, skips = inputs, []
        for level in range(config.depth):
            blocked = level < self.blocked
            tensor = space_to_depth(tensor) if blocked else tensor
            for index in range(2):
                tensor = parts.convolve(tensor, f"down_level_{level}_no_{index}")
            skips.append(tensor)
            tensor = reduce(ops.maximum, ops.split(tensor, self.phases, axis=-1)) if blocked else parts.pool(tensor)
        tensor = parts.convolve(parts.convolve(tensor, "middle_0"), "middle_2")
        for level in reversed(range(config.depth)):
            blocked, name = level < self.blocked, f"up_level_{level}_no_0"
            if blocked:  # there, both parts have one resolution
                tensor = parts.convolve(parts.concatenate([tensor, skips[level]]), name)
            else:  # a convolution of ``[upsampled, skip]``, from the tensor that was not upsampled
                direct = parts.convolve(skips[level], name + _DIRECT, "linear")
                tensor = ops.relu(ops.add(direct, parts.convolve_transposed(tensor, name + _UPSAMPLED)))
            tensor = parts.convolve(tensor, f"up_level_{level}_no_2")
            if blocked and level > 0:
                tensor = depth_to_space(tensor)
        return self._finish(parts, tensor, inputs)

    def _finish(self, parts: Functions, tensor: Any, inputs: Any) -> Any:
        """Both heads at once, the residual, and the last activations."""
        config, ops = self.config, parts.ops
        # One pixel wide, so a matrix product: twice as fast as a convolution with one output channel.
        tensor = parts.mix(tensor, _HEADS)
        tensor = depth_to_space(tensor) if self.blocked else tensor
        mean = tensor[..., : config.n_channel_out]
        mean = parts.add([mean, inputs]) if config.residual else mean
        mean = parts.activate(mean, config.last_activation)
        if not config.probabilistic:
            return mean
        scale = parts.lift(ops.softplus(tensor[..., config.n_channel_out :]))
        return parts.concatenate([mean, scale], FLOAT32)
