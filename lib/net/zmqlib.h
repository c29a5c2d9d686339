/*
 * libzmq, loaded when it is first needed: loading it with the program costs every process 2.4 MB of
 * memory and its start some milliseconds, for a few that need it. The functions are libzmq's own;
 * see zmq.h. Thread-safe.
 */
#ifndef PD_NET_ZMQLIB_H
#define PD_NET_ZMQLIB_H

#include <zmq.h>

#include "lib/base/err.h"

/* X(result, name, parameters) */
#define ZMQLIB(X)                                                                                  \
	X(void *, ctx_new, (void))                                                                 \
	X(int, ctx_term, (void *))                                                                 \
	X(int, ctx_shutdown, (void *))                                                             \
	X(void *, socket, (void *, int))                                                           \
	X(int, close, (void *))                                                                    \
	X(int, setsockopt, (void *, int, const void *, size_t))                                    \
	X(int, getsockopt, (void *, int, void *, size_t *))                                        \
	X(int, bind, (void *, const char *))                                                       \
	X(int, connect, (void *, const char *))                                                    \
	X(int, send, (void *, const void *, size_t, int))                                          \
	X(int, poll, (zmq_pollitem_t *, int, long))                                                \
	X(int, msg_init, (zmq_msg_t *))                                                            \
	X(int, msg_recv, (zmq_msg_t *, void *, int))                                               \
	X(int, msg_more, (const zmq_msg_t *))                                                      \
	X(void *, msg_data, (zmq_msg_t *))                                                         \
	X(size_t, msg_size, (const zmq_msg_t *))                                                   \
	X(int, msg_close, (zmq_msg_t *))                                                           \
	X(const char *, strerror, (int))                                                           \
	X(int, msg_init_size, (zmq_msg_t *, size_t))                                               \
	X(int, socket_monitor, (void *, const char *, int))

/* z->bind_f is zmq_bind, and so on. Errors are in errno, as the C library has it. */
struct zmqlib {
#define ZMQLIB_FIELD(result, name, params) result(*name##_f) params;
	ZMQLIB(ZMQLIB_FIELD)
#undef ZMQLIB_FIELD
};

/* PD_ENOENT with a sentence that names the package. *out lives as long as the process. */
int zmqlib_load(const struct zmqlib **out, struct pd_msg *msg) PD_MUST;

#endif
