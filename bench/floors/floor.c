/* The floors: what a message costs in C, with the system calls and OpenSSL and nothing else.
 *
 *   floor READER PORT PATH CA_FILE LIBSSL drain MESSAGES BURSTS BURST_SIZE
 *   floor READER PORT PATH CA_FILE LIBSSL inflate MESSAGES BURSTS BURST_SIZE LIBZ
 *   floor READER PORT PATH CA_FILE LIBSSL stamp MESSAGES BURSTS QUEUED_SIZE
 *
 * READER is read, ssl_read or ssl_read_ahead. `drain` waits until BURST_SIZE bytes lie in the socket
 * and times how long it takes to read and parse them. `inflate` does so with permessage-deflate,
 * and then times how long it takes to inflate the payloads again, alone. `stamp` takes the time
 * of each message; after MESSAGES of them comes one more with the sender's times. If QUEUED_SIZE is
 * not 0, it does so again with that many bytes waiting in the socket, and the time of the read
 * instead. The output is the JSON that the client halves of the benchmarks return.
 *
 * OpenSSL and zlib are looked up at run time in the libraries that Python uses, so that all compare
 * the same ones, and no headers are needed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_SIZE = 256 * 1024, KERNEL_BUFFER_SIZE = 32 << 20, BURSTS_MIN = 3 };
#define TIME_MAX_NS 400000000

/* The few functions of OpenSSL that are used. */
static struct {
  void *(*TLS_client_method)(void);
  void *(*SSL_CTX_new)(void *);
  int (*SSL_CTX_load_verify_locations)(void *, const char *, const char *);
  void (*SSL_CTX_set_verify)(void *, int, void *);
  long (*SSL_CTX_ctrl)(void *, int, long, void *);
  void *(*SSL_new)(void *);
  void *(*SSL_get0_param)(void *);
  int (*X509_VERIFY_PARAM_set1_ip_asc)(void *, const char *);
  int (*SSL_set_fd)(void *, int);
  int (*SSL_connect)(void *);
  int (*SSL_read)(void *, void *, int);
  int (*SSL_write)(void *, const void *, int);
} openssl;
enum { SSL_VERIFY_PEER = 1, SSL_CTRL_SET_READ_AHEAD = 41 };

/* z_stream. */
static struct {
  const uint8_t *next_in;
  unsigned avail_in;
  unsigned long total_in;
  uint8_t *next_out;
  unsigned avail_out;
  unsigned long total_out;
  const char *msg;
  void *state, *zalloc, *zfree, *opaque;
  int data_type;
  unsigned long adler, reserved;
} inflater;
static struct {
  const char *(*zlibVersion)(void);
  int (*inflateInit2_)(void *, int, const char *, int);
  int (*inflate)(void *, int);
} zlib;
enum { Z_SYNC_FLUSH = 2, WINDOW_BITS = 15 };

static int descriptor;
static void *tls; /* NULL on a plain connection. */
/* What ends a compressed message and is not sent. */
static const uint8_t empty_block[] = {0x00, 0x00, 0xff, 0xff};
static uint8_t buffer[READ_SIZE + sizeof empty_block];
static size_t buffered;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void *load(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
  if (library == NULL)
    fail(dlerror());
  return library;
}

static void load_openssl(const char *path) {
  void *library = load(path);
#define LOOK_UP(name)                                                                              \
  if ((*(void **)&openssl.name = dlsym(library, #name)) == NULL)                                   \
  fail(#name)
  LOOK_UP(TLS_client_method);
  LOOK_UP(SSL_CTX_new);
  LOOK_UP(SSL_CTX_load_verify_locations);
  LOOK_UP(SSL_CTX_set_verify);
  LOOK_UP(SSL_CTX_ctrl);
  LOOK_UP(SSL_new);
  LOOK_UP(SSL_get0_param);
  LOOK_UP(X509_VERIFY_PARAM_set1_ip_asc);
  LOOK_UP(SSL_set_fd);
  LOOK_UP(SSL_connect);
  LOOK_UP(SSL_read);
  LOOK_UP(SSL_write);
#undef LOOK_UP
}

static void load_zlib(const char *path) {
  void *library = load(path);
  *(void **)&zlib.zlibVersion = dlsym(library, "zlibVersion");
  *(void **)&zlib.inflateInit2_ = dlsym(library, "inflateInit2_");
  *(void **)&zlib.inflate = dlsym(library, "inflate");
  if (zlib.zlibVersion == NULL || zlib.inflateInit2_ == NULL || zlib.inflate == NULL)
    fail("zlib");
  /* Negative: no header and no checksum. */
  if (zlib.inflateInit2_(&inflater, -WINDOW_BITS, zlib.zlibVersion(), sizeof inflater) != 0)
    fail("inflateInit2_");
}

static int64_t now_ns(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static void connect_tcp(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  descriptor = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(descriptor, (struct sockaddr *)&address, sizeof address) != 0)
    fail("connect");
  const int one = 1, size = KERNEL_BUFFER_SIZE;
  setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) != 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
}

static void connect_tls(const char *libssl, const char *ca_file, bool read_ahead) {
  load_openssl(libssl);
  void *context = openssl.SSL_CTX_new(openssl.TLS_client_method());
  if (openssl.SSL_CTX_load_verify_locations(context, ca_file, NULL) != 1)
    fail("SSL_CTX_load_verify_locations");
  openssl.SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
  if (read_ahead)
    openssl.SSL_CTX_ctrl(context, SSL_CTRL_SET_READ_AHEAD, 1, NULL);
  tls = openssl.SSL_new(context);
  openssl.X509_VERIFY_PARAM_set1_ip_asc(openssl.SSL_get0_param(tls), "127.0.0.1");
  openssl.SSL_set_fd(tls, descriptor);
  if (openssl.SSL_connect(tls) != 1)
    fail("SSL_connect");
}

static void send_all(const void *data, size_t size) {
  const ssize_t sent =
      tls ? openssl.SSL_write(tls, data, (int)size) : write(descriptor, data, size);
  if (sent != (ssize_t)size)
    fail("send");
}

static void receive(void) {
  const size_t room = READ_SIZE - buffered;
  const ssize_t size = tls ? openssl.SSL_read(tls, buffer + buffered, (int)room)
                           : read(descriptor, buffer + buffered, room);
  if (size <= 0)
    fail("receive");
  buffered += (size_t)size;
}

static void upgrade(const char *path) {
  char request[1024];
  const int size = snprintf(request, sizeof request,
                            "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n",
                            path,
                            zlib.inflate ? "Sec-WebSocket-Extensions: permessage-deflate\r\n" : "");
  send_all(request, (size_t)size);
  while (buffered < 4 || memcmp(buffer + buffered - 4, "\r\n\r\n", 4) != 0)
    receive();
  if (memcmp(buffer, "HTTP/1.1 101", 12) != 0)
    fail("upgrade");
  buffered = 0; /* The server sends nothing before it is asked. */
}

/* Sends a short text message, masked with zeros. */
static void ask(const char *text) {
  uint8_t frame[32] = {0x81, 0x80 | (uint8_t)strlen(text)};
  memcpy(frame + 6, text, strlen(text));
  send_all(frame, 6 + strlen(text));
}

/* Reads until `goal` messages were parsed, and calls `on_message` for each. */
static void read_messages(size_t goal, void (*on_message)(const uint8_t *, size_t)) {
  size_t count = 0;
  while (count < goal) {
    receive();
    size_t offset = 0;
    while (buffered - offset >= 2) {
      const uint8_t *frame = buffer + offset;
      size_t header_size = 2, size = frame[1];
      if (size == 126) {
        if (buffered - offset < 4)
          break;
        header_size = 4;
        size = (size_t)frame[2] << 8 | frame[3];
      } else if (size == 127) {
        if (buffered - offset < 10)
          break;
        header_size = 10;
        size = 0;
        for (int i = 2; i < 10; i++)
          size = size << 8 | frame[i];
      }
      if (buffered - offset < header_size + size)
        break;
      on_message(frame + header_size, size);
      count++;
      offset += header_size + size;
    }
    buffered -= offset;
    memmove(buffer, buffer + offset, buffered);
  }
}

static struct {
  uint64_t messages, size;
  uint32_t crc;
} checksum;

static void on_message_check(const uint8_t *payload, size_t size) {
  uint32_t crc = ~checksum.crc;
  for (size_t i = 0; i < size; i++) {
    crc ^= payload[i];
    for (int bit = 0; bit < 8; bit++)
      crc = crc >> 1 ^ (UINT32_C(0xEDB88320) & -(crc & 1));
  }
  checksum.crc = ~crc;
  checksum.messages++;
  checksum.size += size;
}

static volatile uint64_t message_count;
static void on_message_count(const uint8_t *payload, size_t size) {
  (void)payload;
  (void)size;
  message_count++;
}

/* Returns the size of the message. The payload lies in `buffer` or `kept`, which have room behind
 * it for the empty block; what was there is put back. */
static size_t inflate_payload(uint8_t *payload, size_t size, uint8_t *message, size_t room) {
  uint8_t behind[sizeof empty_block];
  memcpy(behind, payload + size, sizeof behind);
  memcpy(payload + size, empty_block, sizeof empty_block);
  inflater.next_in = payload;
  inflater.avail_in = (unsigned)(size + sizeof empty_block);
  inflater.next_out = message;
  inflater.avail_out = (unsigned)room;
  if (zlib.inflate(&inflater, Z_SYNC_FLUSH) != 0 || inflater.avail_in || !inflater.avail_out)
    fail("inflate");
  memcpy(payload + size, behind, sizeof behind);
  return room - inflater.avail_out;
}

static uint8_t inflated[READ_SIZE];

static void on_payload_check(const uint8_t *payload, size_t size) {
  size = inflate_payload((uint8_t *)payload, size, inflated, sizeof inflated);
  on_message_check(inflated, size);
}

static void on_payload_count(const uint8_t *payload, size_t size) {
  size = inflate_payload((uint8_t *)payload, size, inflated, sizeof inflated);
  on_message_count(inflated, size);
}

/* The payloads of a burst: where each ends, with room for an empty block behind the last one. */
static uint8_t *kept;
static size_t *kept_ends, kept_count;

static void on_payload_keep(const uint8_t *payload, size_t size) {
  const size_t start = kept_count ? kept_ends[kept_count - 1] : 0;
  memcpy(kept + start, payload, size);
  kept_ends[kept_count++] = start + size;
  on_payload_count(payload, size);
}

/* Tells the server that nobody reads, then waits until this many bytes are there. */
static void wait_until_queued(int size) {
  if (send(descriptor, "!", 1, MSG_OOB) != 1)
    fail("send");
  const struct timespec pause = {.tv_nsec = 500000};
  for (int queued = 0; queued < size; ioctl(descriptor, FIONREAD, &queued))
    nanosleep(&pause, NULL);
}

static void print_list(const char *name, const double *values, int count) {
  printf("\"%s\": [", name);
  for (int i = 0; i < count; i++)
    printf("%s%.1f", i ? ", " : "", values[i]);
  printf("]");
}

/* Inflates the payloads of the burst that was kept. */
static double inflate_kept(void) {
  const int64_t cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID);
  size_t start = 0;
  for (size_t i = 0; i < kept_count; i++) {
    on_payload_count(kept + start, kept_ends[i] - start);
    start = kept_ends[i];
  }
  return (double)(now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns) / (double)kept_count;
}

static void drain(size_t messages, int bursts, int burst_size) {
  const bool compressed = zlib.inflate != NULL;
  if (compressed) {
    kept = malloc((size_t)burst_size + sizeof empty_block);
    kept_ends = calloc(messages, sizeof *kept_ends);
  }
  double *cpu = calloc((size_t)bursts, sizeof *cpu), *wall = calloc((size_t)bursts, sizeof *wall),
         *alone = calloc((size_t)bursts, sizeof *alone);
  const int64_t started = now_ns(CLOCK_MONOTONIC);
  int done = 0;
  for (int burst = -2; burst < bursts; burst++) { /* The checked one, and one to warm up. */
    if (burst >= BURSTS_MIN && now_ns(CLOCK_MONOTONIC) - started > TIME_MAX_NS)
      break;
    ask(burst == -2 ? "check" : "go");
    wait_until_queued(burst_size);
    const int64_t wall_ns = now_ns(CLOCK_MONOTONIC), cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    if (burst == -2)
      read_messages(messages, compressed ? on_payload_check : on_message_check);
    else if (burst == -1)
      read_messages(messages, compressed ? on_payload_keep : on_message_count);
    else
      read_messages(messages, compressed ? on_payload_count : on_message_count);
    if (burst < 0)
      continue;
    cpu[done] = (double)(now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns) / (double)messages;
    wall[done] = (double)(now_ns(CLOCK_MONOTONIC) - wall_ns) / (double)messages;
    alone[done++] = compressed ? inflate_kept() : 0;
  }
  printf("{\"checksum\": [%lu, %lu, %u], \"size\": %d, ", checksum.messages, checksum.size,
         checksum.crc, burst_size);
  if (compressed) {
    printf("\"inflate\": {");
    print_list("cpu_ns", alone, done);
    printf("}, ");
  }
  printf("\"count\": {");
  print_list("cpu_ns", cpu, done);
  printf(", ");
  print_list("wall_ns", wall, done);
  printf("}}\n");
}

static int64_t *stamps;
static size_t stamp_count, stamp_total;
static char last[READ_SIZE]; /* The message with the sender's times. */
static size_t last_size;

static void on_message_stamp(const uint8_t *payload, size_t size) {
  stamps[stamp_count++] = now_ns(CLOCK_MONOTONIC);
  if (stamp_count == stamp_total) {
    last_size = size < sizeof last ? size : sizeof last;
    memcpy(last, payload, last_size);
  }
}

static void print_stamps(size_t messages) {
  printf("\"stamps\": [");
  for (size_t i = 0; i < messages; i++)
    printf("%s%ld", i ? ", " : "", stamps[i]);
  printf("]}");
}

/* One burst that is all there before the first read. */
static void stamp_queued(size_t messages, int queued_size) {
  stamp_count = 0;
  ask("queue");
  wait_until_queued(queued_size);
  const int64_t started = now_ns(CLOCK_MONOTONIC);
  read_messages(stamp_total, on_message_stamp);
  printf("{\"sent\": [%ld], ", started);
  print_stamps(messages);
}

static void stamp(size_t messages, int bursts, int queued_size) {
  stamps = calloc(messages + 1, sizeof *stamps);
  stamp_total = messages + 1;
  ask("check");
  read_messages(messages, on_message_check);
  printf("{\"checksum\": [%lu, %lu, %u], \"bursts\": [", checksum.messages, checksum.size,
         checksum.crc);
  for (int burst = 0; burst < bursts; burst++) {
    stamp_count = 0;
    if (burst > 0)
      printf(", ");
    const int64_t cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    ask("go");
    read_messages(stamp_total, on_message_stamp);
    printf("{\"sent\": %.*s, \"cpu_ns\": %ld, ", (int)last_size, last,
           now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns);
    print_stamps(messages);
  }
  printf("], \"queued\": [");
  for (int burst = 0; queued_size > 0 && burst < bursts; burst++) {
    printf("%s", burst ? ", " : "");
    stamp_queued(messages, queued_size);
  }
  printf("]}\n");
}

int main(int count, char **arguments) {
  if (count < 10)
    return 2;
  const char *reader = arguments[1], *task = arguments[6];
  const bool inflates = strcmp(task, "inflate") == 0;
  if (count != (inflates ? 11 : 10))
    return 2;
  if (inflates)
    load_zlib(arguments[10]);
  connect_tcp(atoi(arguments[2]));
  if (strcmp(reader, "read") != 0)
    connect_tls(arguments[5], arguments[4], strcmp(reader, "ssl_read_ahead") == 0);
  upgrade(arguments[3]);
  if (inflates || strcmp(task, "drain") == 0)
    drain((size_t)atol(arguments[7]), atoi(arguments[8]), atoi(arguments[9]));
  else
    stamp((size_t)atol(arguments[7]), atoi(arguments[8]), atoi(arguments[9]));
  return 0;
}
