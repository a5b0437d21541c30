"""Builds every wheel of a release, and the source distribution, on one Linux machine.

`python -m release` fills dist/; `nox -s wheels` does that and then checks and runs the result
(tests/package/test_dist.py). `release.matrix` is the table of what is built.
"""
