"""A model folder is opened without a framework, and what it lacks is said with the remedy."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from csbdeep.models import Config, ProjectionConfig

from phbatch.network.model import bundled_models, open_model
from phbatch.words.errors import ModelError
from phbatch.words.normalization import Normalization
from tests.handmade import write_model


def test_a_folder_says_what_it_is(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "mine", probabilistic=True, unet_n_depth=1)
    facts = {"normalization": {"method": "mode", "factor": 5, "sigma": 1.5}, "trained_on": "yeast"}
    (folder / "phbatch.json").write_text(json.dumps(facts))
    model = open_model(folder)
    assert (model.name, model.folder, model.config.depth) == ("mine", folder, 1)
    assert model.normalization == Normalization(method="mode", factor=5, sigma=1.5)
    assert model.facts == facts
    assert model.sha256 == hashlib.sha256((folder / "weights_best.h5").read_bytes()).hexdigest()
    (folder / "phbatch.json").write_text('{"trained_on": "yeast"}')
    assert open_model(folder).normalization is None
    (folder / "phbatch.json").unlink()
    assert open_model(folder).facts == {}


def test_opening_loads_no_framework(tmp_path: Path) -> None:
    code = (
        "import sys; from phbatch.network.model import open_model; open_model(sys.argv[1]);"
        "print([name for name in ('tensorflow', 'keras', 'jax', 'csbdeep') if name in sys.modules])"
    )
    arguments = [sys.executable, "-c", code, str(write_model(tmp_path / "model"))]
    assert subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.strip() == "[]"


def test_weights_that_are_absent_are_asked_for(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "weights_best.h5").rename(folder / "weights_best.keras")
    with pytest.raises(ModelError, match="holds no weights; copy weights_best"):
        open_model(folder)
    (folder / "weights_best.h5").mkdir()
    with pytest.raises(ModelError, match="holds no weights"):
        open_model(folder)


def test_a_name_that_is_no_model_lists_the_bundled_ones(tmp_path: Path) -> None:
    for name in ("phase-9d", tmp_path / "absent", write_model(tmp_path / "model") / "config.json"):
        with pytest.raises(ModelError, match=f"the bundled ones: {bundled_models()[0]}"):
            open_model(name)


@pytest.mark.parametrize(
    "sidecar",
    [
        {"normalization": {"method": "percentile", "pmin": 99, "pmax": 1}},
        {"normalization": {"method": "fixed"}},
        {"normalization": {"method": "median", "factor": 0}},
        {"normalization": {"method": "median", "sigma": -1}},
        {"normalization": {"method": "z-score"}},
        {"normalization": {"method": "median", "percentile": 2}},
        {"normalization": "median"},
        {"normalization": None},
    ],
    ids=json.dumps,
)
def test_a_rule_that_cannot_be_is_refused_with_its_file(tmp_path: Path, sidecar: dict[str, Any]) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "phbatch.json").write_text(json.dumps(sidecar))
    with pytest.raises(ModelError, match=r"normalization in .*phbatch\.json is not valid"):
        open_model(folder)


def test_configurations_that_csbdeep_itself_writes_are_told_apart(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps(vars(ProjectionConfig("ZYXC"))))
    with pytest.raises(ModelError, match="is a ProjectionCARE model"):
        open_model(folder)
    theirs = vars(Config("YXC", unet_n_depth=3, unet_kern_size=7, unet_n_first=12, probabilistic=True))
    (folder / "config.json").write_text(json.dumps(theirs | {"allow_new_parameters": True}))
    config = open_model(folder).config
    assert (config.depth, config.kernel, config.n_first, config.residual) == (3, 7, 12, True)
    assert (config.probabilistic, config.n_output, config.last_activation) == (True, 2, "linear")
    theirs["n2v_perc_pix"] = 0.2
    (folder / "config.json").write_text(json.dumps(theirs))
    with pytest.raises(ModelError, match="is a N2V model"):
        open_model(folder)


@pytest.mark.parametrize("value", [None, [3], {"a": 1}, "three", float("inf"), float("nan"), -1])
@pytest.mark.parametrize("key", ["n_dim", "n_channel_in", "unet_n_depth", "unet_kern_size", "unet_n_first"])
def test_numbers_that_are_none_are_refused(tmp_path: Path, key: str, value: object) -> None:
    folder = write_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {key: value}
    (folder / "config.json").write_text(json.dumps(config))  # Infinity and NaN are written, as Python does
    with pytest.raises(ModelError, match=r"in config\.json|config\.json lacks"):
        open_model(folder)


@pytest.mark.parametrize("key", ["n_dim", "n_channel_out", "unet_residual", "unet_last_activation", "probabilistic"])
def test_a_key_that_is_absent_is_named(tmp_path: Path, key: str) -> None:
    folder = write_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    del config[key]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=f"lacks a valid '{key}'"):
        open_model(folder)
