/*
 * The key is looked up in the file's table first; only one that is not there is asked about. What
 * is wrong with a key is not told, and no key is ever logged.
 */
#include "lib/router/keys/auth.h"

/* Routes that orchestrators probe: they tell no more than that the router lives. */
static bool is_open(struct span path)
{
	return span_eq(path, SPAN("/health")) || span_eq(path, SPAN("/liveness")) ||
	       span_eq(path, SPAN("/readiness"));
}

struct span auth_key(const struct http_head *h)
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
	const char *name;

	if (!key_is_valid(key))
		return KEY_INVALID;
	if (keys_admit(&a->keys, key, &name)) {
		http_conn_set_who(c, name);
		return KEY_VALID;
	}
	return a->ask ? keyask(a->ask, c, key) : KEY_INVALID;
}

bool auth_admit(struct auth *a, struct http_conn *c, const struct http_request *r,
		struct auth_refusal *no)
{
	struct span key;

	if (!a->on || is_open(r->head.path))
		return true;
	key = auth_key(&r->head);
	switch (judge(a, c, key)) {
	case KEY_VALID:
		return true;
	case KEY_INVALID:
		atomic_fetch_add_explicit(&a->refused, 1, memory_order_relaxed);
		*no = key.n > 0 ? (struct auth_refusal){401, "authentication_error",
							"WWW-Authenticate: Bearer "
							"realm=\"pdctl\", "
							"error=\"invalid_token\"\r\n",
							"invalid API key"}
				: (struct auth_refusal){401, "authentication_error",
							"WWW-Authenticate: Bearer "
							"realm=\"pdctl\"\r\n",
							"found no API key, expected Authorization: "
							"Bearer KEY"};
		return false;
	case KEY_UNKNOWN:
		*no = (struct auth_refusal){503, "server_error", "Retry-After: 1\r\n",
					    "cannot check the API key: the key validation service "
					    "did not answer"};
		return false;
	case KEY_BUSY:
		*no = (struct auth_refusal){
			503, "overloaded_error", "Retry-After: 1\r\n",
			"cannot check the API key: too many key validations pending"};
		return false;
	default:
		*no = (struct auth_refusal){0};
		return false;
	}
}

int auth_start(struct auth *a, const struct auth_config *c, struct pd_msg *msg)
{
	struct key_table table;
	int err = PD_OK;

	a->on = c->keys_file || c->ask.nurls > 0;
	if (c->keys_file) {
		err = key_table_read(&table, c->keys_file, msg);
		if (!err)
			keys_swap(&a->keys, &table);
	}
	if (!err && c->ask.nurls > 0)
		err = keyask_start(&a->ask, &c->ask, msg);
	return err;
}

void auth_release(struct auth *a)
{
	keyask_stop(a->ask);
	keys_release(&a->keys);
}
