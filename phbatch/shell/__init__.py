"""The command line: options to calls of `phbatch`, results to text and exit codes.

It decides nothing; click is imported here and nowhere else.
"""
