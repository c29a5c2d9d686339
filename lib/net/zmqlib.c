#include "lib/net/zmqlib.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct zmqlib lib;
static char why[200]; /* empty: loaded */

static void load(void)
{
	/* Never closed: its threads may outlive the last user. */
	void *handle = dlopen("libzmq.so.5", RTLD_NOW | RTLD_LOCAL);
	const char *text = handle ? NULL : dlerror();

#define ZMQLIB_LOOK(result, name, params)                                                          \
	if (handle && !text) {                                                                     \
		void *f = dlsym(handle, "zmq_" #name);                                             \
		memcpy(&lib.name##_f, &f, sizeof(f));                                              \
		text = f ? NULL : "zmq_" #name " is not in libzmq.so.5";                           \
	}
	ZMQLIB(ZMQLIB_LOOK)
#undef ZMQLIB_LOOK
	if (text)
		(void)snprintf(why, sizeof(why), "%s", text);
}

int zmqlib_load(const struct zmqlib **out, struct pd_msg *msg)
{
	(void)pthread_once(&once, load);
	*out = &lib;
	return why[0] ? pd_fail(msg, PD_ENOENT, "ZeroMQ is needed: %s (Debian: libzmq5)", why)
		      : PD_OK;
}
