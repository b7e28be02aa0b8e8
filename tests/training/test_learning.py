"""What CSBDeep's own training does with the same weights and batches is the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from csbdeep.internals import losses
from csbdeep.internals.train import DataWrapper
from csbdeep.models import CARE

from phbatch.network.learning import Learner, loss_function
from phbatch.network.model import open_model
from phbatch.network.saving import care_config, draw_weights, encode_weights
from phbatch.network.unet import NetworkConfig, parse_config
from phbatch.network.weights import read_weights
from tests.models import Case, make_model


def draw_pairs(case: Case, count: int = 12, side: int = 16) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(3)
    shape = (count, *(side,) * case.n_dim)
    truth = draw.normal(1, 0.3, (*shape, case.channels[1])).astype("float32")
    low = truth[..., : case.channels[0]] + draw.normal(0, 0.1, (*shape, case.channels[0])).astype("float32")
    return low.astype("float32"), truth


def learner_of(folder: Path, loss: Any, rate: float = 4e-4) -> Learner:
    model = open_model(folder)
    return Learner(model.config, read_weights(model.weights_path, model.config), loss, rate, "tensorflow")


@pytest.mark.parametrize(
    ("loss", "case"),
    [
        ("mae", Case(depth=1, n_first=2)),
        ("mse", Case(n_dim=3, depth=1, n_first=2, channels=(2, 1), residual=False)),
        ("laplace", Case(depth=1, n_first=2, channels=(2, 2), probabilistic=True)),
    ],
    ids=str,
)
def test_losses_and_gradients_are_those_of_csbdeep(tmp_path: Path, loss: Any, case: Case) -> None:
    import tensorflow as tf

    model = make_model(tmp_path / "model", case)
    low, truth = draw_pairs(case, 3, 8)

    def value_and_gradients(function: Any, network: Any) -> list[np.ndarray]:
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(function(tf.constant(truth), network(low, training=True)))
        return [np.asarray(value), *map(np.asarray, tape.gradient(value, network.trainable_variables))]

    expected = value_and_gradients(getattr(losses, f"loss_{loss}")(), model.keras_model)
    learner = learner_of(tmp_path / "model", loss)
    found = value_and_gradients(loss_function(loss), learner.network)
    assert len(found) == len(expected) > 10
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1e-3, float(np.abs(b).max())))


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")  # by CSBDeep
def test_ten_steps_stay_with_those_of_care(tmp_path: Path) -> None:
    case = Case(depth=1, n_first=4, probabilistic=True)
    low, truth = draw_pairs(case)
    model = make_model(tmp_path / "model", case)
    learner = learner_of(tmp_path / "model", model.config.train_loss, model.config.train_learning_rate)
    before = learner.weights()["middle_0"][0]
    model.config.train_batch_size = 4
    model.prepare_for_training()
    model.keras_model.optimizer.build(model.keras_model.trainable_variables)  # else Keras traces each step twice
    np.random.seed(5)  # noqa: NPY002  (CSBDeep draws from the global generator)
    history = model.train(low, truth, (low[:4], truth[:4]), epochs=1, steps_per_epoch=10).history
    np.random.seed(5)  # noqa: NPY002
    batches = DataWrapper(low, truth, 4, length=10)
    loss = np.mean([learner.learn(batches[step]) for step in range(10)])
    assert loss == pytest.approx(history["loss"][0], abs=1e-4)
    assert learner.judge([(low[:4], truth[:4])]) == pytest.approx(history["val_loss"][0], abs=1e-4)
    for found, expected in zip(learner.network.get_weights(), model.keras_model.get_weights(), strict=True):
        assert np.abs(found - expected).max() < 1e-4
    assert np.abs(learner.weights()["middle_0"][0] - before).max() > 1e-3


def test_a_learner_goes_on_where_another_was(tmp_path: Path) -> None:
    case = Case(depth=1, n_first=2)
    make_model(tmp_path / "model", case)
    batch = draw_pairs(case, 4)

    def learn(learner: Learner, epochs: range) -> None:
        for epoch in epochs:
            learner.learn(batch)
            learner.end_epoch(epoch, 1.0)  # a plateau: the rate is halved after ten

    whole, second = (learner_of(tmp_path / "model", "mae") for _ in range(2))
    learn(whole, range(7))
    state = whole.state()
    learn(whole, range(7, 14))
    second.set_state(state)
    learn(second, range(7, 14))
    assert second.rate == whole.rate == pytest.approx(2e-4)
    for name, array in whole.state().items():
        np.testing.assert_allclose(second.state()[name], array, rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(
    "config",
    [
        NetworkConfig(2, 1, 1, 2, 5, 2, True, "linear", False),
        NetworkConfig(3, 2, 1, 1, 3, 2, False, "relu", True),
    ],
    ids=["2d", "3d-probabilistic"],
)
def test_csbdeep_loads_what_is_saved(tmp_path: Path, config: NetworkConfig) -> None:
    written = care_config(config, loss="mae", epochs=1, steps=2, batch=3, rate=1e-3, reduce_rate={"factor": 0.5})
    written["train_loss"] = "laplace" if config.probabilistic else "mae"
    assert parse_config(written) == config
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps(written))
    weights = draw_weights(config, 7)
    (tmp_path / "model/weights_best.h5").write_bytes(encode_weights(config, weights))
    read = read_weights(tmp_path / "model/weights_best.h5", config)
    model = CARE(None, "model", basedir=str(tmp_path))
    assert model.config.train_batch_size == 3
    learner = Learner(config, read, "mae", 1e-3, "tensorflow")
    frame = np.random.default_rng(0).random((1, *(8,) * config.n_dim, config.n_channel_in)).astype("float32")
    np.testing.assert_array_equal(learner.predict(frame), model.keras_model.predict(frame, verbose=0))
    assert all(np.array_equal(read[name][0], kernel) for name, (kernel, _) in weights.items())


def test_new_weights_are_drawn_as_keras_draws_them() -> None:
    config = NetworkConfig(2, 1, 1, 1, 5, 32, True, "linear", False)
    kernel, bias = draw_weights(config, 1)["middle_0"]
    ours, theirs = kernel, np.asarray(keras.initializers.GlorotUniform(seed=1)(kernel.shape))
    assert not bias.any()
    assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=1e-3)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.01)
