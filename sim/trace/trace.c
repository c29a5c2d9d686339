/*
 * Keys are first kept one per request in one text and numbered at the end, because a growing text
 * moves and the table of names borrows its bytes.
 */
#include "sim/trace/trace.h"

#include <stdlib.h>
#include <string.h>

#include "lib/workload/names.h"

#define TEXT_MAX	((size_t)8 << 30)
#define BLOCKS_MAX	((size_t)UINT32_MAX)
#define SIM_WORKERS_MAX 65536 /* names in a capture; the list is searched from its beginning */

void simtrace_init(struct simtrace *t, uint32_t block_tokens)
{
	*t = (struct simtrace){.block_tokens = block_tokens};
	buf_init(&t->text, TEXT_MAX);
}

void simtrace_release(struct simtrace *t)
{
	if (t->made) {
		free(t->made->session);
		free(t->made->turn);
		free(t->made->at_ns);
		free(t->made->group);
		free(t->made->key);
		free(t->made);
	}
	free(t->req);
	free(t->block);
	free(t->key);
	free(t->pick);
	for (size_t i = 0; i < t->nworkers; i++)
		free(t->worker[i]);
	free(t->worker);
	free(t->order.before);
	free(t->order.session);
	free(t->order.think_ns);
	buf_release(&t->text);
	simtrace_init(t, t->block_tokens);
}

int simtrace_add(struct simtrace *t, int64_t arrival_ns, struct span key, int64_t input_tokens,
		 int64_t output_tokens, const uint64_t *block, size_t nblocks)
{
	size_t cap = t->cap ? t->cap * 2 : 256, block_cap = t->block_cap ? t->block_cap : 1024;
	void *grown;
	int err;

	if (input_tokens < 1 || input_tokens > SIM_TOKENS_MAX || output_tokens < 1 ||
	    output_tokens > SIM_TOKENS_MAX || nblocks > UINT32_MAX)
		return PD_EINVAL;
	if (t->n >= SIM_REQUESTS_MAX || nblocks > BLOCKS_MAX - t->nblocks)
		return PD_ETOOBIG;
	if (t->n == t->cap) {
		grown = reallocarray(t->req, cap, sizeof(*t->req));
		if (!grown)
			return PD_ENOMEM;
		t->req = grown;
		grown = reallocarray(t->key, cap, sizeof(*t->key));
		if (!grown)
			return PD_ENOMEM;
		t->key = grown;
		t->cap = cap;
	}
	if (t->nblocks + nblocks > t->block_cap) {
		while (block_cap < t->nblocks + nblocks)
			block_cap *= 2;
		grown = reallocarray(t->block, block_cap, sizeof(*t->block));
		if (!grown)
			return PD_ENOMEM;
		t->block = grown;
		t->block_cap = block_cap;
	}
	t->key[t->n] = (struct sim_key){.off = t->text.len, .len = key.n};
	err = buf_append(&t->text, key.p, key.n);
	if (err)
		return err;
	t->req[t->n++] = (struct sim_request){.arrival_ns = arrival_ns,
					      .block = (uint32_t)t->nblocks,
					      .nblocks = (uint32_t)nblocks,
					      .key = SIM_NO_KEY,
					      .input_tokens = (uint32_t)input_tokens,
					      .output_tokens = (uint32_t)output_tokens,
					      .pick = SIM_NO_PICK};
	if (nblocks > 0)
		memcpy(t->block + t->nblocks, block, nblocks * sizeof(*block));
	t->nblocks += nblocks;
	t->named += nblocks;
	return PD_OK;
}

int simtrace_reserve(struct simtrace *t, size_t requests, size_t blocks)
{
	if (requests > SIM_REQUESTS_MAX || blocks > BLOCKS_MAX)
		return PD_ETOOBIG;
	t->req = reallocarray(NULL, requests + 1, sizeof(*t->req));
	t->block = reallocarray(NULL, blocks + 1, sizeof(*t->block));
	t->cap = requests;
	t->block_cap = blocks;
	t->numbered = true;
	return t->req && t->block ? PD_OK : PD_ENOMEM;
}

int simtrace_key_new(struct simtrace *t, struct span text, uint32_t *no)
{
	struct sim_key *grown;
	int err;

	/* a power of two: room for twice as many */
	if ((t->nkeys & (t->nkeys - 1)) == 0) {
		grown = reallocarray(t->key, t->nkeys ? t->nkeys * 2 : 1, sizeof(*grown));
		if (!grown)
			return PD_ENOMEM;
		t->key = grown;
	}
	t->key[t->nkeys] = (struct sim_key){.off = t->text.len, .len = text.n};
	err = buf_append(&t->text, text.p, text.n);
	if (err)
		return err;
	*no = (uint32_t)t->nkeys++;
	return PD_OK;
}

int simtrace_chain(struct simtrace *t, const uint64_t *block, size_t n, uint32_t *at)
{
	if (n > t->block_cap - t->nblocks)
		return PD_ETOOBIG;
	*at = (uint32_t)t->nblocks;
	if (n > 0)
		memcpy(t->block + t->nblocks, block, n * sizeof(*block));
	t->nblocks += n;
	return PD_OK;
}

int simtrace_add_made(struct simtrace *t, const struct sim_request *r)
{
	if (r->input_tokens < 1 || r->input_tokens > SIM_TOKENS_MAX || r->output_tokens < 1 ||
	    r->output_tokens > SIM_TOKENS_MAX || r->block + (size_t)r->nblocks > t->nblocks)
		return PD_EINVAL;
	if (t->n == t->cap)
		return PD_ETOOBIG;
	if (r->key != SIM_NO_KEY)
		t->key[r->key].requests++;
	t->named += r->nblocks;
	t->req[t->n++] = *r;
	return PD_OK;
}

int simtrace_pick(struct simtrace *t, const struct sim_pick *p)
{
	size_t cap = t->pick_cap ? t->pick_cap * 2 : 256;
	struct sim_pick *grown;

	if (t->npicks == t->pick_cap) {
		grown = reallocarray(t->pick, cap, sizeof(*grown));
		if (!grown)
			return PD_ENOMEM;
		t->pick = grown;
		t->pick_cap = cap;
	}
	t->req[t->n - 1].pick = (uint32_t)t->npicks;
	t->pick[t->npicks++] = *p;
	return PD_OK;
}

int simtrace_worker(struct simtrace *t, struct span name, uint32_t *out)
{
	char **grown;

	for (size_t i = 0; i < t->nworkers; i++) {
		if (!span_eq(span_of(t->worker[i]), name))
			continue;
		*out = (uint32_t)i;
		return PD_OK;
	}
	if (t->nworkers >= SIM_WORKERS_MAX)
		return PD_ETOOBIG;
	grown = reallocarray(t->worker, t->nworkers + 1, sizeof(*grown));
	if (!grown)
		return PD_ENOMEM;
	t->worker = grown;
	grown[t->nworkers] = strndup(name.p, name.n);
	if (!grown[t->nworkers])
		return PD_ENOMEM;
	*out = (uint32_t)t->nworkers++;
	return PD_OK;
}

/* qsort is not stable: the place in the file breaks ties. */
struct arrival {
	int64_t at;
	size_t index;
};

static int by_arrival(const void *a, const void *b)
{
	const struct arrival *x = a, *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return x->index < y->index ? -1 : x->index > y->index;
}

/* The arrays of the order in the order of arrival; `before` names places in it. */
static int sort_order(struct sim_order *o, const struct arrival *order, size_t n)
{
	uint32_t *place = reallocarray(NULL, n + 1, sizeof(*place));
	struct sim_order to = {.nsessions = o->nsessions, .stamped = o->stamped};
	int err = place ? PD_OK : PD_ENOMEM;

	for (size_t i = 0; !err && i < n; i++)
		place[order[i].index] = (uint32_t)i;
	if (!err && o->before && !(to.before = reallocarray(NULL, n + 1, sizeof(*to.before))))
		err = PD_ENOMEM;
	if (!err && o->session && !(to.session = reallocarray(NULL, n + 1, sizeof(*to.session))))
		err = PD_ENOMEM;
	if (!err && o->think_ns && !(to.think_ns = reallocarray(NULL, n + 1, sizeof(*to.think_ns))))
		err = PD_ENOMEM;
	for (size_t i = 0; !err && i < n; i++) {
		size_t of = order[i].index;

		if (to.before)
			to.before[i] = o->before[of] == SCHEDULE_NONE ? SCHEDULE_NONE
								      : place[o->before[of]];
		if (to.session)
			to.session[i] = o->session[of];
		if (to.think_ns)
			to.think_ns[i] = o->think_ns[of];
	}
	if (!err) {
		struct sim_order old = *o;

		*o = to;
		to = old;
	}
	free(to.before);
	free(to.session);
	free(to.think_ns);
	free(place);
	return err;
}

int simtrace_finish(struct simtrace *t)
{
	struct arrival *order;
	struct sim_request *req;
	struct names names;
	bool sorted = true;
	uint32_t no;
	int err = PD_OK;

	/* After this key[] holds one entry per distinct key; an entry is read before it is written.
	 */
	names_init(&names);
	for (size_t i = 0; !err && i < t->n; i++) {
		struct sim_key k = t->numbered ? (struct sim_key){0} : t->key[i];

		sorted &= i == 0 || t->req[i].arrival_ns >= t->req[i - 1].arrival_ns;
		if (t->numbered || k.len == 0)
			continue;
		err = names_number(&names, (struct span){t->text.data + k.off, k.len}, &no);
		if (err)
			break;
		if (no == t->nkeys)
			t->key[t->nkeys++] = k;
		t->key[no].requests++;
		t->req[i].key = no;
	}
	names_release(&names);
	if (err || sorted)
		return err;
	order = reallocarray(NULL, t->n, sizeof(*order));
	req = reallocarray(NULL, t->n, sizeof(*req));
	for (size_t i = 0; order && req && i < t->n; i++)
		order[i] = (struct arrival){t->req[i].arrival_ns, i};
	err = order && req ? PD_OK : PD_ENOMEM;
	if (!err) {
		qsort(order, t->n, sizeof(*order), by_arrival);
		err = sort_order(&t->order, order, t->n);
	}
	if (!err) {
		for (size_t i = 0; i < t->n; i++)
			req[i] = t->req[order[i].index];
		free(t->req);
		t->req = req;
		t->cap = t->n;
		req = NULL;
	}
	free(order);
	free(req);
	return err;
}

struct schedule_input simtrace_schedule(const struct simtrace *t)
{
	if (t->made)
		return (struct schedule_input){.n = t->n, .at_ns = t->made->at_ns};
	return (struct schedule_input){.n = t->n,
				       .at_ns = t->n ? &t->req[0].arrival_ns : NULL,
				       .at_stride = sizeof(*t->req),
				       .think_ns = t->order.think_ns,
				       .before = t->order.before,
				       .session = t->order.session,
				       .nsessions = t->order.nsessions,
				       .stamped = t->order.stamped};
}

size_t sim_made_key(bool group, uint32_t owner, char out[SIM_MADE_KEY_MAX])
{
	char digit[10];
	size_t n = group ? 6 : 8, k = 0;

	memcpy(out, group ? "group-" : "session-", n);
	do {
		digit[k++] = (char)('0' + owner % 10);
		owner /= 10;
	} while (owner > 0);
	while (k > 0)
		out[n++] = digit[--k];
	return n;
}

size_t simtrace_made_key(const struct simtrace *t, size_t i, char out[SIM_MADE_KEY_MAX])
{
	const struct sim_made *m = t->made;
	uint32_t session = m->session[i];

	return m->key ? sim_made_key(m->by_group, m->by_group ? m->group[session] : session, out)
		      : 0;
}
