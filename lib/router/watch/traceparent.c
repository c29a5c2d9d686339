/* A context that is malformed is dropped with its tracestate, as the specification asks: passing
 * it on would tie this request to somebody else's trace, or to none. */
#include "lib/router/watch/traceparent.h"

#include <string.h>

#define ID_AT	   3 /* trace id: 32 digits */
#define ID_LEN	   32
#define PARENT_AT  36 /* parent id: 16 digits */
#define PARENT_LEN 16
#define FLAGS_AT   53

static bool is_hex(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'a' && p[i] <= 'f')))
			return false;
	return true;
}

static bool is_zero(const char *p, size_t n)
{
	while (n > 0 && p[n - 1] == '0')
		n--;
	return n == 0;
}

bool trace_valid(struct span v)
{
	const char *p = v.p;

	if (v.n < TRACEPARENT_LEN || !is_hex(p, 2) || memcmp(p, "ff", 2) == 0)
		return false;
	/* What a later version appends is not known; that it begins with a dash is. */
	if (v.n > TRACEPARENT_LEN && (memcmp(p, "00", 2) == 0 || p[TRACEPARENT_LEN] != '-'))
		return false;
	return p[2] == '-' && is_hex(p + ID_AT, ID_LEN) && p[ID_AT + ID_LEN] == '-' &&
	       is_hex(p + PARENT_AT, PARENT_LEN) && p[PARENT_AT + PARENT_LEN] == '-' &&
	       is_hex(p + FLAGS_AT, 2) && !is_zero(p + ID_AT, ID_LEN) &&
	       !is_zero(p + PARENT_AT, PARENT_LEN);
}

bool trace_read(struct trace_context *t, const struct http_head *h)
{
	const struct field *found = NULL;

	t->id = (struct span){0};
	t->refused = false;
	t->text[0] = '\0';
	t->recorded = t->joined = false;
	for (size_t i = 0; i < h->nfields; i++) {
		if (h->field[i].tag != HTTP_TRACEPARENT)
			continue;
		t->refused |= found != NULL;
		found = &h->field[i];
	}
	if (!found)
		return false;
	t->refused |= !trace_valid(found->value);
	if (!t->refused)
		t->id = (struct span){found->value.p + ID_AT, ID_LEN};
	return !t->refused;
}

static void put_hex(char *out, size_t n, struct rng *rng)
{
	static const char hex[] = "0123456789abcdef";
	uint64_t bits = 0;

	do {
		for (size_t i = 0; i < n; i++) {
			bits = i % 16 == 0 ? rng_u64(rng) : bits >> 4;
			out[i] = hex[bits & 15];
		}
	} while (is_zero(out, n));
}

void trace_make(struct trace_context *t, struct rng *rng)
{
	memcpy(t->text, "00-00000000000000000000000000000000-0000000000000000-01",
	       TRACEPARENT_LEN + 1);
	put_hex(t->text + ID_AT, ID_LEN, rng);
	put_hex(t->text + PARENT_AT, PARENT_LEN, rng);
	t->id = (struct span){t->text + ID_AT, ID_LEN};
}

bool trace_sampled(const struct trace_context *t)
{
	/* Two hex digits behind the id in the client's field; the last bit counts. */
	char low = t->id.p[FLAGS_AT + 1 - ID_AT];

	return t->id.n > 0 && (low <= '9' ? low - '0' : low - 'a' + 10) % 2 == 1;
}

void trace_join(struct trace_context *t, struct rng *rng)
{
	struct span id = t->id;

	memcpy(t->parent, id.p + PARENT_AT - ID_AT, PARENT_LEN);
	t->parent[PARENT_LEN] = '\0';
	trace_make(t, rng);
	memcpy(t->text + ID_AT, id.p, ID_LEN);
	memcpy(t->span, t->text + PARENT_AT, PARENT_LEN);
	t->span[PARENT_LEN] = '\0';
	t->recorded = t->joined = true;
}

void trace_own_span(struct trace_context *t)
{
	t->parent[0] = '\0';
	memcpy(t->span, t->text + PARENT_AT, PARENT_LEN);
	t->span[PARENT_LEN] = '\0';
	t->recorded = true;
}

void trace_not_sampled(struct trace_context *t)
{
	if (t->text[0])
		t->text[FLAGS_AT + 1] = '0';
}
