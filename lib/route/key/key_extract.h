/*
 * How a request's session key is found: which text says "these requests belong together".
 *
 * The default order is the most specific first. Session level: headers X-Session-Id,
 * X-Claude-Code-Session-Id (with X-Claude-Code-Agent-Id), Session-Id, Session_id,
 * X-Session-Affinity, X-Opencode-Session, X-Amp-Thread-Id, X-KiloCode-TaskId, X-Hermes-Session-Id,
 * X-Grok-Conv-Id, X-Litellm-Session-Id, X-Dynamo-Session-Id, X-OpenWebUI-Chat-Id; body
 * session_params.session_id, session_id, prompt_cache_key, conversation (a string, or its id),
 * vllm_xargs.agentic_context (program_id, session_id), the session in metadata.user_id. User level:
 * X-User-Id, X-OpenWebUI-User-Id, body user, user_id, safety_identifier, metadata.user_id.
 * Ids that are new for every call and whole tenants never count unless the specification asks. Body
 * fields are found by a real JSON scan; null and empty values do not count; numbers count by their
 * text. Pure functions, thread-safe.
 */
#ifndef PD_ROUTE_KEY_EXTRACT_H
#define PD_ROUTE_KEY_EXTRACT_H

#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/span.h"
#include "lib/json/scan.h"
#include "lib/route/key.h"

#define ROUTE_PREFIX_MAX  4096 /* bytes of a prompt that count for route_key_prefix */
#define ROUTE_SOURCES_MAX 32

enum route_key_compat { ROUTE_COMPAT_NONE, ROUTE_COMPAT_VLLM_ROUTER };

struct route_source {
	bool header;   /* else body */
	char name[72]; /* lower-case header name, or dotted body path */
	enum route_key_level level;
};

#define ROUTE_KEY_LENGTHS 64

struct route_keyspec {
	enum route_key_compat compat;
	bool fields_only; /* in compat mode: the text of a request is no key */
	size_t n;
	/* private: a bit for each source. Most names that are there have a length that no source
	 * has.
	 */
	uint32_t users;			       /* of the user level */
	uint32_t of_header[ROUTE_KEY_LENGTHS]; /* by the length of the name, modulo */
	uint32_t of_member[ROUTE_KEY_LENGTHS]; /* of the first step of the path */
	struct route_source source[ROUTE_SOURCES_MAX];
};

void route_keyspec_default(struct route_keyspec *s);
/*
 * "header:NAME|body:PATH,..." (comma separates, in order). PD_EINVAL names the wrong item and
 * leaves *s as it was. Names that mean a user or a tenant (x-user-id, x-tenant-id,
 * x-openwebui-user-id, user, user_id, safety_identifier) get the user level, all others the session
 * level. `compat` is not touched.
 */
int route_keyspec_parse(struct route_keyspec *s, const char *text, struct pd_msg *msg) PD_MUST;

/*
 * Fills *out. `body` may be NULL (no JSON object body): then only headers count. The first source
 * of the session level that has a value wins, then the first of the user level, whatever stands
 * first in the list.
 *
 * X-Claude-Code-Session-Id with X-Claude-Code-Agent-Id gives "{session}:{agent}". `conversation`
 * may be an object with an id; `vllm_xargs.agentic_context` an object, or a string of at most 16
 * KiB that holds one, with program_id or else session_id.
 *
 * In default mode a request without any key gets level NONE; the caller may then ask
 * route_key_prefix. In compat mode the list is vllm-router's, the text carries its prefixes
 * ("header:x-session-id:..."), and there always is a key: its fallback is "request:{body}" up to
 * 100 bytes of body and "request_hash:{fbi_hash of the body}" above; with fields_only it has none.
 */
void route_key_extract(const struct route_keyspec *s, const struct field *headers, size_t nheaders,
		       const struct json_object *body, struct route_key *out);

/*
 * The key that a session id gives when it is not read from a request but known as a text: white
 * space around it does not count, a long one is hashed. Level SESSION, or NONE for nothing but
 * white space. The same key as route_key_extract finds for this id in a header or body.
 */
void route_key_of_text(struct span text, struct route_key *out);

/*
 * The fallback for requests without a key: a hash over the beginning of the prompt (unescaped text
 * of messages, prompt, input or token ids), so that equal beginnings meet and others spread. Of
 * messages everything up to the first user message counts, so that a growing conversation keeps its
 * key; the role user does not count, so that a prompt has one key as a chat and as a completion.
 * Level PREFIX, or NONE when there is no prompt.
 */
void route_key_prefix(const struct json_object *body, struct route_key *out);

/* The JSON text of the prompt, which prefix blocks are made of: messages, else prompt, else input;
 * p NULL when there is none. */
struct span route_prompt(const struct json_object *body);

#endif
