"""Tests of threads on a CPython without the GIL, which is built for them."""
