"""Places where bytes lie: local disks, object stores, other file systems, and the formats that are found there.

Stores of Zarr are opened, guarded, locked, listed, dated and written durably here, and OME-NGFF and tables are parsed.
What an image means to a run is not known here; no other room looks at a URL.
"""
