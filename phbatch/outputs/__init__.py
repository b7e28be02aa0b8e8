"""What a run writes: the image of whole chunks, the ledger of what is durable, and the audit of both.

Everything is written aside, synchronized and then moved into place; nothing is called finished before. What the pixels
are is decided elsewhere.
"""
