"""Nodes with the same documents are parsed once, and are nobody else's all the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from phbatch.places.place import Place


@pytest.mark.parametrize("node", ["", "0"])
def test_who_changes_the_attributes_of_a_node_changes_no_other(tmp_path: Path, node: str) -> None:
    for name in ("a.zarr", "b.zarr"):
        group = zarr.create_group(tmp_path / name, attributes={"run": {"status": "running"}})
        group.create_array("0", data=np.zeros((2, 2)), attributes={"run": {"status": "running"}})
    for name in ("a.zarr", "a.zarr", "b.zarr"):
        found = Place.at(tmp_path / name).open(node)
        run = found.attrs.asdict()["run"]
        assert run == {"status": "running"}
        run["status"] = "complete"
