/* Tests of the server run in both of its forms. */
#ifndef PD_TESTS_FORMS_H
#define PD_TESTS_FORMS_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "lib/http/server.h"

static enum http_io io_form; /* of the test that runs */

static inline int use_events(void **state)
{
	(void)state;
	io_form = HTTP_IO_EVENTS;
	return 0;
}

static inline int use_threads(void **state)
{
	(void)state;
	io_form = HTTP_IO_THREADS;
	return 0;
}

#define ON_EVENTS(test)                                                                            \
	{                                                                                          \
		"events: " #test, test, use_events, NULL, NULL                                     \
	}
#define ON_THREADS(test)                                                                           \
	{                                                                                          \
		"threads: " #test, test, use_threads, NULL, NULL                                   \
	}
#define IN_BOTH_FORMS(test) ON_EVENTS(test), ON_THREADS(test)

#endif
