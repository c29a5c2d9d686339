/* What concerns the process as a whole. */
#ifndef PD_BASE_PROCESS_H
#define PD_BASE_PROCESS_H

/*
 * Gives back the resident pages of the program and its libraries that nothing has written to: symbol
 * tables, relocations, the code that ran at start. They come back from the page cache when they are
 * needed. For a process that lives long; call it once, when it is up. Thread-safe.
 */
void process_trim(void);

#endif
