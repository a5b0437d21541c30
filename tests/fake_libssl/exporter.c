/* Plays a program with OpenSSL inside that exports a few of its functions; here they do nothing.
 * A library that is bound to them has no error queue. */

int ERR_clear_error_calls;

void ERR_clear_error(void) { ERR_clear_error_calls++; }
void ERR_new(void) {}
void ERR_set_debug(const char *file, int line, const char *function)
{
    (void)file, (void)line, (void)function;
}
void ERR_set_error(int library, int reason, const char *format, ...)
{
    (void)library, (void)reason, (void)format;
}
