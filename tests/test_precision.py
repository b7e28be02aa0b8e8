"""Reduced precision is used only where it was checked on the input, and recorded; out of memory loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.network.device import Device
from phbatch.network.forms import build_form
from phbatch.network.model import open_model
from phbatch.network.predictor import Predictor
from phbatch.network.steps import Prediction, Steps, Windows
from phbatch.network.tuning import form as form_module
from phbatch.network.tuning import precision
from phbatch.network.tuning.precision import PrecisionCheck, check_precisions, choose_precision
from phbatch.network.unet import FIRST
from phbatch.network.weights import read_weights

CARD = Device("a card", True, matrix_units=True, memory_bytes=80 << 30)


@pytest.fixture
def source(tmp_path: Path) -> str:
    movie = phbatch.PhaseContrast(shape=(96, 100), n_frames=4, seed=3)
    image = np.stack([movie.frame(t) for t in range(4)])
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(1, 96, 100))
    return str(tmp_path / "in.zarr")


def pixels(result: phbatch.RunResult) -> np.ndarray:
    return zarr.open_array(result.output, path="0", mode="r")[:]


def facts(result: phbatch.RunResult) -> dict[str, Any]:
    return zarr.open_group(result.output, mode="r").attrs.asdict()["phbatch"]


def test_little_work_is_float32(tmp_path: Path, source: str) -> None:
    auto = phbatch.run(source, tmp_path / "auto.zarr", model="phase-2d")
    exact = phbatch.run(source, tmp_path / "exact.zarr", model="phase-2d", precision="float32")
    np.testing.assert_array_equal(pixels(auto), pixels(exact))
    assert facts(auto)["fingerprint"]["settings"]["precision"] == "float32"
    assert not any("precision" in notice for notice in auto.notices)


@pytest.mark.parametrize(
    ("flags", "seconds", "p99_9", "expected"),
    [
        ("avx2 avx512_bf16", 0.5, 0.004, "bfloat16"),
        ("amx_bf16", 0.5, 0.004, "bfloat16"),
        ("avx2", 0.5, 0.004, "float32"),
        ("avx512_bf16", 0.5, 0.2, "float32"),
        ("avx512_bf16", 0.99, 0.004, "float32"),
    ],
)
def test_auto_on_a_cpu_takes_what_is_faster_and_holds_the_bound(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, seconds: float, p99_9: float, expected: str
) -> None:
    model = open_model("phase-2d")
    seen: list[tuple[int, ...]] = []

    def check(_: object, tile: tuple[int, ...], *others: Any) -> list[PrecisionCheck]:
        seen.append(tile)
        assert others[-1].shape == (2, *tile, 1)
        np.testing.assert_array_equal(others[-1][..., 0], tiles[:, 128:384, 128:384, 0])
        return [PrecisionCheck("float32", 1.0, 0.0, 0.0), PrecisionCheck("bfloat16", seconds, 2 * p99_9, p99_9)]

    monkeypatch.setattr(precision, "check_precisions", check)
    monkeypatch.setattr(precision, "find_device", lambda _: Device("a processor", False))
    monkeypatch.setattr(precision, "_CPU_FACTS", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}")
    tiles = np.random.default_rng(0).random((2, 512, 512, 1), np.float32)
    arguments = (model, (512, 512), 1, "tensorflow", "plain", "auto", 1e-2, lambda: tiles)
    found, reason = choose_precision(*arguments, pixels=10**12, cache=tmp_path)  # type: ignore[arg-type]
    assert found.precision == expected
    assert seen == ([(256, 256)] if "bf16" in flags else [])
    assert bool(reason) == ("bf16" in flags)
    assert choose_precision(*arguments, pixels=10**5)[0].precision == "float32"  # type: ignore[arg-type]
    again, reason = choose_precision(*arguments, pixels=10**12, cache=tmp_path)  # type: ignore[arg-type]
    assert again.precision == expected
    assert len(seen) == (2 if expected == "bfloat16" else "bf16" in flags), "what is taken is checked every time"
    assert reason.startswith("remembered") == ("bf16" in flags)


class TestOnACard:
    """A GPU with matrix units that nobody has: which precision comes first, and the form after it."""

    @pytest.fixture
    def state(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Differences by precision, and what was compiled to learn them."""
        state: dict[str, Any] = {"p99_9": {"float16": 4e-3, "bfloat16": 3e-2, "tf32": 1e-3}, "checked": []}

        def check(*arguments: Any) -> list[PrecisionCheck]:
            form, (name,) = arguments[4:6]
            state["checked"].append((name, form))
            error = state["p99_9"][name]
            return [PrecisionCheck("float32", 1.0, 0.0, 0.0), PrecisionCheck(name, 0.4, 2 * error, error)]

        monkeypatch.setattr(precision, "check_precisions", check)
        monkeypatch.setattr(precision, "find_device", lambda _: CARD)
        monkeypatch.setattr(form_module, "find_device", lambda _: CARD)
        return state

    def choose(self, cache: Path, asked: str = "auto") -> tuple[PrecisionCheck, str]:
        tiles = np.ones((1, 64, 64, 1), np.float32)
        model = open_model("phase-2d")
        return choose_precision(model, (64, 64), 1, "jax", "auto", asked, 1e-2, lambda: tiles, 10**9, cache=cache)  # type: ignore[arg-type]

    def test_one_candidate_is_compiled_in_its_own_form(self, state: dict[str, Any], tmp_path: Path) -> None:
        found, reason = self.choose(tmp_path)
        assert found.precision == "float16"
        assert state["checked"] == [("float16", "polyphase-1")]
        assert reason.startswith("2.50 x float32; differs by 4.0e-03")
        assert self.choose(tmp_path)[1].startswith("remembered 2.50 x float32")

    def test_the_next_one_where_the_first_does_not_hold(self, state: dict[str, Any], tmp_path: Path) -> None:
        state["p99_9"]["float16"] = 0.02
        assert self.choose(tmp_path)[0].precision == "tf32"
        assert [name for name, _ in state["checked"]] == ["float16", "bfloat16", "tf32"]
        state["p99_9"]["float16"] = 0.004
        assert self.choose(tmp_path)[0].precision == "float16", "another input, another chance"

    def test_none_that_holds_is_float32(self, state: dict[str, Any], tmp_path: Path) -> None:
        state["p99_9"] = dict.fromkeys(state["p99_9"], 0.5)
        assert self.choose(tmp_path)[0].precision == "float32"
        with pytest.raises(phbatch.UsageError, match="differs from float32"):
            self.choose(tmp_path, "float16")

    def test_forms_are_measured_in_the_precision_with_the_steps_of_the_run(
        self, state: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        class Fake:
            def __init__(self, *arguments: Any) -> None:
                asked.append(arguments[4:])

            def restore(self, windows: Windows) -> Prediction:
                assert windows.pixels.dtype == np.uint16
                return Prediction(np.arange(4.0).reshape(1, 2, 2, 1), None, np.zeros(1, np.int32))

        monkeypatch.setattr(form_module, "Predictor", Fake)
        steps = Steps(windows="uint16", dtype="uint16")
        settled: dict[str, Any] = {"precision": "float16", "steps": steps}
        model, arguments = open_model("phase-2d"), ((64, 64), 1, "jax")
        few = form_module.choose_form(model, *arguments, 10**6, tmp_path, **settled)  # type: ignore[arg-type]
        assert (few.form, asked) == ("polyphase-1", []), "a table where it is not worth measuring"
        form_module.choose_form(model, *arguments, 10**15, tmp_path, **settled)  # type: ignore[arg-type]
        assert asked == [(form, "float16", steps) for form in ("plain", "upsampling", "polyphase-1", "polyphase-2")]


def test_a_reduced_precision_is_checked_recorded_and_continued(tmp_path: Path, source: str) -> None:
    exact = pixels(phbatch.run(source, tmp_path / "exact.zarr", model="phase-2d"))
    result = phbatch.run(source, tmp_path / "o.zarr", model="phase-2d", precision="bfloat16", precision_bound=0.5)
    difference = np.abs(pixels(result) - exact) / exact.std()
    assert 1e-4 < np.percentile(difference, 99.9) < 0.5
    record = facts(result)["precision"]
    assert record["precision"] == "bfloat16"
    assert record["p99_9"] == pytest.approx(np.percentile(difference, 99.9), rel=0.3)
    assert any("precision: bfloat16, asked for; differs by" in notice for notice in result.notices)
    again = phbatch.run(source, tmp_path / "o.zarr", model="phase-2d")
    assert again.units_done == 0


def test_a_precision_beyond_its_bound_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(phbatch.UsageError, match=r"precision='bfloat16' differs from float32 by .* of the output"):
        phbatch.run(source, tmp_path / "o.zarr", model="phase-2d", precision="bfloat16", precision_bound=1e-6)
    assert not (tmp_path / "o.zarr").exists()


def test_frames_that_are_passed_through_are_no_sample(tmp_path: Path, source: str) -> None:
    image = zarr.open_array(source, mode="r+")
    image[:] = 7
    with pytest.raises(phbatch.UsageError, match="no sampled frame can be normalized"):
        phbatch.run(source, tmp_path / "o.zarr", model="phase-2d", precision="bfloat16")
    assert phbatch.run(source, tmp_path / "o.zarr", model="phase-2d").failed == {}


def test_the_check_is_the_difference_of_the_network(source: str) -> None:
    model = open_model("phase-2d")
    tiles = np.random.default_rng(0).normal(1, 0.1, (2, 64, 64, 1)).astype(np.float32)
    exact, reduced = check_precisions(model, (64, 64), 1, "tensorflow", "plain", ["bfloat16"], tiles)
    assert (exact.largest, exact.p99_9) == (0.0, 0.0)
    networks = [Predictor(model.folder, (64, 64), 1, "tensorflow", "plain", name) for name in ("float32", "bfloat16")]
    results = [np.concatenate([network(tile[None]) for tile in tiles]) for network in networks]
    difference = np.abs(results[1] - results[0]) / results[0].std()
    assert reduced.largest == pytest.approx(difference.max())
    assert reduced.p99_9 == pytest.approx(np.percentile(difference, 99.9))


@pytest.mark.parametrize("form", ["plain", "upsampling", "polyphase-1"])
def test_every_form_has_float32_last_layers(form: str) -> None:
    model = open_model("phase-2d")
    tile = np.random.default_rng(0).normal(1, 0.1, (1, 64, 64, 1)).astype(np.float32)
    result = Predictor(model.folder, (64, 64), 1, "tensorflow", form, "bfloat16")(tile)
    assert result.dtype == np.float32
    exact = Predictor(model.folder, (64, 64), 1, "tensorflow", form)(tile)
    # bfloat16 has 8 digits: were the residual added in it, the error would be 2**-9 of 1 and more
    assert 0 < np.abs(result - exact).mean() < 2.0**-9


@pytest.mark.parametrize("form", ["plain", "upsampling", "polyphase-1"])
def test_every_form_sees_a_contrast_that_16_bits_lose(form: str) -> None:
    """A contrast of 2**-12 next to 1, and a first layer that makes it large and takes the 1 away."""
    model = open_model("phase-2d")
    weights = read_weights(model.weights_path, model.config)
    kernel, bias = weights[FIRST]
    weights[FIRST] = 2.0**9 * (kernel - kernel.mean((0, 1), keepdims=True)), bias
    tile = 1 + 2.0**-12 * np.random.default_rng(0).normal(size=(1, 64, 64, 1)).astype(np.float32)
    results = []
    for name in ("float32", "bfloat16"):
        network = build_form(model.config, weights, form, name)
        results.append(np.asarray(network(tile)) - tile)
    exact, reduced = (result[:, 16:-16, 16:-16] for result in results)
    assert np.abs(reduced - exact).mean() < exact.std() / 4


def test_out_of_memory_halves_the_batch_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = open_model("phase-2d").folder
    tiles = np.random.default_rng(0).normal(1, 0.1, (7, 32, 32, 1)).astype(np.float32)
    alone = Predictor(folder, (32, 32), 1, "tensorflow")
    expected = np.concatenate([alone(tile[None]) for tile in tiles])
    sizes: list[int] = []
    compiled = Predictor.__init__

    def starved(self: Predictor, *arguments: Any) -> None:
        compiled(self, *arguments)
        call = self._call

        def limited(windows: Windows) -> Any:
            sizes.append(len(windows.pixels))
            if len(windows.pixels) > 2:
                raise RuntimeError("RESOURCE_EXHAUSTED: out of memory while allocating")
            return call(windows)

        self._call = limited

    monkeypatch.setattr(Predictor, "__init__", starved)
    predictor = Predictor(folder, (32, 32), 8, "tensorflow")
    for _ in range(2):
        np.testing.assert_allclose(predictor(tiles), expected, atol=1e-5)
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    monkeypatch.setattr(Predictor, "_call", None, raising=False)
    single = Predictor(folder, (32, 32), 1, "tensorflow")

    def fail(windows: Windows) -> Any:
        raise MemoryError

    single._call = fail
    with pytest.raises(phbatch.MemoryLimitError, match="no memory for a tile of 32x32; lower tile"):
        single(tiles[:1])
