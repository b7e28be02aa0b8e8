"""An output opened in a viewer that did not write it: neuroglancer on loopback, in a browser, by its screenshot."""

from __future__ import annotations

import io
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

import phbatch
from tests.browser import browser, needs_browser

_SHADER = "#uicontrol invlerp normalized\nvoid main(){emitGrayscale(normalized());}"
_RANGE = (0.5, 1.5)
_PATIENCE_S = 120.0


class _Handler(SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@needs_browser
@pytest.mark.skipif(find_spec("neuroglancer") is None, reason="no neuroglancer: pip install 'phbatch[viewer]'")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_neuroglancer_shows_the_pixels(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import neuroglancer
    y, x = np.mgrid[:96, :128]
    light = 1000 + 250 * np.sin(x / 9) * np.cos(y / 13) + 3 * np.arange(3)[:, None, None]
    zarr.create_array(tmp_path / "in.zarr", data=light.astype("uint16"), chunks=(1, 96, 128))
    result = phbatch.run(tmp_path / "in.zarr", model="none", workers=1)
    stored = zarr.open_array(f"{result.output}/0")[2]
    neuroglancer.set_server_bind_address("127.0.0.1")
    with serving(Path(result.output)) as address, browser() as page:
        viewer = neuroglancer.Viewer()
        controls = {"normalized": {"range": list(_RANGE)}}
        layer = {"type": "image", "source": f"{address}/|zarr3:", "name": "restored", "shader": _SHADER}
        viewer.set_state(
            {
                "dimensions": {axis: [1, ""] for axis in "tyx"},
                "displayDimensions": ["x", "y"],
                "position": [2, 48, 64],
                "crossSectionScale": 0.25,
                "layers": [layer | {"shaderControls": controls}],
                "layout": "xy",
                "showAxisLines": False,
            }
        )
        page.resize(800, 600)
        page.open(viewer.get_viewer_url())
        page.wait_for("window.viewer && viewer.layerManager.managedLayers.length && viewer.isReady()")
        left, top, width, height = page.run(
            "(() => {const b = document.querySelector('.neuroglancer-rendered-data-panel').getBoundingClientRect();"
            " return [b.x, b.y, b.width, b.height]})()"
        )
        # Four pixels of the screen are one of the image, whose pixels lie about integers; (48, 64) is in the middle.
        rows, columns = np.mgrid[-150:150, -200:200]
        middle = round(top + height / 2), round(left + width / 2)
        expected = stored[48 + (rows + 2) // 4, 64 + (columns + 2) // 4]
        gray = np.clip((expected - _RANGE[0]) / (_RANGE[1] - _RANGE[0]), 0, 1) * 255
        difference, stop = np.inf, time.monotonic() + _PATIENCE_S
        while difference > 4 and time.monotonic() < stop:  # it is ready before it has drawn
            shown = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"), np.float64)
            seen = shown[rows + middle[0], columns + middle[1]]
            difference = float(np.abs(seen - gray).mean())
    neuroglancer.stop()
    assert difference < 4
    assert np.corrcoef(seen.ravel(), gray.ravel())[0, 1] > 0.99
