"""Builds every wheel of a release, and the source distribution, on one Linux machine.

`python -m release` fills dist/; `nox -s wheels` does that and then checks and runs what came of it
(tests/package/test_dist.py). The table of what is built is `release.matrix`.
"""
