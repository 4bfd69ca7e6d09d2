"""Kernels as machine code: made by numba once, kept on disk, and called without importing numba.

``kernels.py`` is what others use; ``function.py`` calls a compiled function, ``cache.py`` keeps it,
``machine_code.py`` has LLVM load it, and ``build.py``, the only user of numba, makes it.
"""
