"""Training a network on pairs of frames; the rule, the light and the averages are the objects that a run uses.

Pairs are read, checked and cut into patches here, and the loop and its checkpoints live here. No Keras: that is in
`phbatch.network.learning`.
"""
