/*
 * libmsgpack reserves memory for as many elements as a map or array says that it has: five bytes of
 * a peer can ask for 128 GiB. This look at the headers comes first. Pure, thread-safe. Format:
 * github.com/msgpack/msgpack/blob/master/spec.md.
 */
#ifndef PD_BASE_MSGPACKCHECK_H
#define PD_BASE_MSGPACKCHECK_H

#include <stdbool.h>

#include "lib/base/span.h"

/* Is the text one whole object (further bytes may follow) whose maps and arrays have no more
 * elements than the text has bytes? */
bool msgpack_is_bounded(struct span text);

#endif
