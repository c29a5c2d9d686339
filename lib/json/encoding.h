/*
 * The text of a JSON document in the encoding in which Python's json.loads finds it: UTF-8 with or
 * without a byte order mark, UTF-16 or UTF-32 by their mark or by where the first zero bytes lie.
 * Engines read bodies so. Pure, thread-safe.
 */
#ifndef PD_JSON_ENCODING_H
#define PD_JSON_ENCODING_H

#include "lib/base/buf.h"
#include "lib/base/span.h"

/*
 * *text is UTF-8 without a mark: a part of `doc`, or in `own`, which the caller releases in every
 * case. PD_EINVAL: units that are cut or no characters; PD_ENOMEM.
 */
int json_text_utf8(struct span doc, struct buf *own, struct span *text) PD_MUST;

#endif
