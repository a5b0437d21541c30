/* Preloaded into a client's process, makes sending on one socket cost no system call.
 *
 * While a socket is marked, libc's functions that send on it only count, and report that everything
 * was sent. So what is left of a call of send() is the library's own work, and that of OpenSSL. Calls
 * for all other descriptors, and for that one before and after, are passed to the kernel.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int marked = -1;
static long calls, bytes;

/* Marks a socket, or none with -1, and resets the counts. */
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
