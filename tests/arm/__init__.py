"""The tests of core and extension on Arm, run by qemu-user on any Debian machine.

    make arm-test                                       # all that is chosen below
    python -m tests.arm python -m pytest tests/test_send.py    # something else, in the same place
    python -m tests.arm --page-size 65536 build/arm/core/core-test

Zig compiles for Arm by itself. Python, OpenSSL and libc are Debian's own for arm64, unpacked into
build/arm/root: nothing is installed, and nothing of the machine is changed. qemu-user translates
the instructions of one process and gives its system calls to the kernel of this machine.

What this shows: that the code for Arm computes the right thing, with NEON; that no access is
misaligned where Zig promised alignment (the safe build checks); that structures shared with the
kernel are as Arm has them; that OpenSSL's code for Arm and ours agree.

What it does not show: the weak memory order of Arm, because the code runs with the order of this
machine; faults of alignment that only a CPU raises; speed of any kind; and what qemu does not hand
on to the kernel: receive stamps (SO_TIMESTAMPNS), MAP_POPULATE.
"""
