/* A libssl for tests: the machine's own, which plays another.
 *
 * Every function is forwarded to the real library by a jump, except those that the other lacks
 * (they are not in names.h, and so cannot be found) and those below, in which the other behaves
 * differently. It is not linked against the real library: dlsym would find the functions there that
 * have to be missing. names.h has a line NAME(function) for each function that there is.
 *
 *   REAL_LIBSSL      the file to forward to
 *   VERSION_TEXT     what OpenSSL_version and OpenSSL_version_num say
 *   VERSION_NUMBER
 *   LEGACY_ERRORS    error codes are packed as before OpenSSL 3
 *   PLAYS_LIBRESSL   the ways of LibreSSL, see below
 */

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- Forwarding. ---------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define JUMP(name) "jmp *real_" #name "(%rip)\n"
#elif defined(__aarch64__)
#define JUMP(name) "adrp x16, real_" #name "\nldr x16, [x16, :lo12:real_" #name "]\nbr x16\n"
#else
#error "x86-64 or aarch64"
#endif

#define NAME(name)                                                                           \
    __attribute__((used)) static void *real_##name;                                          \
    __asm__(".text\n.globl " #name "\n.type " #name ",%function\n" #name ":\n" JUMP(name));
#include "names.h"
#undef NAME

static void *real_library;

static void *real(const char *name)
{
    void *found = dlsym(real_library, name);
    if (found == NULL) {
        fprintf(stderr, "%s has no %s\n", REAL_LIBSSL, name);
        abort();
    }
    return found;
}

/* A function of the real library, by its type. */
#define REAL(type, name) ((type)real(#name))

__attribute__((constructor)) static void find_all(void)
{
    real_library = dlopen(REAL_LIBSSL, RTLD_NOW | RTLD_LOCAL);
    if (real_library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        abort();
    }
#define NAME(name) real_##name = real(#name);
#include "names.h"
#undef NAME
}

/* ---- Which one it is. ----------------------------------------------------------------------- */

const char *OpenSSL_version(int what)
{
    (void)what;
    return VERSION_TEXT;
}

unsigned long OpenSSL_version_num(void)
{
    return VERSION_NUMBER;
}

/* ---- Error codes. --------------------------------------------------------------------------- */

#if LEGACY_ERRORS

#define LIBRARY_SYSTEM 2UL

static int real_is_modern(void)
{
    return REAL(unsigned long (*)(void), OpenSSL_version_num)() >= 0x30000000UL;
}

/* Library, function, reason: 8, 12 and 12 bits. */
static unsigned long pack(unsigned long code)
{
    if (code == 0 || !real_is_modern()) return code;
    if (code & 0x80000000UL) return LIBRARY_SYSTEM << 24 | 0xfffUL << 12 | (code & 0xfff);
    return (code >> 23 & 0xff) << 24 | 0xfffUL << 12 | (code & 0xfff);
}

unsigned long ERR_peek_error(void)
{
    return pack(REAL(unsigned long (*)(void), ERR_peek_error)());
}

unsigned long ERR_peek_last_error(void)
{
    return pack(REAL(unsigned long (*)(void), ERR_peek_last_error)());
}

const char *ERR_reason_error_string(unsigned long code)
{
    if (real_is_modern()) {
        if (code >> 24 == LIBRARY_SYSTEM) return NULL; /* Its text was not loaded. */
        code = (code >> 24 & 0xff) << 23 | (code & 0xfff);
    }
    return REAL(const char *(*)(unsigned long), ERR_reason_error_string)(code);
}

#endif

/* ---- LibreSSL. ------------------------------------------------------------------------------ */

#if PLAYS_LIBRESSL

#define TLS_1_3 0x304
#define ALERTS 0x4000 /* SSL_CB_ALERT */

static int is_tls_1_3(const void *ssl)
{
    return REAL(int (*)(const void *), SSL_version)(ssl) == TLS_1_3;
}

/* It is stored, and never called. */
void SSL_CTX_set_keylog_callback(void *context, void *callback)
{
    (void)context;
    (void)callback;
}

/* Alerts of TLS 1.3 are not reported. */
static void (*info_callback)(const void *, int, int);

static void pass_info(const void *ssl, int where, int value)
{
    if (where & ALERTS && is_tls_1_3(ssl)) return;
    info_callback(ssl, where, value);
}

void SSL_CTX_set_info_callback(void *context, void (*callback)(const void *, int, int))
{
    info_callback = callback;
    REAL(void (*)(void *, void *), SSL_CTX_set_info_callback)(context, pass_info);
}

/* Records are not reported, only what is in them, and no data. */
typedef void MessageCallback(int, int, int, const void *, size_t, void *, void *);

static MessageCallback *message_callback;

static void pass_message(
    int sent, int version, int type, const void *bytes, size_t size, void *ssl, void *argument)
{
    if (type < 20 || type > 22) return;
    message_callback(sent, version, type, bytes, size, ssl, argument);
}

void SSL_CTX_set_msg_callback(void *context, MessageCallback *callback)
{
    message_callback = callback;
    REAL(void (*)(void *, void *), SSL_CTX_set_msg_callback)(context, pass_message);
}

/* SSL_session_reused is a macro for this. */
long SSL_ctrl(void *ssl, int command, long number, void *pointer)
{
    if (command == 8) return REAL(int (*)(const void *), SSL_session_reused)(ssl);
    return REAL(long (*)(void *, int, long, void *), SSL_ctrl)(ssl, command, number, pointer);
}

/* Reading TLS 1.3 it may stop between two records. This one does so every other time. */
static _Thread_local int pausing;

int SSL_read(void *ssl, void *target, int size)
{
    pausing = !pausing && is_tls_1_3(ssl);
    if (pausing) return -1;
    return REAL(int (*)(void *, void *, int), SSL_read)(ssl, target, size);
}

/* A fatal alert within a handshake of TLS 1.2 leaves SSL_want as if more had to be read, and the
 * next call does read. (4.3.2 does so.) */
static _Thread_local const void *alerted;

void *SSL_new(void *context)
{
    void *ssl = REAL(void *(*)(void *), SSL_new)(context);
    if (ssl == alerted) alerted = NULL; /* Another one that was freed lay there. */
    return ssl;
}

int SSL_do_handshake(void *ssl)
{
    if (ssl == alerted) {
        char byte;
        void *bio = REAL(void *(*)(const void *), SSL_get_rbio)(ssl);
        return REAL(int (*)(void *, void *, int), BIO_read)(bio, &byte, 1);
    }
    int result = REAL(int (*)(void *), SSL_do_handshake)(ssl);
    unsigned long reason = ERR_peek_last_error() & 0xfff;
    if (result <= 0 && reason >= 1000 && !is_tls_1_3(ssl)) alerted = ssl; /* SSL_AD_REASON_OFFSET */
    return result;
}

int SSL_want(const void *ssl)
{
    if (pausing || ssl == alerted) return 2; /* SSL_READING */
    return REAL(int (*)(const void *), SSL_want)(ssl);
}

/* A client of TLS 1.3 throws tickets away. */
static int (*session_callback)(void *, void *);

static int pass_session(void *ssl, void *session)
{
    return is_tls_1_3(ssl) ? 0 : session_callback(ssl, session);
}

void SSL_CTX_sess_set_new_cb(void *context, int (*callback)(void *, void *))
{
    session_callback = callback;
    REAL(void (*)(void *, void *), SSL_CTX_sess_set_new_cb)(context, pass_session);
}

/* SSL_CERT_FILE and SSL_CERT_DIR are ignored. */
int SSL_CTX_set_default_verify_paths(void *context)
{
    const char *file = REAL(const char *(*)(void), X509_get_default_cert_file)();
    REAL(int (*)(void *, const char *, const char *), SSL_CTX_load_verify_locations)
    (context, file, NULL);
    REAL(void (*)(void), ERR_clear_error)();
    return 1;
}

#endif
