#include "cmd/serve_keys.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/router/keys/keyask.h"
#include "lib/router/keys/keys.h"

struct serve_keys serve_keys;
static char *worker_key; /* owned */
static char *url_text;	 /* owned; the words of API_KEY_VALIDATION_URLS */

#define SEPARATORS ", \t"
/* With --compat: vllm-router sends this one to prefill and decode workers. */
#define KEY_VARIABLE "OPENAI_API_KEY"
#define URLS_VARIABLE                                                                              \
	"API_KEY_VALIDATION_URLS" /* vllm-router reads it when the flag is not given */

static int64_t ns(double seconds)
{
	return (int64_t)(seconds * 1e9);
}

void serve_keys_defaults(const struct router_config *c)
{
	serve_keys = (struct serve_keys){
		.cache = c->key_cache,
		.timeout = (double)c->key_timeout / 1e9,
		.valid_ttl = (double)c->key_valid_ttl / 1e9,
		.invalid_ttl = (double)c->key_invalid_ttl / 1e9,
	};
}

static void wipe(char *s)
{
	if (s)
		explicit_bzero(s, strlen(s));
}

/* The argument lies in argv, which is writable: afterwards ps shows stars. */
static void hide(const char *word)
{
	char *p = (char *)(uintptr_t)word;

	memset(p, '*', strlen(p));
}

static int keep_key(struct span key, const char *from, struct pd_msg *msg)
{
	if (!key_is_valid(key))
		return pd_fail(msg, PD_EINVAL,
			       "%s: found no key, expected 1 to %d visible ASCII characters "
			       "without spaces",
			       from, KEY_MAX);
	worker_key = strndup(key.p, key.n);
	return worker_key ? PD_OK : pd_fail(msg, PD_ENOMEM, "out of memory");
}

static int read_worker_key(struct pd_msg *msg)
{
	struct pd_msg inner = {0};
	struct buf text;
	struct span line;
	int err;

	if (serve_keys.api_key) {
		err = keep_key(span_of(serve_keys.api_key), "--api-key", msg);
		hide(serve_keys.api_key);
		return err;
	}
	buf_init(&text, 2 * KEY_MAX);
	err = file_read(serve_keys.api_key_file, &text, &inner);
	if (err) {
		err = pd_fail(msg, PD_EINVAL, "--api-key-file: %.480s", inner.text);
	} else {
		const char *eol = text.len > 0 ? memchr(text.data, '\n', text.len) : NULL;

		line = (struct span){text.data, eol ? (size_t)(eol - text.data) : text.len};
		if (line.n > 0 && line.p[line.n - 1] == '\r')
			line.n--;
		err = keep_key(span_trim(line), "--api-key-file", msg);
	}
	wipe(text.data);
	buf_release(&text);
	return err;
}

static int read_variable(struct pd_msg *msg)
{
	const char *text = getenv(URLS_VARIABLE);
	struct opt_list *l = &serve_keys.urls;

	if (l->occurrences > 0 || !text || !*text)
		return PD_OK;
	url_text = strdup(text);
	l->items = calloc(strlen(text) / 2 + 1, sizeof(*l->items));
	if (!url_text || !l->items)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	for (char *word = url_text; *word; word += strcspn(word, SEPARATORS)) {
		if (strchr(SEPARATORS, *word))
			*word++ = '\0';
		if (*word && !strchr(SEPARATORS, *word))
			l->items[l->n++] = word;
	}
	return PD_OK;
}

static int read_urls(struct router_config *c, struct pd_msg *msg)
{
	struct pd_msg inner = {0};

	if (read_variable(msg))
		return PD_ENOMEM;

	if (serve_keys.urls.n > KEYASK_URLS_MAX)
		return pd_fail(msg, PD_EINVAL, "--api-key-validation-urls: more than %d URLs",
			       KEYASK_URLS_MAX);
	for (size_t i = 0; i < serve_keys.urls.n; i++)
		if (keyask_check_url(serve_keys.urls.items[i], &inner))
			return pd_fail(msg, PD_EINVAL, "--api-key-validation-urls: URL %zu: %.400s",
				       i + 1, inner.text);
	if (serve_keys.urls.occurrences > 0 && serve_keys.urls.n == 0)
		return pd_fail(msg, PD_EINVAL,
			       "--api-key-validation-urls: found no URL, expected at least one");
	c->key_urls = serve_keys.urls.items;
	c->key_urls_n = serve_keys.urls.n;
	return PD_OK;
}

int serve_keys_read(struct router_config *c, struct pd_msg *msg)
{
	const char *variable = getenv(KEY_VARIABLE);
	struct key_table probe;
	int err = PD_OK;

	if (serve_keys.api_key && serve_keys.api_key_file)
		err = pd_fail(msg, PD_EINVAL, "--api-key and --api-key-file cannot be combined");
	else if (serve_keys.api_key || serve_keys.api_key_file)
		err = read_worker_key(msg);
	else if (c->compat && c->pd && variable && *variable)
		err = keep_key(span_of(variable), KEY_VARIABLE, msg);
	if (err) {
		if (serve_keys.api_key)
			hide(serve_keys.api_key);
		return err;
	}
	if (worker_key && serve_keys.forward)
		return pd_fail(msg, PD_EINVAL,
			       "--forward-authorization and --api-key cannot be combined: a worker "
			       "gets one of the two keys");
	c->api_key = worker_key;
	c->forward_credentials = serve_keys.forward;
	c->client_keys_file = serve_keys.client_keys;
	c->key_cache = (unsigned)serve_keys.cache;
	c->key_timeout = ns(serve_keys.timeout);
	c->key_valid_ttl = ns(serve_keys.valid_ttl);
	c->key_invalid_ttl = ns(serve_keys.invalid_ttl);
	err = read_urls(c, msg);
	if (!err && serve_keys.client_keys) {
		/* An invalid file is wrong usage (exit 2) and not a run-time failure. */
		err = key_table_read(&probe, serve_keys.client_keys, msg);
		key_table_release(&probe);
	}
	if (!err && serve_keys.forward && !c->client_keys_file && c->key_urls_n == 0)
		return pd_fail(
			msg, PD_EINVAL,
			"--forward-authorization requires --client-api-keys or "
			"--api-key-validation-urls; without them the field is forwarded anyway");
	return err;
}

void serve_keys_release(void)
{
	wipe(worker_key);
	free(worker_key);
	worker_key = NULL;
	free(url_text);
	url_text = NULL;
	opt_list_release(&serve_keys.urls);
}
