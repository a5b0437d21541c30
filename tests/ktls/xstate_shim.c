/* Lets a tracer that has only the beginning of an XSAVE area set it, by LD_PRELOAD.
 *
 * Linux sets the area whole or not at all: PTRACE_SETREGSET of a part is EFAULT. User-mode-linux
 * before 6.13 has room for a part only where the host's CPU has more to keep (xstate.py has the
 * sizes), and panics. Here ptrace() takes such a part as the beginning, and gives the kernel a whole
 * area. What lies behind the part goes back to its initial state. The guest loses nothing by that:
 * AMX lies there, which a program has to ask its kernel for, and the guest's does not know it.
 *
 * Only one thread of user-mode-linux calls ptrace(), and none of its signal handlers does: so what
 * is static here needs no lock. It is static because the stack of a kernel has no room for it.
 */
#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* The standard format: what FXSAVE keeps (x87 and SSE), a header, and all else where CPUID says. */
enum { HEADER = 512, HEADER_END = 576, XSTATE_LEAF = 0xd, COMPONENTS = 63 };

static unsigned char area[64 << 10];

static long request_of_kernel(long request, long pid, void *address, void *data) {
    return syscall(SYS_ptrace, request, pid, address, data);
}

/* The size of the host's whole area, or 0 if it is not known. */
static size_t area_size(long pid) {
    static size_t known;
    struct iovec whole = {area, sizeof area};
    void *kind = (void *)NT_X86_XSTATE;
    if (known == 0 && request_of_kernel(PTRACE_GETREGSET, pid, kind, &whole) == 0 &&
        whole.iov_len < sizeof area)
        known = whole.iov_len;
    return known;
}

/* The components that end within this many bytes, by their bits in the header. CPUID is asked once:
 * in a virtual machine that takes long. */
static uint64_t components_within(size_t size) {
    static size_t size_before;
    static uint64_t within;
    if (size == size_before) return within;
    within = 3; /* x87 and SSE. */
    for (unsigned number = 2; number < COMPONENTS; number++) {
        unsigned length, offset, flags, reserved;
        __cpuid_count(XSTATE_LEAF, number, length, offset, flags, reserved);
        int of_supervisor = flags & 1; /* Has no place in this format. */
        if (length > 0 && !of_supervisor && (size_t)offset + length <= size)
            within |= (uint64_t)1 << number;
    }
    size_before = size;
    return within;
}

/* The rest of the header is left for the kernel to judge, which wants it to be 0. */
static long set_beginning(long pid, const struct iovec *part, size_t size) {
    struct iovec whole = {area, size};
    uint64_t in_use;
    memcpy(area, part->iov_base, part->iov_len);
    memcpy(&in_use, area + HEADER, sizeof in_use);
    in_use &= components_within(part->iov_len);
    memcpy(area + HEADER, &in_use, sizeof in_use);
    return request_of_kernel(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, &whole);
}

long ptrace(enum __ptrace_request request, ...) {
    va_list arguments;
    va_start(arguments, request);
    long pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);
    if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE) {
        const struct iovec *given = data;
        size_t size = area_size(pid);
        if (given->iov_len >= HEADER_END && given->iov_len < size)
            return set_beginning(pid, given, size);
    }
    if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
        /* The kernel stores the word. From a C library it is the result, and any word may be, so
         * that errno alone tells of an error. */
        long word, result = request_of_kernel(request, pid, address, &word);
        if (result < 0) return result;
        errno = 0;
        return word;
    }
    return request_of_kernel(request, pid, address, data);
}
