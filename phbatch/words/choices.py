"""Words that a setting takes, and what of them is known beforehand."""

from __future__ import annotations

from typing import Literal

OutputDtype = Literal["float32", "float16", "uint16", "uint8", "input"]
OmeZarr = Literal["0.4", "0.5"]
Backend = Literal["tensorflow", "jax"]
BackendChoice = Literal["auto", "tensorflow", "jax"]
Network = Literal["auto", "plain", "upsampling", "polyphase-1", "polyphase-2", "polyphase-3"]
Codec = Literal["auto", "blosc-lz4", "blosc-zstd", "zstd", "none"]
Shuffle = Literal["auto", "byte", "bit"]
Precision = Literal["auto", "float32", "tf32", "float16", "bfloat16"]
FLOAT32: Precision = "float32"
NanPolicy = Literal["refuse", "skip"]
BadFrames = Literal["normalize", "skip", "copy"]
Others = Literal["copy", "drop"]
LevelMethod = Literal["mean", "mode"]
Scope = Literal["image", "position", "series"]
IlluminationMode = Literal["divide", "subtract"]
Loss = Literal["mae", "mse", "laplace"]
Target = Literal["auto", "low", "own"]

MOST_WORKERS = 16
"""Units at once unless more are asked for: a core prepares some 70 MPx/s, and a GPU restores a thousand."""

MOST_READERS = 4
"""Objects of an output that are checked at once unless more are asked for."""

FRAME_BACKGROUNDS = ("gaussian", "polynomial")
"""Backgrounds that are estimated of every frame by itself."""

ESTIMATED_BACKGROUNDS = (*FRAME_BACKGROUNDS, "temporal", "basic")
"""Backgrounds that are estimated of a sample of frames; what is none of them is the path of a profile."""
