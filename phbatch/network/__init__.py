"""One CARE network on one device: the model folder, the weights, the network and the function compiled of it.

Batches of tiles go in, predictions come out. Frames, runs and places of images are not known here.
"""
