/* Makes system calls fail as a test wants it, between hftws and libc, by LD_PRELOAD. Linux only.
 *
 * shim_force: the calls of a name fail with an errno. shim_force_option: those that set one socket
 * option. shim_disturb: calls are interrupted, would
 * block, or do less than they could, at random by a seed: a correct program is not affected.
 * A disturbed call really does what a kernel would do: an interrupted connect goes on, an
 * interrupted read has read nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

enum call { SOCKET, BIND, CONNECT, SETSOCKOPT, RECV, RECVMSG, SEND, EPOLL_CREATE1, EPOLL_CTL, EPOLL_WAIT,
            EPOLL_PWAIT2, MMAP, CALLS };

static const char *const names[CALLS] = {
    "socket", "bind", "connect", "setsockopt", "recv", "recvmsg", "send", "epoll_create1", "epoll_ctl",
    "epoll_wait", "epoll_pwait2", "mmap",
};

static struct { int number; int left; } forced[CALLS];
static struct { int number; int level; int name; } forced_option;
static unsigned disturbed_per_mille;
static uint64_t state;
static unsigned counts[CALLS];

static void *real(enum call call) {
    static void *found[CALLS];
    if (!found[call]) found[call] = dlsym(RTLD_NEXT, names[call]);
    return found[call];
}

/* splitmix64 */
static uint64_t draw(void) {
    uint64_t value = state += 0x9e3779b97f4a7c15u;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

static int fails(enum call call) {
    if (forced[call].left == 0) return 0;
    forced[call].left--;
    counts[call]++;
    errno = forced[call].number;
    return 1;
}

static int disturbs(enum call call) {
    if (disturbed_per_mille == 0 || draw() % 1000 >= disturbed_per_mille) return 0;
    counts[call]++;
    return 1;
}

/* Returns -1 with an errno, or how much of `size` the call may do. */
static ssize_t less(enum call call, size_t size) {
    if (fails(call)) return -1;
    if (!disturbs(call)) return (ssize_t)size;
    switch (draw() % 3) {
    case 0: errno = EINTR; return -1;
    case 1: errno = EAGAIN; return -1;
    default: return (ssize_t)(1 + draw() % size);
    }
}

/* For the tests. */

void shim_force(const char *name, int number, int times) {
    for (int call = 0; call < CALLS; call++) {
        if (strcmp(names[call], name)) continue;
        forced[call].number = number;
        forced[call].left = times;
    }
}

void shim_force_option(int level, int name, int number) {
    forced_option.number = number;
    forced_option.level = level;
    forced_option.name = name;
}

void shim_disturb(uint64_t seed, unsigned per_mille) {
    state = seed;
    disturbed_per_mille = per_mille;
}

void shim_clear(void) {
    memset(forced, 0, sizeof forced);
    memset(&forced_option, 0, sizeof forced_option);
    disturbed_per_mille = 0;
}

unsigned shim_count(const char *name) {
    for (int call = 0; call < CALLS; call++)
        if (!strcmp(names[call], name)) return counts[call];
    return 0;
}

/* In place of libc's. */

int socket(int domain, int type, int protocol) {
    if (fails(SOCKET)) return -1;
    return ((int (*)(int, int, int))real(SOCKET))(domain, type, protocol);
}

int bind(int descriptor, const struct sockaddr *address, socklen_t size) {
    if (fails(BIND)) return -1;
    return ((int (*)(int, const struct sockaddr *, socklen_t))real(BIND))(descriptor, address, size);
}

int connect(int descriptor, const struct sockaddr *address, socklen_t size) {
    if (fails(CONNECT)) return -1;
    int (*next)(int, const struct sockaddr *, socklen_t) = real(CONNECT);
    int status = next(descriptor, address, size);
    if (status < 0 && errno == EINPROGRESS && disturbs(CONNECT)) errno = EINTR;
    return status;
}

int setsockopt(int descriptor, int level, int name, const void *value, socklen_t size) {
    if (fails(SETSOCKOPT)) return -1;
    if (forced_option.number && forced_option.level == level && forced_option.name == name) {
        errno = forced_option.number;
        return -1;
    }
    int (*next)(int, int, int, const void *, socklen_t) = real(SETSOCKOPT);
    return next(descriptor, level, name, value, size);
}

ssize_t recv(int descriptor, void *buffer, size_t size, int flags) {
    ssize_t allowed = less(RECV, size);
    if (allowed < 0) return -1;
    return ((ssize_t (*)(int, void *, size_t, int))real(RECV))(descriptor, buffer, allowed, flags);
}

ssize_t recvmsg(int descriptor, struct msghdr *message, int flags) {
    size_t size = message->msg_iovlen == 1 ? message->msg_iov->iov_len : 1;
    ssize_t allowed = less(RECVMSG, size);
    if (allowed < 0) return -1;
    if (message->msg_iovlen == 1) message->msg_iov->iov_len = allowed;
    ssize_t result = ((ssize_t (*)(int, struct msghdr *, int))real(RECVMSG))(descriptor, message, flags);
    if (message->msg_iovlen == 1) message->msg_iov->iov_len = size;
    return result;
}

ssize_t send(int descriptor, const void *buffer, size_t size, int flags) {
    ssize_t allowed = less(SEND, size);
    if (allowed < 0) return -1;
    ssize_t (*next)(int, const void *, size_t, int) = real(SEND);
    return next(descriptor, buffer, allowed, flags);
}

int epoll_create1(int flags) {
    if (fails(EPOLL_CREATE1)) return -1;
    return ((int (*)(int))real(EPOLL_CREATE1))(flags);
}

int epoll_ctl(int epoll, int operation, int descriptor, struct epoll_event *event) {
    if (operation != EPOLL_CTL_DEL && fails(EPOLL_CTL)) return -1;
    int (*next)(int, int, int, struct epoll_event *) = real(EPOLL_CTL);
    return next(epoll, operation, descriptor, event);
}

static int interrupted(enum call call) {
    if (fails(call)) return 1;
    if (!disturbs(call)) return 0;
    errno = EINTR;
    return 1;
}

int epoll_wait(int epoll, struct epoll_event *events, int count, int timeout) {
    if (interrupted(EPOLL_WAIT)) return -1;
    int (*next)(int, struct epoll_event *, int, int) = real(EPOLL_WAIT);
    return next(epoll, events, count, timeout);
}

int epoll_pwait2(int epoll, struct epoll_event *events, int count, const struct timespec *timeout,
                 const sigset_t *signals) {
    if (interrupted(EPOLL_PWAIT2)) return -1;
    int (*next)(int, struct epoll_event *, int, const struct timespec *, const sigset_t *) =
        real(EPOLL_PWAIT2);
    if (next) return next(epoll, events, count, timeout, signals);
    errno = ENOSYS; /* A libc that does not have it. */
    return -1;
}

/* Only what a ring is made of: libc and Python map other things for themselves. */
void *mmap(void *address, size_t size, int protection, int flags, int descriptor, off_t offset) {
    int of_a_ring = descriptor >= 0 && (flags & MAP_FIXED) && (flags & MAP_SHARED);
    if (of_a_ring && fails(MMAP)) return MAP_FAILED;
    void *(*next)(void *, size_t, int, int, int, off_t) = real(MMAP);
    return next(address, size, protection, flags, descriptor, offset);
}
