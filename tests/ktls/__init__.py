"""The tests of TLS in the kernel (kTLS), and a rig that brings kernels which have it.

    python -m tests.ktls test                            # what `make ktls-test` runs
    python -m tests.ktls run --suite trixie --openssl 3.5 -- python -m pytest tests/ktls -k smoke

The kernel of a machine that builds and tests seldom has the module ``tls``, and to load it takes
root. So the rig boots kernels of its own: Debian's user-mode-linux, where Linux is an ordinary
process, and programs in it run on the CPU as they are. Its root is the host's, read only under a
layer in memory. So the Python, the extension and the tests in it are those of the checkout.

    kernel       one suite's kernel, with the modules that kTLS takes
    openssl      the host's Python, with the OpenSSL of another suite
    host         how many kernels run at a time, and where their memory lies
    xstate       what older kernels need on CPUs whose registers they have no room for (Intel's AMX)
    machine      boots a kernel, runs one command in it, and tells how that went
    console      why a kernel ended that should not have
    matrix       every kernel with every OpenSSL
    outcome      what is booted, what came of it, and the table at the end

There is one CPU, no AES instruction is used by the kernel, and its clock ticks a hundred times a
second: nothing can be said about performance there.
"""
