/* Stands in for libc's getaddrinfo, by LD_PRELOAD: every name is 127.0.0.1, and the answer comes
 * when the test lets it come. Without threads, if the test wants that.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int asked, allowed, answered;

/* Waits until so many look-ups have begun. */
void held_await(int count) {
    pthread_mutex_lock(&lock);
    while (asked < count) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

/* Lets so many of them have their answer. */
void held_allow(int count) {
    pthread_mutex_lock(&lock);
    allowed += count;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static int no_threads;

/* Lets no thread be made, or makes them again. */
void held_no_threads(int none) { no_threads = none; }

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                   void *argument) {
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (no_threads) return EAGAIN;
    real = dlsym(RTLD_NEXT, "pthread_create");
    return real(thread, attributes, run, argument);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **result) {
    static struct addrinfo entry;
    static struct sockaddr_in place;
    pthread_mutex_lock(&lock);
    asked++;
    pthread_cond_broadcast(&changed);
    while (answered == allowed) pthread_cond_wait(&changed, &lock);
    answered++;
    place.sin_family = AF_INET;
    inet_pton(AF_INET, "127.0.0.1", &place.sin_addr);
    entry.ai_family = AF_INET;
    entry.ai_socktype = SOCK_STREAM;
    entry.ai_protocol = IPPROTO_TCP;
    entry.ai_addr = (struct sockaddr *)&place;
    entry.ai_addrlen = sizeof place;
    *result = &entry;
    pthread_mutex_unlock(&lock);
    return 0;
}

void freeaddrinfo(struct addrinfo *first) {}
