"""What becomes of the pixels of one frame or block: light, statistics, normalization, tiles, restoration, table.

Kernels and the network are composed here, in memory, by a recipe that is settled before. Nothing is read or written,
but for the statistics table as a table.
"""
