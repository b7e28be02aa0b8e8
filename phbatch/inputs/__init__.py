"""What a run reads: the image as ``tczyx``, its stamps and absent chunks, and profiles of light.

Inputs are opened, described and read here, and never changed.
"""
