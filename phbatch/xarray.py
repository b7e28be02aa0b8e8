"""Registers the accessor ``.phbatch`` of xarray.DataArray; `phbatch.open` does, too.

>>> import numpy, xarray, phbatch.xarray
>>> cells = xarray.DataArray(numpy.full((2, 16, 16), 50.0), dims=["t", "y", "x"])
>>> float(cells.phbatch.statistics()["mean"][1])
50.0
"""

from phbatch.running.open_array import PhbatchAccessor, register_accessor

__all__ = ["PhbatchAccessor"]

register_accessor()
