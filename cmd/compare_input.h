/* Which runs stand behind the words of a command line: files, patterns, references to the store. */
#ifndef PD_CMD_COMPARE_INPUT_H
#define PD_CMD_COMPARE_INPUT_H

#include "lib/results/document.h"

/*
 * Appends the runs of one word: "@..." from the store (store_query.h), else a file ("-" is standard
 * input), else the files of a shell pattern in order of their names. PD_EINVAL with a message, also
 * when nothing is found or a document has no metric. `store` may be NULL: then references are
 * refused.
 */
int compare_input(struct result_set *set, const char *word, const char *store,
		  struct pd_msg *msg) PD_MUST;

#endif
