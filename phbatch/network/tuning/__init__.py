"""What is chosen for a network by measuring it on this machine: form, tile and batch, precision.

What was measured is remembered in the user's cache directory; what is chosen changes speed, and numbers only as far as
the settings allow.
"""
