/* The only place in the library that prints and aborts: a broken contract has no caller to report
 * to. */
#include "lib/base/check.h"

#ifdef PD_CHECKS
#include <stdio.h>
#include <stdlib.h>

void pd_check_failed(const char *file, int line, const char *function, const char *condition)
{
	(void)fprintf(stderr, "%s:%d: %s: check failed: %s\n", file, line, function, condition);
	abort();
}
#endif
