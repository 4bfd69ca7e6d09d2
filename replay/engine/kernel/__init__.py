"""The engine's inner loop: plain functions over integer arrays, compiled by numba or not.

The modules of this folder import each other relatively, so that the folder can be loaded twice: as
``replay.engine.kernel`` and, when it is compiled, under another name (tracekit/compiled).
"""
