/*
 * The key is looked up in the file's table first; only one that is not there is asked about. What
 * is wrong with a key is not told, and no key is ever logged.
 */
#include "lib/router/keys/auth.h"

#include "lib/router/router.h"

/* Routes that orchestrators probe: they tell no more than that the router lives. */
static bool is_open(struct span path)
{
	return span_eq(path, SPAN("/health")) || span_eq(path, SPAN("/liveness")) ||
	       span_eq(path, SPAN("/readiness"));
}

/* "Bearer KEY", else X-Api-Key. Empty when there is none. */
static struct span key_of(const struct http_head *h)
{
	const struct field *f = http_field_tag(h, HTTP_AUTHORIZATION);
	struct span v;

	if (!f) {
		f = http_field_tag(h, HTTP_X_API_KEY);
		return f ? f->value : (struct span){0};
	}
	v = f->value;
	if (v.n < 7 || !span_eq_case((struct span){v.p, 6}, SPAN("bearer")) || v.p[6] != ' ')
		return (struct span){0};
	return span_trim((struct span){v.p + 7, v.n - 7});
}

static enum key_verdict judge(struct auth *a, struct http_conn *c, struct span key)
{
	if (!key_is_valid(key))
		return KEY_INVALID;
	if (keys_has(&a->keys, key))
		return KEY_VALID;
	return a->ask ? keyask(a->ask, c, key) : KEY_INVALID;
}

static void refuse(struct router *rt, struct http_conn *c, const struct http_request *r, int status,
		   const char *extra, const char *type, const char *text)
{
	proxy_refused(rt, c, r, status, status == 401 ? ERROR_UNAUTHORIZED : ERROR_KEY_CHECK);
	log_line(rt->cfg.log, LOG_DEBUG, "refused %.*s %.*s: %d %s", (int)r->head.method.n,
		 r->head.method.p, (int)r->head.path.n, r->head.path.p, status, text);
	(void)http_reply_error(c, status, type, extra, "%s", text);
}

bool auth_admit(struct router *rt, struct http_conn *c, const struct http_request *r)
{
	struct auth *a = &rt->auth;
	struct span key;

	if (!a->on || is_open(r->head.path))
		return true;
	key = key_of(&r->head);
	switch (judge(a, c, key)) {
	case KEY_VALID:
		return true;
	case KEY_INVALID:
		atomic_fetch_add_explicit(&a->refused, 1, memory_order_relaxed);
		refuse(rt, c, r, 401,
		       key.n > 0 ? "WWW-Authenticate: Bearer realm=\"pdctl\", "
				   "error=\"invalid_token\"\r\n"
				 : "WWW-Authenticate: Bearer realm=\"pdctl\"\r\n",
		       "authentication_error",
		       key.n > 0 ? "this API key is not known here"
				 : "an API key is needed: send it as Authorization: Bearer KEY");
		return false;
	case KEY_UNKNOWN:
		refuse(rt, c, r, 503, "Retry-After: 1\r\n", "server_error",
		       "the API key could not be checked: the service that knows keys did not "
		       "answer");
		return false;
	case KEY_BUSY:
		refuse(rt, c, r, 503, "Retry-After: 1\r\n", "overloaded_error",
		       "the API key could not be checked: too many keys wait for their check");
		return false;
	default:
		return false;
	}
}

int auth_start(struct auth *a, const struct router_config *c, struct pd_msg *msg)
{
	struct keyask_config kc = {.urls = c->key_urls,
				   .nurls = c->key_urls_n,
				   .timeout = c->key_timeout,
				   .valid_ttl = c->key_valid_ttl,
				   .invalid_ttl = c->key_invalid_ttl,
				   .cache = c->key_cache,
				   .log = c->log};
	struct key_table table;
	int err = PD_OK;

	a->on = c->client_keys_file || c->key_urls_n > 0;
	if (c->client_keys_file) {
		err = key_table_read(&table, c->client_keys_file, msg);
		if (!err)
			keys_swap(&a->keys, &table);
	}
	if (!err && c->key_urls_n > 0)
		err = keyask_start(&a->ask, &kc, msg);
	return err;
}

void auth_release(struct auth *a)
{
	keyask_stop(a->ask);
	keys_release(&a->keys);
}
