"""The socket engine's kernel: plain functions over integer arrays, compiled or not."""
