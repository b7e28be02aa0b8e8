"""Files as microscopes write them, read plane by plane.

Each format is a file here that makes a `Recording`: its positions, and a plane of one of them. Nothing here knows what
becomes of the pixels; `store` shows a position as a Zarr array of which nothing is copied, and to the rooms above that
is an image as any other.
"""
