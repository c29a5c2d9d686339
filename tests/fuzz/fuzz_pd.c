/*
 * The texts of a P/D request by every connector of the table: any JSON object as body, as prefill
 * answer and as decode answer.
 *
 * The first byte selects the path. What must hold: the edited text is valid JSON; members that are
 * not ours stay, in order and byte for byte; the decode copy carries the parameters verbatim; a
 * usage merge changes nothing outside of the usage object, and a second merge changes nothing at
 * all.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/pd/connector.h"
#include "lib/pd/legs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void expect(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fuzz_pd: %s\n", what);
		abort();
	}
}

static bool is_ours(const struct json_member *m)
{
	static const char *const names[] = {"max_tokens",
					    "min_tokens",
					    "max_completion_tokens",
					    "max_output_tokens",
					    "n",
					    "store",
					    "sampling_params",
					    "stream",
					    "stream_options",
					    "kv_transfer_params",
					    "bootstrap_host",
					    "bootstrap_port",
					    "bootstrap_room"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (json_member_is(m, names[i]))
			return true;
	return false;
}

/* The members that are not ours are the same in both, in the same order. */
static void same_others(const struct json_object *a, const struct json_object *b)
{
	size_t i = 0, k = 0;

	for (;; i++, k++) {
		while (i < a->n && is_ours(&a->member[i]))
			i++;
		while (k < b->n && is_ours(&b->member[k]))
			k++;
		if (i == a->n || k == b->n)
			break;
		expect(span_eq(a->member[i].key, b->member[k].key) &&
			       span_eq(a->member[i].value, b->member[k].value),
		       "another member changed");
	}
	expect(i == a->n && k == b->n, "a member came or went");
}

static bool has(const struct json_object *o, const char *path, const char *text)
{
	enum json_type type;
	struct span value;

	return json_object_path(o, path, &type, &value) && span_eq(value, span_of(text));
}

static bool is_object_at(const struct json_object *o, const char *name)
{
	const struct json_member *m = json_object_get(o, name);

	return m && m->type == JSON_OBJECT;
}

static bool is_nixl(const struct pd_connector *by)
{
	return strcmp(by->name, "nixl") == 0;
}

static void check_prefill(const struct pd_connector *by, const struct json_object *body,
			  const char *text, size_t n, enum pd_path path)
{
	struct json_object o;

	if (json_object_scan(&o, text, n, NULL)) {
		expect(body->n + 8 > JSON_MEMBERS_MAX, "the prefill copy is no JSON");
		return;
	}
	same_others(body, &o);
	if (by->flags & PD_WHOLE) {
		expect(json_object_count(&o, "bootstrap_room") == 1, "bootstrap");
		json_object_release(&o);
		return;
	}
	expect(has(&o, "stream", "false") && json_object_count(&o, "stream_options") == 0,
	       "stream");
	expect(!is_nixl(by) || has(&o, "kv_transfer_params.do_remote_decode", "true"),
	       "kv_transfer_params");
	if (path == PD_PATH_GENERATE && is_object_at(body, "sampling_params"))
		expect(has(&o, "sampling_params.max_tokens", "1") &&
			       has(&o, "sampling_params.min_tokens", "1"),
		       "sampling_params");
	else if (path == PD_PATH_RESPONSES)
		expect(has(&o, "max_output_tokens", "1") && has(&o, "store", "false"),
		       "max_output_tokens");
	else if (path == PD_PATH_MESSAGES)
		expect(json_object_count(&o, "max_tokens") == 0 || has(&o, "max_tokens", "1"),
		       "max_tokens");
	else if (path != PD_PATH_GENERATE)
		expect(has(&o, "max_tokens", "1") && has(&o, "min_tokens", "1"), "max_tokens");
	json_object_release(&o);
}

/* The edited body in out; false: the connector refused it, with a sentence. */
static bool copy_of(const struct json_object *body, struct pd_pair *p,
		    int (*edit)(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg),
		    struct buf *out)
{
	struct pd_msg msg = {""};
	struct pd_copy c;
	size_t total;
	int err;

	buf_clear(out);
	expect(pd_copy_init(&c, body, p) == PD_OK, "init");
	err = edit(p, &c, &msg);
	expect(err == PD_OK || ((err == PD_EINVAL || err == PD_ENOENT) && msg.text[0]) ||
		       err == PD_ETOOBIG,
	       "a refusal without a sentence");
	expect(c.id.n > 0 && c.nadd <= PD_COPY_FIELDS, "the head's fields");
	if (!err)
		expect(json_edit_finish(&c.body, &total) == PD_OK &&
			       json_edit_copy(&c.body, out) == PD_OK && out->len == total,
		       "finish");
	pd_copy_release(&c);
	return !err;
}

static void check_decode(const struct pd_connector *by, const struct json_object *body,
			 const struct pd_pair *p, const struct buf *out)
{
	const struct json_member *m;
	struct json_object o;

	if (!p->blocks && json_object_count(body, "kv_transfer_params") == 0)
		expect(span_eq(buf_span(out), body->doc), "the decode copy changed");
	if (json_object_scan(&o, out->data, out->len, NULL))
		return;
	m = json_object_get(&o, "kv_transfer_params");
	if (is_nixl(by))
		expect(p->blocks ? m && span_eq(m->value, p->params) : !m,
		       "the parameters are not verbatim");
	same_others(body, &o);
	json_object_release(&o);
}

static void copies(const struct pd_connector *by, const struct json_object *body, enum pd_path path)
{
	struct pd_pair p;
	struct pd_msg msg = {""};
	struct buf out;
	int err;

	expect(pd_alone_of(path, body) < PD_ALONE_COUNT, "a reason");
	buf_init(&out, 1u << 24);
	pd_pair_init(&p, path, SPAN("req-1"), 1);
	p.prefill = (struct pd_end){.host = SPAN("p"), .port = 8100, .bootstrap = 8998, .rank = -1};
	p.decode = (struct pd_end){.host = SPAN("d"), .port = 8200, .writes = true};
	/* What a bootstrap server answered, or an answer taught, is any text of a peer. */
	if (by->inquiry)
		p.known = body->doc;
	err = by->check ? by->check(body, &msg) : PD_OK;
	expect(err == PD_OK || (err == PD_EINVAL && msg.text[0]), "a check without a sentence");
	if (copy_of(body, &p, by->prefill, &out))
		check_prefill(by, body, out.data, out.len, path);
	if (copy_of(body, &p, by->decode, &out))
		check_decode(by, body, &p, &out);
	/* The body as the prefill answer. */
	expect(by->answered(&p, body->doc, NULL) == PD_OK, "the answer is a valid object");
	p.known = p.learnt;
	if (copy_of(body, &p, by->decode, &out))
		check_decode(by, body, &p, &out);
	if (p.blocks && by->release)
		(void)copy_of(body, &p, by->release, &out);
	pd_pair_release(&p);
	buf_release(&out);
}

static void merge(const struct json_object *doc, const struct pd_prefill_usage *r)
{
	struct buf out, again;
	enum json_type type;
	struct span usage;
	size_t before, after;
	bool changed;

	buf_init(&out, 1u << 24);
	buf_init(&again, 1u << 24);
	expect(pd_usage_merge(doc->doc.p, doc->doc.n, r, &out, &changed) == PD_OK, "merge");
	if (changed) {
		expect(json_validate(out.data, out.len, NULL) == PD_OK,
		       "the merged document is no JSON");
		expect((json_object_path(doc, "usage", &type, &usage) && type == JSON_OBJECT) ||
			       (json_object_path(doc, "response.usage", &type, &usage) &&
				type == JSON_OBJECT) ||
			       (json_object_path(doc, "message.usage", &type, &usage) &&
				type == JSON_OBJECT),
		       "changed without usage");
		before = (size_t)(usage.p - doc->doc.p);
		after = doc->doc.n - before - usage.n;
		expect(out.len >= before + after && memcmp(out.data, doc->doc.p, before) == 0 &&
			       memcmp(out.data + out.len - after, usage.p + usage.n, after) == 0,
		       "a byte outside of usage changed");
		expect(pd_usage_merge(out.data, out.len, r, &again, &changed) == PD_OK && !changed,
		       "a merged document changes again");
	}
	buf_release(&out);
	buf_release(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const struct pd_prefill_usage none = {.prompt_tokens = -1, .cached_tokens = -1};
	static const struct pd_prefill_usage some = {.prompt_tokens = 40, .cached_tokens = 32};
	const char *p = (const char *)data + 1;
	struct pd_tokens tokens = PD_TOKENS_UNKNOWN;
	struct pd_prefill_usage r;
	struct json_object o;

	if (n < 2 || n > 1u << 20)
		return 0;
	(void)pd_usage_maybe(p, n - 1);
	pd_usage_tokens(&tokens, p, n - 1);
	if (json_object_scan(&o, p, n - 1, NULL))
		return 0;
	pd_usage_of_prefill(&r, &o);
	for (size_t i = 0; pd_connectors[i]; i++)
		copies(pd_connectors[i], &o, (enum pd_path)(data[0] % (PD_PATH_MESSAGES + 1)));
	merge(&o, &r);
	merge(&o, &none);
	merge(&o, &some);
	json_object_release(&o);
	return 0;
}
