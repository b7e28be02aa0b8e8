"""The network that learns: batches of patches in, losses out, and all of its state as arrays.

Losses, optimizer and rate are those of CSBDeep's ``CARE.train``: Adam, lowered on a plateau of the validation loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.network.backend import select_backend
from phbatch.network.unet import NetworkConfig, build_network, list_layers
from phbatch.network.weights import Weights
from phbatch.words.choices import Backend, Loss

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Patches ``(n, [z,] y, x, channels)``: what the network is given, and what it should make of it."""

REDUCE_RATE = {"factor": 0.5, "patience": 10, "min_delta": 0}
"""CSBDeep's: after 10 epochs without a lower validation loss, the rate is halved."""


def loss_function(name: Loss) -> Callable[[Any, Any], Any]:
    """A loss of CSBDeep, of the truth ``(..., c)`` and what the network makes; a value per pixel.

    Parameters
    ----------
    name : {"mae", "mse", "laplace"}
        Mean absolute and mean squared error of the mean; or the negative logarithm of the Laplace distribution whose
        mean and scale the network gives, ``|mean - truth| / scale + log(scale) + log(2)`` (Weigert et al., 2018,
        https://doi.org/10.1038/s41592-018-0216-7).
    """
    from keras import ops

    def mae(truth: Any, made: Any) -> Any:
        return ops.mean(ops.abs(made[..., : truth.shape[-1]] - truth), axis=-1)

    def mse(truth: Any, made: Any) -> Any:
        return ops.mean(ops.square(made[..., : truth.shape[-1]] - truth), axis=-1)

    def laplace(truth: Any, made: Any) -> Any:
        mean, scale = made[..., : truth.shape[-1]], made[..., truth.shape[-1] :]
        return ops.mean(ops.abs((mean - truth) / scale) + ops.log(scale) + float(np.log(2)), axis=-1)

    return {"mae": mae, "mse": mse, "laplace": laplace}[name]


class Learner:
    """A network and its optimizer, in this process.

    Parameters
    ----------
    config : NetworkConfig
        The architecture.
    weights : mapping of str to (kernel, bias)
        To begin with.
    loss : {"mae", "mse", "laplace"}
        What is lowered.
    rate : float
        Learning rate of Adam.
    backend : {"tensorflow", "jax"}
        Keras backend; one per process.

    Raises
    ------
    UsageError
        The backend is not installed, or Keras runs on another one in this process.
    """

    def __init__(self, config: NetworkConfig, weights: Weights, loss: Loss, rate: float, backend: Backend) -> None:
        select_backend(backend)
        import keras

        self.config = config
        self.network = build_network(config, weights)
        optimizer = keras.optimizers.Adam(learning_rate=rate)
        self.network.compile(optimizer=optimizer, loss=loss_function(loss))
        optimizer.build(self.network.trainable_variables)
        self._plateau = keras.callbacks.ReduceLROnPlateau(verbose=0, **REDUCE_RATE)
        self._plateau.set_model(self.network)
        self._plateau.on_train_begin()

    @property
    def rate(self) -> float:
        """Learning rate now."""
        return float(np.asarray(self.network.optimizer.learning_rate))

    def learn(self, batch: Batch) -> float:
        """Take one step; returns the mean loss of the batch before it."""
        return self._loss_of(self.network.train_on_batch, batch)

    def judge(self, batches: Iterable[Batch]) -> float:
        """Mean loss over batches of validation; nothing is learnt."""
        losses = [(self._loss_of(self.network.test_on_batch, batch), len(batch[0])) for batch in batches]
        return float(np.average([loss for loss, _ in losses], weights=[count for _, count in losses]))

    def _loss_of(self, call: Callable[..., Any], batch: Batch) -> float:
        self.network.reset_metrics()  # not every version of Keras begins a batch anew
        return float(np.asarray(call(*batch)).ravel()[0])

    def end_epoch(self, epoch: int, validation_loss: float) -> None:
        """Lower the rate on a plateau of the validation loss."""
        self._plateau.on_epoch_end(epoch, {"val_loss": validation_loss})

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the network makes of patches: means, then scales."""
        return np.asarray(self.network.predict_on_batch(patches))

    def weights(self) -> Weights:
        """Of every convolution, as they are now."""
        found = {layer.name: self.network.get_layer(layer.name).get_weights() for layer in list_layers(self.config)}
        return {name: (kernel, bias) for name, (kernel, bias) in found.items()}

    def set_weights(self, weights: Weights) -> None:
        """Take other weights, and leave the optimizer as it is."""
        for name, pair in weights.items():
            self.network.get_layer(name).set_weights(list(pair))

    def state(self) -> dict[str, NDArray[Any]]:
        """All that the next step depends on, as arrays by name."""
        arrays = {
            f"{name}/{part}": array
            for name, pair in self.weights().items()
            for part, array in zip(("kernel", "bias"), pair, strict=True)
        }
        arrays |= {f"optimizer/{index}": np.asarray(each) for index, each in enumerate(self._optimizer_variables)}
        plateau = (self._plateau.best, self._plateau.wait, self._plateau.cooldown_counter)
        return arrays | {"plateau": np.array(plateau, np.float64)}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where another learner was."""
        names = [layer.name for layer in list_layers(self.config)]
        self.set_weights({name: (state[f"{name}/kernel"], state[f"{name}/bias"]) for name in names})
        for index, variable in enumerate(self._optimizer_variables):
            variable.assign(state[f"optimizer/{index}"])
        best, wait, cooldown = state["plateau"]
        self._plateau.best, self._plateau.wait, self._plateau.cooldown_counter = float(best), int(wait), int(cooldown)

    @property
    def _optimizer_variables(self) -> list[Any]:
        return list(self.network.optimizer.variables)
