/*
 * Session keys: which text says "these requests belong together".
 *
 * The default order is the most specific first. Session level: headers X-Session-Id,
 * X-Claude-Code-Session-Id (with X-Claude-Code-Agent-Id), Session-Id; body
 * session_params.session_id, session_id, prompt_cache_key, conversation (a string, or its id),
 * vllm_xargs.agentic_context (program_id, session_id). User level: X-User-Id, body user, user_id.
 * Ids that are new for every call and whole tenants never count unless the specification asks. Body
 * fields are found by a real JSON scan; null and empty values do not count; numbers count by their
 * text. Pure functions, thread-safe.
 */
#ifndef PD_ROUTE_KEY_H
#define PD_ROUTE_KEY_H

#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/span.h"
#include "lib/json/scan.h"

#define ROUTE_KEY_MAX                                                                              \
	512 /* bytes kept of a key; longer values are replaced by a hash of the whole value */
#define ROUTE_SOURCES_MAX 32

enum route_key_level { ROUTE_KEY_NONE, ROUTE_KEY_PREFIX, ROUTE_KEY_USER, ROUTE_KEY_SESSION };

struct route_key {
	enum route_key_level level;
	size_t len;
	char text[ROUTE_KEY_MAX + 1]; /* what is hashed. Default form: the raw value, so the same id
					 in a header or in the body is the same session */
	char source[80]; /* "header:x-session-id", "body:session_params.session_id", "prefix", "" */
};

enum route_key_compat { ROUTE_COMPAT_NONE, ROUTE_COMPAT_VLLM_ROUTER };

struct route_source {
	bool header;   /* else body */
	char name[72]; /* lower-case header name, or dotted body path */
	enum route_key_level level;
};

struct route_keyspec {
	enum route_key_compat compat;
	size_t n;
	struct route_source source[ROUTE_SOURCES_MAX];
};

void route_keyspec_default(struct route_keyspec *s);
/* "header:NAME|body:PATH,..." (comma separates, in order). PD_EINVAL names the wrong item. */
int route_keyspec_parse(struct route_keyspec *s, const char *text, struct pd_msg *msg) PD_MUST;

/*
 * Fills *out. `body` may be NULL (no JSON object body): then only headers count. In default mode a
 * request without any key gets level NONE; the caller may then ask route_key_prefix. In compat mode
 * (vllm-router.md section 1.6 A, for a whole body as routing text) the text carries vllm-router's
 * prefixes ("header:x-session-id:..."), and its fallback request_hash/request forms.
 */
void route_key_extract(const struct route_keyspec *s, const struct field *headers, size_t nheaders,
		       const struct json_object *body, struct route_key *out);

/*
 * The fallback for requests without a key: a hash over the beginning of the prompt (unescaped text
 * of messages, prompt or token ids, at most 4096 bytes), so that equal beginnings meet and others
 * spread. Level PREFIX, or NONE when there is no prompt.
 */
void route_key_prefix(const struct json_object *body, struct route_key *out);

#endif
