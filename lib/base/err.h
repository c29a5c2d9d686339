/*
 * Errors: one negative enum for the whole library, and an optional text for the person who reads
 * it.
 *
 * A fallible function returns 0 or a negative enum pd_err and is marked PD_MUST: the caller must
 * look. Where a person can do something about the failure the function also takes a `struct pd_msg
 * *` (which may be NULL) and fills in a sentence: lower case, no full stop, the failure first, the
 * subject quoted, what was found and what was expected. The library never prints and never exits;
 * cmd/ does.
 */
#ifndef PD_BASE_ERR_H
#define PD_BASE_ERR_H

#include <stddef.h>

#define PD_MUST		__attribute__((warn_unused_result))
#define PD_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define PD_MSG_MAX	512

enum pd_err {
	PD_OK = 0,
	PD_EAGAIN = -1,	   /* more input is needed, or try again later */
	PD_EINVAL = -2,	   /* the caller's input is wrong */
	PD_ENOMEM = -3,	   /* out of memory */
	PD_ETIMEOUT = -4,  /* a deadline passed */
	PD_ECLOSED = -5,   /* the peer closed or reset the connection */
	PD_ETOOBIG = -6,   /* a configured maximum would be crossed */
	PD_EPROTO = -7,	   /* the peer broke the protocol */
	PD_EIO = -8,	   /* a system call failed; errno is kept */
	PD_ENOENT = -9,	   /* not there */
	PD_EEXIST = -10,   /* there already */
	PD_EBUSY = -11,	   /* a limit on simultaneous use is reached */
	PD_ECANCELED = -12 /* the operation was cancelled */
};

struct pd_msg {
	char text[PD_MSG_MAX]; /* always terminated; empty when nothing was said */
};

/* Short constant name of an error ("timed out"). Never NULL. */
const char *pd_err_text(int err);

/* Formats the text (cut at PD_MSG_MAX) and returns `err`, so `return pd_fail(msg, PD_EINVAL, ...)`.
 * msg may be NULL. */
int pd_fail(struct pd_msg *msg, int err, const char *fmt, ...) PD_PRINTF(3, 4);
/* The same; the comma shows compilers and analysers, which see one file at a time, that `err` is
 * what comes back. */
#define pd_fail(msg, err, ...) ((void)(pd_fail)(msg, err, __VA_ARGS__), (err))

/* Text of an errno value, thread-safe; `buf` is used when the system has to build it. */
const char *pd_errno_text(int errnum, char *buf, size_t cap);

#endif
