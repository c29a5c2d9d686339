/*
 * Any bytes as a page of pods, as an event of a watch, as a Status, and as a selector. What is read
 * as a pod that takes requests has a URL that the router takes apart, made of an address and the
 * port of its role, and no name that could be taken for more than a name.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/discovery/kube_pod.h"
#include "lib/net/net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void judge(const struct kube_pod *p, bool pd)
{
	struct pd_msg msg = {0};
	struct net_url u;

	if (!strchr(p->key, '/') || strlen(p->key) > KUBE_KEY_MAX)
		abort();
	if (p->why != KUBE_TAKES)
		return;
	if ((p->w.role != DISCOVERY_REGULAR) != pd || p->w.labels.n > ROUTE_LABELS_MAX ||
	    p->w.bootstrap < 0 || p->w.bootstrap > UINT16_MAX)
		abort();
	/* What only looks like an address is refused where the worker is made. */
	if (net_url_parse(&u, p->w.url, &msg) == PD_OK &&
	    (u.port != 8000 || u.tls || u.base[0] || u.rank >= 0))
		abort();
}

static int each(void *ctx, struct kube_pod *p)
{
	judge(p, *(bool *)ctx);
	return PD_OK;
}

static void wanted(struct kube_wanted *w, bool pd)
{
	*w = (struct kube_wanted){.pd = pd, .port = {8000, 8000, 8000}};
	if (pd ? kube_selector_add(&w->role[DISCOVERY_PREFILL], "r=p", NULL) ||
			    kube_selector_add(&w->role[DISCOVERY_DECODE], "r=d", NULL)
	       : kube_selector_add(&w->all, "a=b", NULL))
		abort();
}

static void page(struct span text, bool pd)
{
	struct pd_msg msg = {0};
	struct kube_wanted w;
	struct buf more;
	struct kube_page p = {.more = &more, .each = each, .ctx = &pd};

	buf_init(&more, 4096);
	wanted(&w, pd);
	if (kube_page_read(&p, text, &w, &msg) != PD_OK && !msg.text[0])
		abort();
	buf_release(&more);
}

static void event(struct span text, bool pd)
{
	struct pd_msg msg = {0};
	struct kube_wanted w;
	struct kube_event e;

	wanted(&w, pd);
	if (kube_event_read(&e, text, &w, &msg) != PD_OK) {
		if (!msg.text[0])
			abort();
		return;
	}
	if (e.kind == KUBE_PUT || (e.kind == KUBE_DELETE && e.pod.why == KUBE_GONE))
		judge(&e.pod, pd);
	else if (e.kind == KUBE_DELETE)
		abort();
	if (e.kind != KUBE_ERROR && !e.version[0])
		abort();
	kube_event_release(&e);
}

/* What is taken as a selector can be asked for again, the same. */
static void selector(const uint8_t *data, size_t n)
{
	char text[400], name[330], *again;
	struct kube_wanted w = {0};
	struct buf out;

	if (n >= sizeof(text))
		return;
	memcpy(text, data, n);
	text[n] = '\0';
	if (kube_selector_add(&w.all, text, NULL))
		return;
	buf_init(&out, 65536);
	if (w.all.n == 0 || kube_wanted_selector(&w, &out))
		abort();
	again = buf_detach(&out);
	(void)snprintf(name, sizeof(name), "%.*s=", (int)w.all.pair[0].name.n,
		       w.all.pair[0].name.p);
	if (!again || strncmp(again, name, strlen(name)) != 0 || strlen(again) != strlen(text))
		abort();
	free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct span text = {(const char *)data, n};
	char said[64];
	unsigned wait_s;
	int code;

	for (int pd = 0; pd < 2; pd++) {
		page(text, pd);
		event(text, pd);
	}
	kube_status_read(text, said, sizeof(said), &code, &wait_s);
	if (strlen(said) >= sizeof(said) || code < 0)
		abort();
	selector(data, n);
	return 0;
}
