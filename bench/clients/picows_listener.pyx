# cython: language_level=3
"""The compiled listener of picows: it counts, parses, checks and stamps without Python's bytecode."""

from libc.time cimport timespec

from picows.picows cimport WSFrame, WSListener, WSTransport

cdef extern from "time.h" nogil:
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *time)


cdef class CountingListener(WSListener):
    cdef readonly Py_ssize_t count

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        self.count += 1


cdef class ParsingListener(WSListener):
    cdef readonly Py_ssize_t count
    cdef object loads

    def __init__(self, loads):
        self.loads = loads

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        self.loads(frame.get_payload_as_bytes())
        self.count += 1


cdef class CheckingListener(WSListener):
    cdef object checksum

    def __init__(self, checksum):
        self.checksum = checksum

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        self.checksum.add(frame.get_payload_as_bytes())


cdef class StampingListener(WSListener):
    cdef list stamps
    cdef Py_ssize_t total
    cdef object stop
    cdef readonly bytes last

    def __init__(self, list stamps, Py_ssize_t total, stop):
        self.stamps = stamps
        self.total = total
        self.stop = stop

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        cdef timespec now
        clock_gettime(CLOCK_MONOTONIC, &now)
        self.stamps.append(<long long>now.tv_sec * 1000000000 + now.tv_nsec)
        if len(self.stamps) == self.total:
            self.last = frame.get_payload_as_bytes()
            self.stop()


cdef class WakingListener(WSListener):
    cdef readonly Py_ssize_t left
    cdef object stop

    def __init__(self, stop):
        self.stop = stop

    def expect(self, Py_ssize_t messages):
        self.left = messages

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        self.left -= 1
        if self.left == 0:
            self.stop()
