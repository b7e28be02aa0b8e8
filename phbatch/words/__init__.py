"""The words of everything else: settings, errors, axes, events, results, and how sentences name options.

They are frozen records and functions of plain values. Nothing of phbatch lies below them, and no pixel, file or
network is touched here.
"""
