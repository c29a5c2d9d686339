/* The process as a whole, and the end of its threads. */
#ifndef PD_BASE_PROCESS_H
#define PD_BASE_PROCESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* Joins a thread that has been told to end; false when it has not ended by the deadline (monotonic
 * ns). */
bool process_join(pthread_t thread, int64_t deadline);

/*
 * Gives back the resident pages of the program and its libraries that nothing has written to:
 * symbol tables, relocations, the code that ran at start. They come back from the page cache when
 * they are needed. For a process that lives long; call it once, when it is up. Thread-safe.
 */
void process_trim(void);

#endif
