"""Which form a network takes where it is not worth measuring: a table of what was measured before, elsewhere."""

from __future__ import annotations

from math import log2

from phbatch.network.device import Device
from phbatch.network.forms import PLAIN, UPSAMPLING, list_forms
from phbatch.network.unet import NetworkConfig
from phbatch.words.choices import FLOAT32, Precision

_WITH_MATRIX_UNITS = {(5, 32): "polyphase-2", (3, 32): "polyphase-1", (5, 16): "polyphase-2"}
"""The fastest form by width of the kernel and filters of the first level, of a 2D network of depth two.

Measured on an H100, frames of 2048 x 2048 on the device: 1.74, 1.03 and 2.17 times as fast as plain in float16, and in
the same order in bfloat16. With four or sixteen times the channels, convolutions fill the matrix units.
"""


def default_form(config: NetworkConfig, device: Device, precision: Precision) -> str:
    """The form that is expected to be the fastest on a device in a precision.

    A CPU takes ``plain``, which has the bits of CSBDeep, until another form was measured to be faster. On a GPU, what
    was not measured takes the entry of the nearest kernel and number of filters; in float32, which its matrix units do
    not compute, fewer operations win: ``upsampling``. Nobody measured 3D networks there: ``plain``.

    Examples
    --------
    >>> config = NetworkConfig(2, 1, 1, 2, 5, 32, True, "linear", False)
    >>> card = Device("H100", True, matrix_units=True)
    >>> default_form(config, card, "float16"), default_form(config, card, "float32")
    ('polyphase-2', 'upsampling')
    >>> default_form(config, Device("a processor, 8 cores", False), "float32")
    'plain'
    """
    if not device.on_gpu or config.n_dim != 2:
        return PLAIN
    if not device.matrix_units or precision == FLOAT32:
        return UPSAMPLING

    def distance(entry: tuple[int, int]) -> float:
        kernel, filters = entry
        return abs(kernel - config.kernel) / 2 + abs(log2(filters / config.n_first))

    form = _WITH_MATRIX_UNITS[min(_WITH_MATRIX_UNITS, key=distance)]
    forms = list_forms(config)
    return form if form in forms else forms[-1]
