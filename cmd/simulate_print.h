/* Pieces of what `pdctl simulate` prints and writes. */
#ifndef PD_CMD_SIMULATE_PRINT_H
#define PD_CMD_SIMULATE_PRINT_H

#include <stddef.h>

/* To standard output; a word behind SIMREPORT_MARK becomes bold green. */
void simulate_print(const char *text, size_t n);

/* A file name from free text: everything but letters, digits, '.', '_' and '-' becomes '-'. */
void simulate_file_name(char *name);

#endif
