"""Real kernels without hardware: a guest that QEMU emulates in software, and what runs in it.

Development only: not part of the wheel.
"""
