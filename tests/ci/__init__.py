"""What CI runs: every step of the Makefile that finds faults, side by side where there are CPUs.

    python3 -m tests.ci                      # all of them; .ci/run does so
    python3 -m tests.ci test-safe ktls-test  # some
    python3 -m tests.ci --lanes 1            # one after the other

``make test`` runs its parts by the same means.

It needs nothing but Python: the first step, ``build``, makes the environment that the others use.

    steps        the steps, the longest first
    lanes        runs them, some at a time, within their limits
    findings     what failed, from the output of a step, in a few lines
    summary      how it went: the last lines of the output
"""
