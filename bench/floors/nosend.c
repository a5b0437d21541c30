/* Preloaded into a client's process: sending on one socket costs no system call.
 *
 * While a socket is marked, the functions of libc that send do nothing on it but count, and say that
 * everything was taken. So what is left of a call of send() is the library's own work, and that of
 * OpenSSL. All other descriptors, and that one before and after, are passed to the kernel.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int marked = -1;
static long calls, bytes;

/* Marks a socket, or with -1 none, and starts to count. */
void nosend_mark(int descriptor) {
  marked = descriptor;
  calls = bytes = 0;
}

long nosend_calls(void) { return calls; }
long nosend_bytes(void) { return bytes; }

static ssize_t swallow(size_t size) {
  calls++;
  bytes += (long)size;
  return (ssize_t)size;
}

static ssize_t swallow_parts(const struct iovec *parts, size_t count) {
  size_t size = 0;
  for (size_t i = 0; i < count; i++)
    size += parts[i].iov_len;
  return swallow(size);
}

ssize_t write(int descriptor, const void *data, size_t size) {
  if (descriptor == marked)
    return swallow(size);
  return syscall(SYS_write, descriptor, data, size);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
  if (descriptor == marked)
    return swallow_parts(parts, (size_t)count);
  return syscall(SYS_writev, descriptor, parts, count);
}

ssize_t sendto(int descriptor, const void *data, size_t size, int flags,
               const struct sockaddr *address, socklen_t address_size) {
  if (descriptor == marked)
    return swallow(size);
  return syscall(SYS_sendto, descriptor, data, size, flags, address, address_size);
}

ssize_t send(int descriptor, const void *data, size_t size, int flags) {
  return sendto(descriptor, data, size, flags, NULL, 0);
}

ssize_t sendmsg(int descriptor, const struct msghdr *message, int flags) {
  if (descriptor == marked)
    return swallow_parts(message->msg_iov, message->msg_iovlen);
  return syscall(SYS_sendmsg, descriptor, message, flags);
}
