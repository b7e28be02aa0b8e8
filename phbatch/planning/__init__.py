"""What is decided before a pixel is read: units, memory, and what is done with them; contradictions are refused.

Integers and records only: no store is opened and no network loaded here.
"""
