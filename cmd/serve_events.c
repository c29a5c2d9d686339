#include "cmd/serve_events.h"

#include <stdlib.h>
#include <string.h>

#include "lib/router/fleet/kvfollow.h"

static struct opt_list sources, pd_sources, replays;
static int64_t block_size;
static const char **all; /* owned: both lists of sources */

const struct opt serve_events_rows[] = {
	{OPT_LIST, "kv-event-source", &sources, "URL=ENDPOINT",
	 "kv_aware: where the worker with this URL publishes its KV events, tcp://HOST:PORT, one "
	 "for "
	 "each rank with ',' between; without it the labels kv-events and kv-events-replay, and "
	 "GET "
	 "/kv_event_sources of the worker",
	 NULL, 0, 0, NULL},
	{OPT_LIST, "pd-kv-events", &pd_sources, "URL=ENDPOINT", "the same of a prefill worker",
	 NULL, 0, 0, NULL},
	{OPT_LIST, "kv-event-replay-source", &replays, "URL=ENDPOINT",
	 "where it replays what was missed", NULL, 0, 0, NULL},
	{OPT_INT, "kv-event-block-size", &block_size, "N",
	 "tokens of a block in these events; 0: as the first engine says (0)", NULL, 0, 65536,
	 NULL},
	{.type = OPT_END},
};

void serve_events_defaults(void)
{
	sources = pd_sources = replays = (struct opt_list){0};
	block_size = 0;
	all = NULL;
}

static int check(const char *flag, const struct opt_list *l, struct pd_msg *msg)
{
	struct pd_msg why = {0};

	for (size_t i = 0; i < l->n; i++)
		if (kvfollow_check(l->items[i], &why))
			return pd_fail(msg, PD_EINVAL, "--%s: %.400s", flag, why.text);
	return PD_OK;
}

int serve_events_read(struct router_config *c, struct pd_msg *msg)
{
	int err = check("kv-event-source", &sources, msg);

	err = err ? err : check("pd-kv-events", &pd_sources, msg);
	err = err ? err : check("kv-event-replay-source", &replays, msg);
	if (err)
		return err;
	all = calloc(sources.n + pd_sources.n + 1, sizeof(*all));
	if (!all)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	for (size_t i = 0; i < sources.n; i++)
		all[c->kv_sources_n++] = sources.items[i];
	for (size_t i = 0; i < pd_sources.n; i++)
		all[c->kv_sources_n++] = pd_sources.items[i];
	c->kv_sources = all;
	c->kv_replays = replays.items;
	c->kv_replays_n = replays.n;
	c->kv_block_tokens = (uint32_t)block_size;
	return PD_OK;
}

void serve_events_release(void)
{
	opt_list_release(&sources);
	opt_list_release(&pd_sources);
	opt_list_release(&replays);
	free(all);
	all = NULL;
}
