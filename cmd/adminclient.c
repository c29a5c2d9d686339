/* libcurl's easy interface: an operator's command makes one request at a time and may block. */
#include "cmd/adminclient.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/buf.h"

#define ANSWER_MAX	 (64u << 20)
#define CONNECT_LIMIT_MS 5000L
#define ANSWER_LIMIT_MS	 75000L /* the router waits 60 s at most for a change */

struct admin_client {
	char *url; /* owned, without a trailing slash */
	bool operand;
	const char *ca_file;
	struct curl_slist *key; /* owned; the header with the key */
	CURL *easy;
	char why[CURL_ERROR_SIZE];
};

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
	return buf_append(arg, p, size * n) ? 0 : size * n;
}

/* "Authorization: Bearer KEY" */
static struct curl_slist *key_header(const char *key)
{
	struct curl_slist *list = NULL;
	struct buf b;

	buf_init(&b, 65536);
	if (buf_printf(&b, "Authorization: Bearer %s", key) == PD_OK)
		list = curl_slist_append(NULL, b.data);
	buf_release(&b);
	return list;
}

int admin_client_new(struct admin_client **out, const struct admin_access *a, struct pd_msg *msg)
{
	const char *url = a->url;
	struct admin_client *c;
	size_t n = strlen(url);

	if ((strncmp(url, "http://", 7) != 0 || n < 8) &&
	    (strncmp(url, "https://", 8) != 0 || n < 9))
		return pd_fail(msg, PD_EINVAL,
			       "%s: found '%.200s', expected http://HOST:PORT, the address of the "
			       "router's --admin-port",
			       a->operand ? "URL" : "--router", url);
	if (a->ca_file && access(a->ca_file, R_OK) != 0)
		return pd_fail(msg, PD_EINVAL, "--ca-file: cannot read '%.200s'", a->ca_file);
	c = calloc(1, sizeof(*c));
	if (!c || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		free(c);
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	c->easy = curl_easy_init();
	c->url = strdup(url);
	c->operand = a->operand;
	c->ca_file = a->ca_file;
	c->key = a->key ? key_header(a->key) : NULL;
	if (!c->easy || !c->url || (a->key && !c->key)) {
		admin_client_free(c);
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	while (n > 0 && c->url[n - 1] == '/')
		c->url[--n] = '\0';
	*out = c;
	return PD_OK;
}

void admin_client_free(struct admin_client *c)
{
	if (!c)
		return;
	if (c->easy)
		curl_easy_cleanup(c->easy);
	curl_slist_free_all(c->key);
	free(c->url);
	free(c);
	curl_global_cleanup();
}

/* The path with the id, percent-encoded, in place of "{id}". */
static int put_url(const struct admin_client *c, const char *path, const char *id, struct buf *b)
{
	const char *at = id ? strstr(path, "{id}") : NULL;
	char *quoted;
	int err;

	if (!at)
		return buf_printf(b, "%s%s", c->url, path);
	quoted = curl_easy_escape(c->easy, id, 0);
	err = quoted ? buf_printf(b, "%s%.*s%s%s", c->url, (int)(at - path), path, quoted, at + 4)
		     : PD_ENOMEM;
	curl_free(quoted);
	return err;
}

static bool set_options(struct admin_client *c, const char *method, const char *url,
			const char *body, struct curl_slist *fields, struct buf *answer)
{
	CURL *e = c->easy;

	c->why[0] = '\0';
	curl_easy_reset(e);
	return curl_easy_setopt(e, CURLOPT_URL, url) == CURLE_OK &&
	       curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L) == CURLE_OK &&
	       curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
	       curl_easy_setopt(e, CURLOPT_PROXY, "") == CURLE_OK &&
	       curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK &&
	       curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
	       curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_LIMIT_MS) == CURLE_OK &&
	       curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, ANSWER_LIMIT_MS) == CURLE_OK &&
	       curl_easy_setopt(e, CURLOPT_ERRORBUFFER, c->why) == CURLE_OK &&
	       (!body || curl_easy_setopt(e, CURLOPT_COPYPOSTFIELDS, body) == CURLE_OK) &&
	       curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, method) == CURLE_OK &&
	       curl_easy_setopt(e, CURLOPT_HTTPHEADER, fields) == CURLE_OK &&
	       (!c->ca_file || curl_easy_setopt(e, CURLOPT_CAINFO, c->ca_file) == CURLE_OK) &&
	       curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
	       curl_easy_setopt(e, CURLOPT_WRITEDATA, answer) == CURLE_OK;
}

static int no_answer(const struct admin_client *c, CURLcode code, struct pd_msg *msg)
{
	const char *why = c->why[0] ? c->why : curl_easy_strerror(code);

	if (code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST)
		return pd_fail(msg, PD_ECLOSED,
			       "cannot reach the router at %.200s: %.160s; start it, or name the "
			       "address of its --admin-port %s",
			       c->url, why, c->operand ? "as URL" : "with --router URL");
	return pd_fail(msg, PD_ECLOSED, "no answer from the router at %.200s: %.200s", c->url, why);
}

int admin_client_ask(struct admin_client *c, const char *method, const char *path, const char *id,
		     const char *body, struct admin_reply *r, struct pd_msg *msg)
{
	struct curl_slist *fields = curl_slist_append(NULL, "Content-Type: application/json"),
			  *more;
	struct buf url, answer;
	CURLcode code = CURLE_OUT_OF_MEMORY;
	int err;

	*r = (struct admin_reply){0};
	buf_init(&url, 65536);
	buf_init(&answer, ANSWER_MAX);
	/* Off: curl would wait a second for a server that ignores it. */
	more = fields ? curl_slist_append(fields, "Expect:") : NULL;
	if (more && c->key)
		more = curl_slist_append(fields, c->key->data);
	err = more ? put_url(c, path, id, &url) : PD_ENOMEM;
	if (!err && set_options(c, method, url.data, body, fields, &answer))
		code = curl_easy_perform(c->easy);
	if (err)
		(void)pd_fail(msg, err, "cannot build the request: %s", pd_err_text(err));
	else if (code != CURLE_OK)
		err = no_answer(c, code, msg);
	if (!err) {
		(void)curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &r->status);
		r->json = answer.data ? cJSON_Parse(answer.data) : NULL;
		r->text = answer.data ? buf_detach(&answer) : strdup("");
	}
	curl_slist_free_all(fields);
	buf_release(&answer);
	buf_release(&url);
	return err;
}

void admin_reply_release(struct admin_reply *r)
{
	free(r->text);
	cJSON_Delete(r->json);
	*r = (struct admin_reply){0};
}

void admin_reply_error(const struct admin_client *c, const struct admin_reply *r,
		       struct pd_msg *msg)
{
	const cJSON *error = cJSON_GetObjectItemCaseSensitive(r->json, "error");
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(error, "message"));

	if (text)
		(void)pd_fail(msg, PD_EINVAL, "%.480s", text);
	else
		(void)pd_fail(msg, PD_EINVAL,
			      "%.200s answered %ld: not a pdctl router? --router expects the "
			      "address of its --admin-port",
			      c->url, r->status);
}
