/* Switches callgrind on in a client's process under valgrind, and makes it write what it has
 * counted. A client request is an instruction sequence without effect that valgrind knows; see
 * valgrind.h, "The core of all this". Outside of valgrind nothing happens. */
#include <stdint.h>

enum { BASE = 'C' << 24 | 'T' << 16, DUMP = BASE, START = BASE + 4, STOP = BASE + 5 };

static void request(uint64_t number) {
  volatile uint64_t arguments[6] = {number};
#if defined(__x86_64__)
  uint64_t result = 0;
  __asm__ volatile("rolq $3, %%rdi; rolq $13, %%rdi; rolq $61, %%rdi; rolq $51, %%rdi;"
                   "xchgq %%rbx, %%rbx"
                   : "=d"(result)
                   : "a"(&arguments[0]), "0"(result)
                   : "cc", "memory");
#elif defined(__aarch64__)
  __asm__ volatile("mov x3, #0; mov x4, %0;"
                   "ror x12, x12, #3; ror x12, x12, #13; ror x12, x12, #51; ror x12, x12, #61;"
                   "orr x10, x10, x10"
                   :
                   : "r"(&arguments[0])
                   : "cc", "memory", "x3", "x4");
#endif
}

void callgrind_start(void) { request(START); }
void callgrind_stop(void) { request(STOP); }
void callgrind_dump(void) { request(DUMP); }
